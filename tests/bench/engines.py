"""Container engines as sides: containers that run already are connected to a network, and disconnected.

So the start of a container, which is the runtime's, takes no part. Engines run in a namespace of pids of their own, and
whatever they started ends with its first process.
"""

import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from netagent.lab import cgroup
from netagent.lab.image import IMAGE, write_image
from tests.bench.sides import own_ports, sandbox
from tests.support.lab import eventually
from tests.support.unix_http import UnixConnection

_ARCHIVE = Path("/run/bench-image.tar")
_READY_WITHIN_S = 40.0
_OWN_PIDS = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
)
"""Runs a command that ends with whoever has started it, and all that it has started with it."""


def cgroup_of(worker: int) -> str:
    """Return the name of the cgroups that a worker's containers are in."""
    return f"netagent-bench-{worker}"


class Docker:
    """dockerd with bridges; its API is called, not its command. Published ports come with the connection."""

    _SOCKET = "/run/bench-docker.sock"

    def __init__(self, *options: str) -> None:
        self._options = options
        self._daemon: subprocess.Popen[bytes] | None = None
        self._cgroup = cgroup_of(os.getpid())

    def start(self) -> None:
        """Start the daemon, give it an image and two networks: one to wait in, one to be connected to."""
        files = ("--data-root", "/var/lib/bench-docker", "--exec-root", "/run/bench-docker", "-p", "/run/bench.pid")
        rest = ("-H", f"unix://{self._SOCKET}", "--storage-driver", "vfs", "--cgroup-parent", f"/{self._cgroup}")
        with Path("/run/bench-dockerd.log").open("wb") as log:
            self._daemon = subprocess.Popen(
                [
                    *_OWN_PIDS,
                    "dockerd",
                    *files,
                    *rest,
                    *self._options,
                ],
                stdout=log,
                stderr=log,
            )
        self._wait()
        write_image(_ARCHIVE)
        self._call("POST", "/images/load", _ARCHIVE.read_bytes(), kind="application/x-tar")
        self._call("POST", "/networks/create", {"Name": "waiting", "Internal": True, "CheckDuplicate": True})
        self._call("POST", "/networks/create", {"Name": "bench", "CheckDuplicate": True})

    def make(self, numbers: Sequence[int], ports: Sequence[int]) -> None:
        for number in numbers:
            bindings = {f"{port}/tcp": [{"HostPort": str(port)}] for port in own_ports(number, ports)}
            host = {"NetworkMode": "waiting", "PortBindings": bindings, "Init": False}
            asked = {"Image": IMAGE, "Cmd": ["sleep", "100000"], "HostConfig": host, "StopSignal": "SIGKILL"}
            asked["ExposedPorts"] = {port: {} for port in bindings}
            self._call("POST", f"/containers/create?name={sandbox(number)}", asked)
            self._call("POST", f"/containers/{sandbox(number)}/start")

    def attach(self, number: int, ports: Sequence[int]) -> str:
        self._call("POST", "/networks/bench/connect", {"Container": sandbox(number)})
        return ""

    def detach(self, number: int, ports: Sequence[int]) -> None:
        self._call("POST", "/networks/bench/disconnect", {"Container": sandbox(number)})

    def remove(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._call("DELETE", f"/containers/{sandbox(number)}?force=1")

    def close(self) -> None:
        """End the daemon and its containers."""
        if self._daemon is not None:
            with suppress(OSError, RuntimeError, http.client.HTTPException):
                self.remove([int(each["Names"][0][2:]) for each in self._call("GET", "/containers/json?all=1")])
            self._daemon.kill()
            self._daemon.wait()
        cgroup.remove(cgroup.of_machine(self._cgroup))

    def _wait(self) -> None:
        def answers() -> bool:
            assert self._daemon is not None
            if self._daemon.poll() is not None:
                raise RuntimeError(f"dockerd ended: {Path('/run/bench-dockerd.log').read_text()[-300:]}")
            with suppress(OSError, http.client.HTTPException):
                self._call("GET", "/_ping")
                return True
            return False

        eventually(answers, within=_READY_WITHIN_S)

    def _call(self, verb: str, path: str, body: object = None, kind: str = "application/json") -> Any:
        connection = UnixConnection(self._SOCKET, timeout=300)
        try:
            content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(verb, path, content, {"Content-Type": kind})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise RuntimeError(f"dockerd {path.partition('?')[0]}: {text.decode(errors='replace')[:300]}")
        return json.loads(text) if text.startswith((b"{", b"[")) and kind == "application/json" else None


class Podman:
    """Podman's command with netavark: ``podman network connect``. There is no daemon."""

    _CONFIGURATION = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "netavark"
network_config_dir = "/run/bench-podman/networks"
"""

    def __init__(self) -> None:
        self._holder: subprocess.Popen[bytes] | None = None
        self._first = 0
        self._cgroup = cgroup_of(os.getpid())

    def start(self) -> None:
        """Write its configuration, give it the image and two networks."""
        self._holder = subprocess.Popen([*_OWN_PIDS, "sleep", "infinity"])
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        eventually(lambda: children.read_text().strip(), within=5)
        self._first = int(children.read_text())
        eventually(lambda: Path(f"/proc/{self._first}/comm").read_text() == "sleep\n", within=5)
        Path("/run/bench-podman.conf").write_text(self._CONFIGURATION)
        write_image(_ARCHIVE)
        self._podman("load", "--quiet", "--input", str(_ARCHIVE))
        self._podman("network", "create", "--internal", "--disable-dns", "waiting")
        self._podman("network", "create", "--disable-dns", "bench")

    def make(self, numbers: Sequence[int], ports: Sequence[int]) -> None:
        for number in numbers:
            published = [word for port in own_ports(number, ports) for word in ("-p", f"{port}:{port}")]
            options = ("--name", sandbox(number), "--cgroup-parent", f"/{self._cgroup}", "--network", "waiting")
            self._podman("run", "-d", *options, *published, IMAGE, "sleep", "100000")

    def attach(self, number: int, ports: Sequence[int]) -> str:
        self._podman("network", "connect", "bench", sandbox(number))
        return ""

    def detach(self, number: int, ports: Sequence[int]) -> None:
        self._podman("network", "disconnect", "bench", sandbox(number))

    def remove(self, numbers: Sequence[int]) -> None:
        self._podman("rm", "-f", "-t", "0", *map(sandbox, numbers))

    def close(self) -> None:
        """End its containers with their namespace of pids."""
        if self._holder is not None:
            with suppress(ProcessLookupError):
                os.kill(self._first or self._holder.pid, signal.SIGKILL)
            self._holder.wait()
            time.sleep(0.1)
        cgroup.remove(cgroup.of_machine(self._cgroup))

    def _podman(self, *arguments: str) -> None:
        enter = ("nsenter", f"--target={self._first}", "--pid", "--mount", "--")
        files = ("--root", "/var/lib/bench-podman", "--runroot", "/run/bench-podman/run", "--storage-driver", "vfs")
        environment = {**os.environ, "CONTAINERS_CONF": "/run/bench-podman.conf"}
        said = subprocess.run(
            [*enter, "podman", *files, *arguments], capture_output=True, text=True, check=False, env=environment
        )
        if said.returncode:
            raise RuntimeError(f"podman {' '.join(arguments[:2])}: {said.stderr.strip()[-300:]}")
