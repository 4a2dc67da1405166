"""Real etcd members on loopback: started, frozen and killed one by one, gone at the end of the test.

Data lies on tmpfs where there is one, so that a commit costs no disk. Use ``etcd_server`` for one member,
``etcd_cluster`` for several.
"""

import asyncio
import http.client
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

from netagent.model.endpoint_index import Endpoints
from netagent.model.ids import HostId
from netagent.services.stores import StoreAccess
from netagent.store.etcd.store import EtcdStore
from netagent.store.mirror import Mirror
from netagent.store.view import ClusterView

START_WITHIN_S = 60.0
_numbers = itertools.count(1)


class HeldPort:
    """A TCP port of 127.0.0.1 on which nobody listens but who is told of it, until it is closed.

    Its socket is bound and does not listen. Nobody else is given the port as a free one then, and yet a server may
    listen there, as both set SO_REUSEADDR (inet_csk_bind_conflict, net/ipv4/inet_connection_sock.c); Go's servers do.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number = int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Let go of the port; repeatable."""
        self._socket.close()

    def __enter__(self) -> int:
        return self.number

    def __exit__(self, *_: object) -> None:
        self.close()


class EtcdServer:
    """One etcd member. ``start`` after ``stop`` or ``kill`` finds the same data and ports again."""

    def __init__(
        self, directory: Path, *, certificates: Path | None = None, quota_bytes: int = 0, auth_token: str = "simple"
    ) -> None:
        self.quota_bytes = quota_bytes
        self.auth_token = auth_token
        self.name = f"m{next(_numbers)}"
        self.directory = directory / self.name
        self._ports = (HeldPort(), HeldPort(), HeldPort())
        self.client_port, self.peer_port, self._health_port = (port.number for port in self._ports)
        self.cluster = f"{self.name}={self.peer_url}"
        self.certificates = certificates
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """``host:port`` for clients."""
        return f"127.0.0.1:{self.client_port}"

    @property
    def url(self) -> str:
        """What ``--store`` takes."""
        return f"{'etcds' if self.certificates else 'etcd'}://{self.endpoint}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"

    def spawn(self) -> None:
        """Start the member without waiting for it."""
        assert self._process is None, "already started"
        client_url = f"{'https' if self.certificates else 'http'}://{self.endpoint}"
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("etcd", "--name", self.name, "--data-dir", str(self.directory / "data")),
                    *("--listen-client-urls", client_url, "--advertise-client-urls", client_url),
                    *("--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url),
                    *("--initial-cluster", self.cluster),
                    *("--listen-metrics-urls", f"http://127.0.0.1:{self._health_port}"),
                    *("--heartbeat-interval", "50", "--election-timeout", "500"),
                    *("--logger", "zap", "--log-level", "warn", "--quota-backend-bytes", str(self.quota_bytes)),
                    *("--auth-token", self.auth_token),
                    *self._tls_arguments(),
                ],
                stdout=log,
                stderr=log,
            )

    def _tls_arguments(self) -> tuple[str, ...]:
        if self.certificates is None:
            return ()
        ca, cert, key = (str(self.certificates / name) for name in ("ca.pem", "cert.pem", "key.pem"))
        return ("--client-cert-auth", "--trusted-ca-file", ca, "--cert-file", cert, "--key-file", key)

    def wait_healthy(self) -> None:
        """Wait until the member has a leader."""
        deadline = time.monotonic() + START_WITHIN_S
        while not self._is_healthy():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"etcd did not start:\n{(self.directory / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._health_port, timeout=1)
        try:
            connection.request("GET", "/health")
            return b'"true"' in connection.getresponse().read()
        except OSError:
            return False
        finally:
            connection.close()

    def start(self) -> None:
        """Start the member and wait until it serves."""
        self.spawn()
        self.wait_healthy()

    def stop(self) -> None:
        """End the member in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the member as a crash does."""
        self._end(signal.SIGKILL)

    def give_up(self) -> None:
        """End the member for good: it is not started again."""
        self.kill()
        for port in self._ports:
            port.close()

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Freeze the member: its connections stay, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        while not self._is_stopped():
            time.sleep(0.001)

    def _is_stopped(self) -> bool:
        # Each thread stops on its own: the state follows the name, proc_pid_stat(5).
        assert self._process is not None
        threads = Path(f"/proc/{self._process.pid}/task").glob("*/stat")
        return all(path.read_text().rpartition(")")[2].split()[0] == "T" for path in threads)

    def resume(self) -> None:
        """End a ``pause``."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Remove the data of the stopped member; it begins anew as the same member of a cluster with the same id."""
        assert self._process is None
        shutil.rmtree(self.directory / "data")

    def save(self) -> None:
        """Copy the data of the stopped member."""
        assert self._process is None
        shutil.copytree(self.directory / "data", self.directory / "saved")

    def restore(self) -> None:
        """Put back the data that ``save`` copied."""
        assert self._process is None
        shutil.rmtree(self.directory / "data")
        (self.directory / "saved").rename(self.directory / "data")

    def ctl(self, *arguments: str) -> str:
        """Run etcdctl against this member; return what it prints."""
        return subprocess.run(
            ["etcdctl", "--command-timeout=30s", "--endpoints", self.endpoint, *arguments],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "ETCDCTL_API": "3"},
        ).stdout


@asynccontextmanager
async def followed(store: EtcdStore, prefix: str) -> AsyncIterator[StoreAccess]:
    """A store as services use it: its mirror follows it until the end."""
    access = StoreAccess(store, Mirror(store, prefix), ClusterView(HostId("h1"), Endpoints))
    following = asyncio.create_task(access.mirror.run())
    try:
        yield access
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following


@contextmanager
def _data_directory(tmp_path: Path) -> Iterator[Path]:
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="netagent-etcd-", dir=shm if shm.is_dir() else tmp_path) as directory:
        yield Path(directory)


@contextmanager
def etcd_server(
    tmp_path: Path, *, certificates: Path | None = None, quota_bytes: int = 0, auth_token: str = "simple"
) -> Iterator[EtcdServer]:
    """A started cluster of one member; ``certificates`` holds ca.pem, cert.pem and key.pem if it is to speak TLS.

    It is full at ``quota_bytes``, 0 for etcd's own default. ``auth_token`` is etcd's option of that name.
    """
    cluster = etcd_cluster(
        tmp_path, members=1, certificates=certificates, quota_bytes=quota_bytes, auth_token=auth_token
    )
    with cluster as (server,):
        yield server


@contextmanager
def etcd_cluster(
    tmp_path: Path,
    *,
    members: int,
    certificates: Path | None = None,
    quota_bytes: int = 0,
    auth_token: str = "simple",
) -> Iterator[tuple[EtcdServer, ...]]:
    """A started cluster."""
    with _data_directory(tmp_path) as directory, ExitStack() as stack:
        servers = tuple(
            EtcdServer(directory, certificates=certificates, quota_bytes=quota_bytes, auth_token=auth_token)
            for _ in range(members)
        )
        for server in servers:
            server.cluster = ",".join(f"{peer.name}={peer.peer_url}" for peer in servers)
            stack.callback(server.give_up)
            server.spawn()
        for server in servers:
            server.wait_healthy()
        yield servers
