"""Container runtimes on a host of a lab, each as its users run it, with netagent as its network.

They keep all they have below the host's own ``/run``, and their containers' cgroups below one that is named after the
host, so that they end with it.
"""

import json
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from netagent.errors import Unavailable
from netagent.lab import process
from netagent.lab.host import Host
from netagent.lab.image import IMAGE, write_image

CAPABILITIES = ("portMappings", "ips", "mac", "aliases", "bandwidth", "dns", "ipRanges")
LISTS = "/etc/cni/net.d"
_ARCHIVE = "/run/nalab/image.tar"
_READY_WITHIN_S = 60.0
_DOCKERD_READY_WITHIN_S = 90.0
_STOP_WITHIN_S = 60.0


def install_list(host: Host, file: Path) -> None:
    """Give the runtimes of ``host`` a list of CNI plugins."""
    directory = host.path(LISTS)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / file.name).write_bytes(file.read_bytes())


def write_list(host: Host, network: str, **keys: object) -> None:
    """Make ``network`` known to the runtimes of ``host`` under its own name; ``keys`` go into the plugin's entry."""
    plugin = {"type": "netagent", "capabilities": dict.fromkeys(CAPABILITIES, True), **keys}
    document = {"cniVersion": "1.0.0", "name": network, "plugins": [plugin]}
    directory = host.path(LISTS)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"10-{network}.conflist").write_text(json.dumps(document, indent=2))


def _provide_image(host: Host) -> None:
    if not host.path(_ARCHIVE).exists():
        write_image(host.path(_ARCHIVE))


class Containerd:
    """containerd with its own state, and ``ctr``."""

    role = "containerd"
    socket = "/run/containerd/containerd.sock"
    _configuration = f"""\
version = 2
root = "/run/containerd/root"
state = "/run/containerd/state"
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "{LISTS}"
"""

    def __init__(self, host: Host) -> None:
        self.host = host

    def start(self) -> None:
        """Start the daemon and give it the image, for ``ctr`` and for CRI."""
        path = "/run/nalab/containerd.toml"
        self.host.path(path).write_text(self._configuration)
        self.host.spawn(self.role, ["containerd", "--config", path])
        self.host.wait_until(self.role, self._answers, within_s=_READY_WITHIN_S)
        _provide_image(self.host)
        for namespace in ("default", "k8s.io"):
            self.ctr("--namespace", namespace, "image", "import", _ARCHIVE)

    def ctr(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``ctr ARGUMENTS``."""
        return self.host.run("ctr", *arguments, check=check)

    def run(self, name: str, *command: str) -> "subprocess.Popen[str]":
        """Start a container in the first network of the host's lists; it is detached and removed when it ends."""
        return self.host.popen(*self._run(name, command))

    def spawn(self, name: str, *command: str) -> None:
        """Do the same without being the container's parent."""
        self.host.spawn(f"ctr-{name}", self._run(name, command))

    def _run(self, name: str, command: Sequence[str]) -> list[str]:
        options = ["--rm", "--cni", "--null-io", "--cgroup", f"/{self.host.seat.netns}/{name}"]
        return ["ctr", "run", *options, IMAGE, name, *command]

    def execute(self, name: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in a container."""
        return self.ctr("task", "exec", "--exec-id", f"e{id(command)}", name, *command, check=check)

    def _answers(self) -> bool:
        return _listens(self.host.path(self.socket))


class Podman:
    """Podman with its network backend ``cni``."""

    _containers = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
"""
    _storage = """\
[storage]
driver = "vfs"
graphroot = "/run/podman/storage"
runroot = "/run/podman/run"
"""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._files = {
            "CONTAINERS_CONF": ("/run/nalab/containers.conf", self._containers),
            "CONTAINERS_STORAGE_CONF": ("/run/nalab/storage.conf", self._storage),
        }

    def prepare(self) -> None:
        """Write its configuration and give it the image; there is no daemon."""
        for path, text in self._files.values():
            self.host.path(path).write_text(text)
        _provide_image(self.host)
        self.podman("load", "--quiet", "--input", _ARCHIVE)

    def podman(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``podman ARGUMENTS``."""
        environment = {variable: path for variable, (path, _) in self._files.items()}
        return self.host.run("podman", *arguments, env=environment, check=check)

    def run(self, name: str, *options: str, command: tuple[str, ...] = ()) -> None:
        """Start a container in the background."""
        parent = f"/{self.host.seat.netns}"
        self.podman("run", "-d", "--name", name, "--cgroup-parent", parent, *options, IMAGE, *command)


class Docker:
    """dockerd with its own state, served by the host's agent, and ``docker``."""

    role = "dockerd"
    socket = "/run/docker.sock"
    network_options = ("-d", "netagent", "--ipam-driver", "netagent")

    def __init__(self, host: Host) -> None:
        self.host = host

    def start(self, *options: str) -> None:
        """Start the daemon, with more ``options`` if given, and wait until it answers."""
        own = ("--data-root", "/run/docker-data", "--exec-root", "/run/docker-exec", "-p", "/run/dockerd.pid")
        rest = ("-H", f"unix://{self.socket}", "--storage-driver", "vfs", "--live-restore")
        cgroups = ("--cgroup-parent", f"/{self.host.seat.netns}")
        self.host.spawn(self.role, ["dockerd", *own, *rest, *cgroups, *options])
        self.host.wait_until(self.role, self._answers, within_s=_DOCKERD_READY_WITHIN_S)

    def stop(self) -> None:
        """End the daemon as an operator does; its containers run on (live-restore)."""
        running = self.host.process(self.role)
        if running is not None:
            self.host.signal(self.role, signal.SIGTERM)
            if not process.wait(running, within_s=_STOP_WITHIN_S):
                raise Unavailable(f"dockerd of {self.host.name} runs on {_STOP_WITHIN_S:.0f} s after SIGTERM")

    def load_image(self) -> None:
        """Give it the image."""
        _provide_image(self.host)
        self.docker("load", "--quiet", "--input", _ARCHIVE)

    def docker(self, *arguments: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run ``docker ARGUMENTS``."""
        return self.host.run("docker", "-H", f"unix://{self.socket}", *arguments, check=check, timeout=timeout)

    def run(self, name: str, *options: str, command: tuple[str, ...] = ()) -> None:
        """Start a container in the background."""
        self.docker("run", "-d", "--name", name, *options, IMAGE, *command)

    def _answers(self) -> bool:
        return self.docker("info", check=False).returncode == 0


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True
