"""Answers of other hosts are read also by a process that stood still while they came."""

import socket

import pytest

from netagent.kernel import probe


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for answers is over as soon as it has begun."""
    monkeypatch.setattr(probe, "WITHIN_S", 0.0)


@pytest.mark.usefixtures("late")
def test_what_has_come_is_read_although_the_time_is_over() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        theirs.send(b"answer")
        assert [sock.recv(9) for ready in probe.readable(lambda: [ours]) for sock in ready] == [b"answer"]


@pytest.mark.usefixtures("late")
def test_who_never_ends_is_not_listened_to_for_ever() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        theirs.send(b"never taken")
        assert len(list(probe.readable(lambda: [ours]))) == probe.LATE_READS


def test_nobody_is_waited_for_where_all_have_answered() -> None:
    assert not list(probe.readable(list))
