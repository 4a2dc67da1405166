"""The command line's end of a container: its input, output, terminal size and exit status, straight from conmon.

conmon's socket carries packets (SOCK_SEQPACKET): to us one byte that names the stream and then output, from us input,
ended by a half-close (conmon ``src/conn_sock.c``). Nothing here needs the agent, nor asyncio (40 ms to import).
"""

import fcntl
import os
import select
import signal
import socket
import struct
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Self

from netagent.errors import NotFound
from netagent.runtime.layout import Layout

STDOUT, STDERR = 2, 3
"""The first byte of an output packet (conmon ``src/utils.h``, ``stdpipe_t``)."""
_PACKET_LIMIT = 8192
"""conmon passes output on in pieces of this size, and drops what an input packet has beyond 32 KiB."""
_FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

SignalProxy = Callable[[int], None]


class Streams:
    """A connection to one container's input and output. Connect before the container is started to miss nothing."""

    def __init__(self, connection: socket.socket, layout: Layout) -> None:
        self._connection = connection
        self._layout = layout
        self._pending = b""
        self._size = (0, 0)

    @classmethod
    def connect(cls, attach_socket: Path) -> Self:
        """Connect to the ``attach_socket`` of a container; NotFound if it has ended or never was."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            # A socket's path ends at 107 bytes (unix(7)); /proc/self/fd makes any directory's path short.
            directory = os.open(attach_socket.parent, os.O_PATH | os.O_DIRECTORY)
            try:
                connection.connect(f"/proc/self/fd/{directory}/{attach_socket.name}")
            finally:
                os.close(directory)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            connection.close()
            raise NotFound(f"no running container listens at {attach_socket}") from error
        connection.setblocking(False)
        return cls(connection, Layout(attach_socket.parent))

    def run(self, *, terminal: bool, interactive: bool, proxy: SignalProxy | None = None) -> None:
        """Pass input and output until the container ends.

        ``terminal`` and ``interactive`` as in its spec. ``proxy`` gets the signals that would end us, to send them to
        the container; what it raises ends the connection.
        """
        with _raw_terminal(terminal and interactive), _signals(self, terminal, proxy) as wakeup:
            self._pass(sys.stdin.fileno() if interactive else None, wakeup)

    def resize(self) -> None:
        """Give the container's terminal the size of ours; nothing happens if we have none.

        Call it before the container is started, or its command begins in a terminal of no size.
        """
        with suppress(OSError):
            size = _window_size()
            if size == self._size:
                return  # conmon, given two lines at once, takes the first one twice: so none without need.
            control = os.open(self._layout.control, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(control, f"1 {size[0]} {size[1]}\n".encode())
            finally:
                os.close(control)
            self._size = size

    def exit_code(self, *, timeout_s: float = 5.0) -> int | None:
        """Return the container's exit status after ``run`` has returned; None if conmon left none (then ask the agent).

        conmon closes the socket just before it writes the status.
        """
        deadline = time.monotonic() + timeout_s
        while (code := self._layout.exit_code()) is None:
            if time.monotonic() > deadline or not self._layout.directory.exists():
                return None
            time.sleep(0.001)
        return code

    def close(self) -> None:
        """Let go of the container; it runs on, its standard input ends."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pass(self, stdin: int | None, wakeup: int) -> None:
        """Pass until the connection ends. Never block in sending: conmon may be blocked in sending to us."""
        while True:
            poll = select.poll()
            poll.register(wakeup, select.POLLIN)
            poll.register(self._connection, select.POLLIN | (select.POLLOUT if self._pending else 0))
            if stdin is not None and not self._pending:
                poll.register(stdin, select.POLLIN)
            ready = dict(poll.poll())
            if wakeup in ready:
                os.read(wakeup, 4096)
            events = ready.get(self._connection.fileno(), 0)
            if events & select.POLLOUT:
                self._send()
            if events & ~select.POLLOUT and not self._receive():
                return
            if stdin in ready and stdin is not None and not self._take(stdin):
                stdin = None

    def _receive(self) -> bool:
        """Write one packet of output to where it belongs; False at the end."""
        try:
            packet = self._connection.recv(_PACKET_LIMIT + 1)
        except (BlockingIOError, ConnectionResetError):
            # A reset tells, once and ahead of queued output, that conmon left input unread (unix_release_sock).
            return True
        if not packet:
            return False
        _write_all(sys.stderr.fileno() if packet[0] == STDERR else sys.stdout.fileno(), packet[1:])
        return True

    def _take(self, stdin: int) -> bool:
        """Read a piece of input and send it, or its end; False at the end."""
        try:
            self._pending = os.read(stdin, _PACKET_LIMIT)
        except OSError:
            self._pending = b""
        if self._pending:
            self._send()
            return True
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        return False

    def _send(self) -> None:
        try:
            self._connection.send(self._pending)
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            pass  # Nobody reads input any more; output may still come.
        self._pending = b""


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            # Our standard output may be shared with a process that made it non-blocking.
            select.select([], [descriptor], [])


def _window_size() -> tuple[int, int]:
    """Return rows and columns of the terminal; OSError if there is none (tty_ioctl(4), TIOCGWINSZ)."""
    answer = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
    rows, columns, _, _ = struct.unpack("HHHH", answer)
    return rows, columns


@contextmanager
def _raw_terminal(wanted: bool) -> Iterator[None]:
    """Hand every key to the container as it is typed, so that its own terminal does echo and Ctrl-C."""
    descriptor = sys.stdin.fileno() if wanted else -1
    if not wanted or not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _signals(streams: Streams, terminal: bool, proxy: SignalProxy | None) -> Iterator[int]:
    """Handle signals while streams are passed; yield a descriptor that becomes readable when one comes.

    Python runs handlers between its own instructions, so an exception from ``proxy`` leaves ``poll`` at once.
    """
    handlers: dict[int, Callable[[int, FrameType | None], None]] = {}
    if proxy is not None:
        handlers |= {number: lambda number, _: proxy(number) for number in _FORWARDED}
    if terminal:
        handlers[signal.SIGWINCH] = lambda _number, _frame: streams.resize()
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    old_wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        if terminal:
            streams.resize()
        yield reading
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(old_wakeup)
        os.close(reading)
        os.close(writing)
