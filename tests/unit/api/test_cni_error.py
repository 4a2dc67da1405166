"""Which CNI code each kind of error becomes."""

import errno

import pytest

from netagent.api.cni_error import CniCode, CniError, cni_error, code_of, error_object
from netagent.errors import (
    AlreadyExists,
    Bug,
    Conflict,
    EnvironmentProblem,
    Exhausted,
    InvalidRequest,
    KernelRejected,
    NetagentError,
    NotFound,
    Unavailable,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("gone", netns="/run/netns/x"), 3),
        (NotFound("no such network"), 7),
        (InvalidRequest("a FIFO", netns="/run/netns/x"), 8),
        (InvalidRequest("bad address"), 7),
        (Conflict("port", port=80), 101),
        (Conflict("address", address="10.0.0.1"), 102),
        (Conflict("network is being deleted"), 7),
        (Exhausted("no addresses"), 103),
        (AlreadyExists("attached"), 100),
        (Conflict("interface", interface="eth0"), 104),
        (KernelRejected("link add", errno.EPERM, "Operation not permitted"), 199),
        (Unavailable("store away"), 11),
        (EnvironmentProblem("no nftables"), 199),
        (Bug("impossible"), 199),
    ],
    ids=lambda value: value if isinstance(value, int) else f"{type(value).__name__}-{value.message.replace(' ', '-')}",
)
def test_the_class_and_its_facts_decide_the_code(error: NetagentError, code: int) -> None:
    assert code_of(error) == code


def test_message_and_hint_reach_the_runtime() -> None:
    told = cni_error(Conflict("port 80 is taken", hint="choose another", port=80))
    assert error_object(told, "0.4.0") == {
        "cniVersion": "0.4.0",
        "code": 101,
        "msg": "port 80 is taken",
        "details": "choose another",
    }


def test_an_error_is_one_line_of_bounded_length_whatever_it_repeats() -> None:
    answer = error_object(CniError(CniCode.INTERNAL, "a\nb\x1b[31m" + "x" * 100_000), "1.0.0")
    assert answer["msg"].startswith("a\\nb\\x1b[31mx")
    assert answer["msg"].isprintable()
    assert len(answer["msg"]) < 3000
    assert "details" not in answer
