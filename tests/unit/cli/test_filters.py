"""Filters of any content: a test for what is listed, or one line of refusal."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from netagent.cli.container_filters import asks_for_stopped, container_filter
from netagent.cli.filters import Test, network_filter, prune_filter
from netagent.errors import NetagentError
from netagent.v1.containers_pb2 import Container
from netagent.v1.networks_pb2 import Network

CONTAINER = Container(id="c" * 64, name="web", state="exited", exit_code=3, labels={"a": "b"}, exposed=["80/tcp"])
NETWORK = Network(id="d" * 64, name="app", driver="bridge", scope="local", created="2026-01-02T03:04:05Z")

_KEYS = st.sampled_from(
    [
        "id",
        "name",
        "label",
        "label!",
        "status",
        "exited",
        "network",
        "publish",
        "expose",
        "before",
        "since",
        "driver",
        "scope",
        "type",
        "dangling",
        "until",
    ]
)
_VALUES = st.sampled_from(["web", "a=b", "exited", "3", "80/tcp", "true", "24h", "custom", "local", "["])
_TEXTS = st.lists(
    st.tuples(_KEYS, st.sampled_from(["=", "=", "", " = "]), _VALUES | st.text(max_size=8)).map("".join)
    | st.text(max_size=12),
    max_size=3,
)


def _refused(make: Callable[[], Test[Any]], listed: object) -> str:
    """Return what was said instead of a test for what is listed; nothing if there was one."""
    try:
        assert make()(listed) in (True, False)
    except NetagentError as error:
        return error.message or "without a word"
    return ""


@given(_TEXTS)
def test_any_filter_says_yes_or_no_or_is_refused(texts: list[str]) -> None:
    assert asks_for_stopped(texts) in (True, False)
    for refused in (
        _refused(lambda: container_filter(texts, [CONTAINER]), CONTAINER),
        _refused(lambda: network_filter(texts), NETWORK),
        _refused(lambda: prune_filter(texts), NETWORK),
    ):
        assert not refused or refused.startswith(("invalid filter", "No such container: "))


@given(st.text(max_size=20))
def test_a_length_of_time_is_understood_or_refused(text: str) -> None:
    assert _refused(lambda: prune_filter([f"until={text}"]), NETWORK) in ("", f"invalid filter 'until={text.strip()}'")
