"""Other people's firewalls on a host of the lab: the real dockerd, firewalld and ufw, in its namespaces only.

Each context manager starts one with the settings that its package has, and leaves nothing of it behind.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import DEVNULL, Popen

from netagent.lab.host import Host
from tests.support.lab import eventually

DOCKER_SOCKET = "unix:///run/docker.sock"
BUS = {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/run/dbus/system_bus_socket"}


@contextmanager
def dockerd(host: Host) -> Iterator[None]:
    """Docker's daemon, without containers, as if it had been started first and so had switched forwarding on.

    It sets FORWARD to DROP then; here an agent is there before, which has forwarding switched on all the time.
    """
    options = ("--data-root", "/run/docker-data", "--exec-root", "/run/docker-exec", "-p", "/run/dockerd.pid")
    daemon = host.popen(
        "dockerd", *options, "-H", DOCKER_SOCKET, "--storage-driver", "vfs", stdout=DEVNULL, stderr=DEVNULL
    )
    try:
        eventually(lambda: docker(host, "info"), within=90)
        host.run("iptables-nft", "-P", "FORWARD", "DROP")
        yield
    finally:
        _end(daemon)
        host.run(
            "sh", "-c", "ip link del docker0; iptables-nft -P FORWARD ACCEPT; nft delete table ip filter", check=False
        )
        host.run("nft", "delete", "table", "ip", "nat", check=False)


def docker(host: Host, *arguments: str) -> bool:
    """Tell whether ``docker ARGUMENTS`` succeeds."""
    return host.run("docker", "-H", DOCKER_SOCKET, *arguments, check=False).returncode == 0


@contextmanager
def private_directory(host: Host, path: str) -> Iterator[None]:
    """Let the host have a copy of its own of a directory or file of the machine."""
    copy = f"/run/private{path}"
    host.run("sh", "-ec", f"mkdir -p $(dirname {copy}); cp -a {path} {copy}; mount --bind {copy} {path}")
    try:
        yield
    finally:
        host.run("umount", path)


@contextmanager
def firewalld(host: Host) -> Iterator[None]:
    """firewalld with its default zone, and a system bus of the host's own."""
    with private_directory(host, "/etc/firewalld"):
        host.run("mkdir", "-p", "/run/dbus")
        bus = host.popen("dbus-daemon", "--system", "--nofork", "--nopidfile", stdout=DEVNULL, stderr=DEVNULL)
        try:
            eventually(lambda: host.path("/run/dbus/system_bus_socket").exists())
            daemon = host.popen("firewalld", "--nofork", "--nopid", stdout=DEVNULL, stderr=DEVNULL, env=BUS)
            try:
                eventually(lambda: host.run("firewall-cmd", "--state", check=False, env=BUS).returncode == 0, within=90)
                yield
            finally:
                _end(daemon)
        finally:
            _end(bus)
            host.run("nft", "delete", "table", "inet", "firewalld", check=False)


@contextmanager
def ufw(host: Host) -> Iterator[None]:
    """ufw, enabled as installed: incoming denied, nothing routed."""
    with private_directory(host, "/etc/ufw"), private_directory(host, "/etc/default/ufw"):
        host.run("ufw", "--force", "enable")
        try:
            yield
        finally:
            host.run("ufw", "--force", "disable")
            host.run("sh", "-c", "nft delete table ip filter; nft delete table ip6 filter", check=False)


def _end(process: "Popen[str]") -> None:
    process.terminate()
    process.wait(timeout=60)
