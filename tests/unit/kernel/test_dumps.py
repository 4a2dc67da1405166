"""Dumps that the kernel was interrupted in, played by a socket that answers from a script."""

import struct
from collections.abc import Iterator

import pytest

from netagent.errors import Unavailable
from netagent.kernel.netlink import NetlinkSocket, Request
from netagent.kernel.uapi import NLM_F_DUMP_INTR, NLMSG_DONE, RTM_GETLINK, RTM_NEWLINK


class _ScriptedSocket:
    """Answers the n-th request with the n-th script, with the request's own sequence number."""

    def __init__(self, *scripts: list[tuple[int, int, bytes]]) -> None:
        self._scripts = iter(scripts)
        self._answers: Iterator[bytes] = iter(())
        self.sent = 0

    def send(self, data: bytes) -> int:
        self.sent += 1
        sequence = struct.unpack_from("=IHHII", data)[3]
        script = next(self._scripts)
        self._answers = (
            struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body for kind, flags, body in script
        )
        return len(data)

    def recv(self, _size: int) -> bytes:
        return next(self._answers)


DONE = (NLMSG_DONE, 0, bytes(4))


def _dump(monkeypatch: pytest.MonkeyPatch, scripted: _ScriptedSocket) -> list[bytes]:
    netlink = NetlinkSocket()
    try:
        monkeypatch.setattr(netlink, "_socket", scripted)
        return [bytes(message.body) for message in netlink.dump(Request(RTM_GETLINK, 0, b""))]
    finally:
        monkeypatch.undo()
        netlink.close()


def test_an_interrupted_dump_is_thrown_away_and_redone(monkeypatch: pytest.MonkeyPatch) -> None:
    torn = [(RTM_NEWLINK, 0, b"half"), (RTM_NEWLINK, NLM_F_DUMP_INTR, b"torn"), DONE]
    whole = [(RTM_NEWLINK, 0, b"one."), (RTM_NEWLINK, 0, b"two."), DONE]
    scripted = _ScriptedSocket(torn, [(NLMSG_DONE, NLM_F_DUMP_INTR, bytes(4))], whole)
    assert _dump(monkeypatch, scripted) == [b"one.", b"two."]
    assert scripted.sent == 3


def test_a_table_that_never_rests_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    torn = [(RTM_NEWLINK, NLM_F_DUMP_INTR, b"torn"), DONE]
    scripted = _ScriptedSocket(*[torn] * 20)
    with pytest.raises(Unavailable):
        _dump(monkeypatch, scripted)
    assert scripted.sent == 10


def test_an_error_at_the_end_of_a_dump_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = _ScriptedSocket([(RTM_NEWLINK, 0, b"some"), (NLMSG_DONE, 0, struct.pack("=i", -12))])
    with pytest.raises(OSError, match="memory"):
        _dump(monkeypatch, scripted)
