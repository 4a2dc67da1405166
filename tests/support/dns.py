"""DNS as containers of a lab see it: raw questions to their nameserver, and a nameserver beyond the lab's."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scapy.layers.dns import DNS, DNSQR

from netagent.lab.host import Host
from tests.support.hosts import inside, inspect
from tests.support.lab import eventually

LOG = "/run/nameserver.log"
_SERVER = Path(__file__).with_name("nameserver.py")
_ASK = """
import socket, sys
server, query, kind = sys.argv[1], bytes.fromhex(sys.argv[2]), sys.argv[3]
family = socket.AF_INET6 if ":" in server else socket.AF_INET
with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as asking:
    asking.settimeout(float(sys.argv[4]))
    asking.connect((server, 53))
    asking.send(len(query).to_bytes(2, "big") + query if kind == "tcp" else query)
    if kind == "tcp":
        stream = asking.makefile("rb")
        print(stream.read(int.from_bytes(stream.read(2), "big")).hex())
    else:
        print(asking.recv(65535).hex())
"""


def resolve(host: Host, container: str, name: str) -> list[str]:
    """Return the IPv4 addresses that the C library of a container finds for ``name``."""
    found = inside(host, container, "getent", "ahostsv4", name).stdout
    return sorted({line.split()[0] for line in found.splitlines()})


def ask(
    host: Host, container: str, server: str, name: str, kind: str = "A", *, how: str = "udp", within: float = 20
) -> DNS | None:
    """Return what a nameserver answers to a container, or to the host itself if that has no name, over UDP or TCP.

    None if nothing within that many seconds.
    """
    query = bytes(DNS(id=99, rd=1, qd=DNSQR(qname=name, qtype=kind)))
    enter = ("nsenter", f"--net={inspect(host, container)['NetworkSettings']['SandboxKey']}") if container else ()
    command = (*enter, sys.executable, "-Ic", _ASK, server, query.hex(), how, str(within))
    said = host.run(*command, check=False).stdout.strip()
    return DNS(bytes.fromhex(said)) if said else None


def data(reply: DNS | None) -> list[str]:
    """Return what a reply's records hold."""
    assert reply is not None
    records = [reply.an[index] for index in range(reply.ancount)]
    return [str(each.target if each.type == 33 else each.rdata) for each in records]


@contextmanager
def resolver_of(host: Host, text: str) -> Iterator[None]:
    """Let the host's ``/etc/resolv.conf`` be ``text`` for a while."""
    write = f"file=$(mktemp -p /run); chmod 644 $file; printf '{text}' > $file; mount --bind $file /etc/resolv.conf"
    host.run("sh", "-c", write)
    try:
        yield
    finally:
        host.run("umount", "/etc/resolv.conf")


@contextmanager
def nameserver(host: Host, address: str, *, sandbox: str = "") -> Iterator[None]:
    """Run a nameserver on a host at ``address``, which is added to its loopback interface, or in a ``sandbox``."""
    inside = ("nsenter", f"--net={sandbox}") if sandbox else ()
    if not sandbox:
        host.run("ip", "address", "add", f"{address}/32", "dev", "lo")
    server = host.popen(*inside, sys.executable, str(_SERVER), address, LOG, stdout=-1)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield
    finally:
        server.kill()
        server.communicate()
        if not sandbox:
            host.run("ip", "address", "delete", f"{address}/32", "dev", "lo")


def asked(host: Host) -> list[str]:
    """Return what the nameserver was asked, as ``udp 1 name`` with the number of the type."""
    return host.run("cat", LOG).stdout.splitlines()


def forwards_now(host: Host, container: str) -> bool:
    """Tell whether names outside are resolved: the DNS process looks for changes of resolv.conf once a second."""
    return eventually(lambda: resolve(host, container, "outside.example") == ["192.0.2.80"])
