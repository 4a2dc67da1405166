"""From two tables of mounts it is known whether namespaces that a runtime keeps by mounts are seen by the agent."""

import os

import pytest

from netagent.kernel.mounts import are_mounts_hidden, arrives, groups_at

ROOT = "27 1 254:0 / / rw,relatime{} - ext4 /dev/vda rw"
RUN = "28 27 0:25 / /run rw{} - tmpfs tmpfs rw"
NETNS = "42 28 0:25 /netns /run/netns rw{} - tmpfs tmpfs rw"


def table(root: str = "", run: str | None = None, netns: str | None = None) -> str:
    lines = [ROOT.format(root)]
    lines += [line.format(tags) for line, tags in ((RUN, run), (NETNS, netns)) if tags is not None]
    return "\n".join(lines)


HOST = table(" shared:1", " shared:5", " shared:9")


@pytest.mark.parametrize(
    ("theirs", "own", "expected"),
    [
        (HOST, HOST, True),
        (HOST, table(" shared:70 master:1", " shared:71 master:5", " shared:72 master:9"), True),
        (HOST, table("", None, " master:9"), True),
        (HOST, table("", None, " propagate_from:9"), True),
        (HOST, table("", "", ""), False),
        (HOST, table(" shared:70", None, " shared:71"), False),
        (HOST, table(" master:1", "", None), False),
        (table("", "", ""), table("", "", ""), False),
        (table(" shared:1", " shared:5"), table(" master:1", " master:5"), True),
    ],
    ids=[
        "both-on-the-host",
        "a-unit-with-mounts-of-its-own",
        "a-container-with-rslave",
        "followed-through-another",
        "a-container-without",
        "made-shared-anew",
        "only-the-root-follows",
        "the-runtime-itself-is-private",
        "before-the-first-name",
    ],
)
def test_what_a_runtime_mounts_is_seen_where_it_is_handed_on(theirs: str, own: str, expected: bool) -> None:
    assert arrives(theirs, own, "/run/netns/blue") is expected


def test_of_a_runtime_with_pids_of_its_own_nothing_can_be_known_but_whether_anything_is_handed_on() -> None:
    assert groups_at(table("", None, ""), "/run/netns/blue") == {}
    assert groups_at(table("", None, " shared:7 master:9"), "/run/netns/blue") == {"shared": "7", "master": "9"}


def test_a_runtime_in_the_agents_own_mount_namespace_hides_nothing() -> None:
    assert not are_mounts_hidden(os.getpid(), "/run/netns/blue")
