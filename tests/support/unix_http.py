"""HTTP over a unix socket, as dockerd speaks and is spoken to."""

import http.client
import socket
from pathlib import Path


class UnixConnection(http.client.HTTPConnection):
    """A connection to the server at ``path``; no wait of it takes longer than ``timeout`` seconds."""

    def __init__(self, path: str | Path, *, name: str = "localhost", timeout: float) -> None:
        super().__init__(name, timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        """See ``HTTPConnection``."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
