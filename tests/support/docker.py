"""dockerd on hosts of a lab, each in its host's namespaces and served by its agent; an image without a registry.

``docker`` is always the real command. Containers that run when a lab goes down are ended with it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import CompletedProcess
from typing import Any

from netagent.lab import process, runtimes
from netagent.lab.host import Host
from tests.support.hosts import PATIENCE
from tests.support.lab import eventually

IMAGE = "host"
"""An image with nothing in it but the way to the programs of the machine, which ``USR`` brings in."""
USR = ("-v", "/usr:/usr:ro", "-e", "PATH=/usr/bin:/usr/sbin")

_MAKE_IMAGE = """
mkdir -p /run/image/etc /run/image/usr /run/image/tmp /run/image/proc /run/image/dev /run/image/sys
for directory in bin sbin lib lib64; do ln -sfn usr/$directory /run/image/$directory; done
echo "hosts: files dns" > /run/image/etc/nsswitch.conf
tar -C /run/image -c . | docker -H unix:///run/docker.sock import - "$1"
"""


class Docker(runtimes.Docker):
    """The dockerd of one host."""

    def make_image(self) -> None:
        """Give the daemon its image."""
        self.host.run("sh", "-ec", _MAKE_IMAGE, "sh", IMAGE)

    def kill(self) -> None:
        """End the daemon as a crash does."""
        running = self.host.process(self.role)
        if running is not None:
            process.end([running], within_s=0)

    def __call__(self, *arguments: str, check: bool = True, timeout: float = 120) -> CompletedProcess[str]:
        """Run ``docker ARGUMENTS``; with ``check``, a failure shows what was said."""
        done = self.docker(*arguments, check=False, timeout=timeout)
        if check:
            assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done

    def out(self, *arguments: str) -> str:
        """Return what ``docker ARGUMENTS`` prints."""
        return self(*arguments).stdout.strip()

    def refusal(self, *arguments: str) -> str:
        """Expect ``docker ARGUMENTS`` to fail, and return what it says."""
        done = self(*arguments, check=False)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def create_network(self, name: str, *options: str) -> str:
        """Make a network of the driver netagent and return Docker's id of it."""
        return self.out("network", "create", *self.network_options, *options, name)

    def run_through(self, *options: str, command: tuple[str, ...] = ("true",)) -> str:
        """Run a container to its end and return what it printed."""
        return self.out("run", "--rm", *USR, *options, IMAGE, *command)

    def run(self, name: str, *options: str, command: tuple[str, ...] = ("sleep", "1000")) -> None:
        """Start a container in the background."""
        self("run", "-d", "--name", name, *USR, *options, IMAGE, *command)

    def serve_name(self, name: str, *options: str) -> None:
        """Start a container whose port 80 answers with its hostname, which is its name; returns once it listens."""
        command = ("busybox", "httpd", "-f", "-p", "80", "-h", "/etc")
        self.run(name, "--hostname", name, *options, command=command)
        self.wait_for_server(name)

    def wait_for_server(self, name: str) -> None:
        """Wait until something listens at port 80 of a container."""
        sandbox = self.inspect(name)["NetworkSettings"]["SandboxKey"]
        listening = ("nsenter", f"--net={sandbox}", "ss", "-Hlnt", "sport = :80")
        eventually(lambda: self.host.run(*listening).stdout)

    def inside(self, name: str, *command: str) -> CompletedProcess[str]:
        """Run a command in a container."""
        return self("exec", name, *command, check=False)

    def pings(self, name: str, target: str) -> bool:
        """Tell whether a container gets an answer to a ping."""
        return self.inside(name, "ping", "-n", "-c", "1", "-W", "2", target).returncode == 0

    def fetches(self, name: str, url: str, expected: str) -> bool:
        """Tell whether a container gets ``expected`` from ``url``."""
        return self.inside(name, "curl", "-s", *PATIENCE, url).stdout.strip() == expected

    def inspect(self, name: str) -> dict[str, Any]:
        """Return what ``docker inspect`` says."""
        (found,) = json.loads(self.out("inspect", name))
        assert isinstance(found, dict)
        return found

    def address(self, name: str, network: str, version: int = 4) -> str:
        """Return a container's address in a network."""
        settings = self.inspect(name)["NetworkSettings"]["Networks"][network]
        found: str = settings["IPAddress" if version == 4 else "GlobalIPv6Address"]
        assert found, settings
        return found

    def remove_all(self) -> None:
        """Remove all containers, and networks of the driver netagent."""
        if containers := self.out("ps", "-aq").split():
            self("rm", "-f", *containers)
        if networks := self.out("network", "ls", "-q", "--filter", "driver=netagent").split():
            self("network", "rm", *networks)

    def close(self) -> None:
        """Remove all containers and end the daemon, also one that is in trouble."""
        if containers := self("ps", "-aq", check=False).stdout.split():
            self("rm", "-f", *containers, check=False)
        self.stop()


@contextmanager
def dockers(*hosts: Host) -> Iterator[tuple[Docker, ...]]:
    """Start a daemon with an image on each of ``hosts``; their agents must serve Docker."""
    daemons = tuple(Docker(host) for host in hosts)
    try:
        for daemon in daemons:
            daemon.start()
            daemon.make_image()
        yield daemons
    finally:
        for daemon in daemons:
            daemon.close()
