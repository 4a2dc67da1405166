"""The agent's side of the process that forwards ``[::1]``: starts it, hands it sockets, ends it.

A call waits for the answer, which takes part of a millisecond; a process that does not answer is ended, and with it
all that it forwarded.
"""

import contextlib
import logging
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence

import msgspec

from netagent.errors import Unavailable
from netagent.loopback.control import SOCKETS_AT_ONCE, Command, Way

log = logging.getLogger("netagent.loopback")

ANSWER_WITHIN_S = 1.0
START_WITHIN_S = 10.0


class LoopbackForwarder:
    """One per agent; the process is there from the first way to the last."""

    def __init__(self) -> None:
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process is there; if not, nothing is forwarded."""
        return self._process is not None and self._process.poll() is None

    def open(self, ways: Sequence[tuple[Way, socket.socket]]) -> None:
        """Forward ``ways`` from their sockets, which stay the caller's; Unavailable if the process cannot do it."""
        if not self.is_running:
            self._start()
        for first in range(0, len(ways), SOCKETS_AT_ONCE):
            some = ways[first : first + SOCKETS_AT_ONCE]
            self._tell(Command(opened=tuple(way for way, _ in some)), [each for _, each in some])

    def close_ports(self, ports: Iterable[tuple[str, int]]) -> None:
        """Forward these (protocol, port) no more; when this returns they are free."""
        if self.is_running:
            with contextlib.suppress(Unavailable):
                self._tell(Command(closed=tuple(ports)), ())

    def stop(self) -> None:
        """End the process."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start(self) -> None:
        self.stop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-P", "-m", "netagent.loopback"]
            self._process = subprocess.Popen(command, cwd="/", stdin=theirs.fileno())
        self._control = ours
        self._tell(Command(), (), within=START_WITHIN_S)
        log.info("started the process that forwards [::1], pid %d", self._process.pid)

    def _tell(self, command: Command, sockets: Sequence[socket.socket], *, within: float = ANSWER_WITHIN_S) -> None:
        assert self._control is not None
        self._control.settimeout(within)
        try:
            data = msgspec.json.encode(command)
            socket.send_fds(self._control, [data], [each.fileno() for each in sockets])
            if not self._control.recv(64):
                raise OSError("it ended")
        except OSError as error:
            self.stop()
            raise Unavailable(f"the process that forwards [::1] does not answer: {error}") from error
