"""What the end-to-end tests do on lab hosts: run netagent's own command and look at the result."""

import difflib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from netagent.lab.host import Host
from tests.support.lab import eventually


def netagent(host: Host, *arguments: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run ``netagent ARGUMENTS`` on a host; with ``check``, a failure shows what was said."""
    result = host.run("netagent", *arguments, check=False, timeout=timeout)
    if check:
        assert result.returncode == 0, f"netagent {' '.join(arguments)}: {result.stderr}"
    return result


def refusal(host: Host, *arguments: str, status: int = 1, output: str = "") -> str:
    """Run ``netagent ARGUMENTS``, expect exit ``status``, one line of error and nothing else; return the line.

    ``output`` is what stands on standard output all the same: an ``inspect`` of nothing prints an empty list.
    """
    result = netagent(host, *arguments, check=False)
    assert result.returncode == status, (result.returncode, result.stdout, result.stderr)
    assert result.stdout == output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("netagent: ")
    return lines[0].removeprefix("netagent: ")


PATIENCE = ("--connect-timeout", "3", "--max-time", "30")
"""Options of curl: who accepts may take long to answer, while what is not let through ends after three seconds."""

_ECHO = ("socat", "-t", "30")
"""A server whose program may take as long to answer after the client has said all; half a second is the default."""


def run(
    host: Host, name: str, *options: str, command: tuple[str, ...] = ("sleep", "infinity"), listens: int = 0
) -> None:
    """Start a container in the background; with ``listens`` it is a server, and is waited for to listen there (TCP)."""
    started = netagent(host, "run", "-d", "--name", name, *options, "--", *command)
    if listens:
        await_listener(host, started.stdout.strip(), listens)


def await_listener(host: Host, container_id: str, port: int) -> None:
    """Wait until something in a container of netagent's listens at a TCP port."""
    sockets = (f"--net=/run/netagent/netns/{container_id}", "ss", "-Hlnt", f"sport = :{port}")
    eventually(lambda: host.run("nsenter", *sockets).stdout)


def serve_name(host: Host, name: str, *options: str, port: int = 80) -> None:
    """Start a container whose ``port`` answers, by both families, with its hostname, which is its name."""
    command = ("busybox", "httpd", "-f", "-p", str(port), "-h", "/etc")
    run(host, name, "--hostname", name, *options, command=command, listens=port)


def serve_client_address(host: Host, name: str, *options: str) -> None:
    """Start a container whose port 80 tells each client the address it came from."""
    command = (*_ECHO, "TCP4-LISTEN:80,fork,reuseaddr", "SYSTEM:echo $SOCAT_PEERADDR")
    run(host, name, *options, command=command, listens=80)


@contextmanager
def telling_client_addresses(host: Host, port: int, family: int = 4) -> Iterator[None]:
    """Let a process of the host itself tell each client on ``port`` the address it came from."""
    server = host.popen(*_ECHO, f"TCP{family}-LISTEN:{port},fork,reuseaddr", "SYSTEM:echo $SOCAT_PEERADDR")
    try:
        eventually(lambda: f":{port} " in host.run("ss", "-Hlnt").stdout)
        yield
    finally:
        server.kill()
        server.wait()


def client_address_at(address: str, port: int) -> tuple[str, ...]:
    """Return the command that asks such a server, of a container or of a host."""
    return ("socat", "-t", "30", "-", f"TCP4:{address}:{port}")


def address(host: Host, name: str, version: int = 4) -> str:
    """Return a container's address in its first network."""
    settings = inspect(host, name)["NetworkSettings"]
    found: str = settings["IPAddress" if version == 4 else "GlobalIPv6Address"]
    assert found, settings
    return found


def inspect(host: Host, name: str) -> dict[str, Any]:
    """Return what ``netagent inspect`` says."""
    (found,) = json.loads(netagent(host, "inspect", name).stdout)
    assert isinstance(found, dict)
    return found


def inside(host: Host, name: str, *command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a command in a container."""
    return netagent(host, "exec", name, "--", *command, check=check)


def pings(host: Host, name: str, target: str, *, count: int = 1, options: tuple[str, ...] = ()) -> bool:
    """Tell whether a container gets all answers to ``count`` pings; of several, the last may take long."""
    patience = "2" if count == 1 else "10"
    result = inside(host, name, "ping", "-n", "-c", str(count), "-i", "0.2", "-W", patience, *options, target)
    return result.returncode == 0 and f" {count} received" in result.stdout


@contextmanager
def pinging(host: Host, name: str, target: str) -> Iterator[set[int]]:
    """Let a container ping meanwhile; fill the set, at the end, with the numbers of the pings that were answered.

    The first was answered before it begins, and one was sent after all and answered.
    """
    answered: set[int] = set()
    command = ("netagent", "exec", name, "--", "ping", "-n", "-i", "0.02", "-w", "600", target)
    with tempfile.NamedTemporaryFile() as output:

        def read() -> set[int]:
            # Opened anew: who writes has the same position as what he has inherited.
            said = Path(output.name).read_text()
            return {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", said)}

        process = host.popen(*command, stdout=output, stderr=subprocess.STDOUT)
        try:
            eventually(read)
            yield answered
            seen = max(read())
            eventually(lambda: max(read()) > seen + 1)
        finally:
            inside(host, name, "pkill", "-INT", "-f", f"ping.*{target}")
            try:
                process.wait(timeout=30)
            finally:
                process.kill()
        answered.update(read())


def lost(answered: set[int]) -> set[int]:
    """Return what was not answered before the last answer: a ping on its way at the end does not count."""
    return set(range(1, max(answered))) - answered


def fetches(host: Host, url: str, expected: str) -> bool:
    """Tell whether the host itself gets ``expected`` from ``url``."""
    return host.run("curl", "-s", *PATIENCE, url, check=False).stdout.strip() == expected


def fetches_inside(host: Host, name: str, url: str, expected: str) -> bool:
    """Tell whether a container gets ``expected`` from ``url``."""
    return inside(host, name, "curl", "-s", *PATIENCE, url).stdout.strip() == expected


def dump(host: Host) -> dict[str, str]:
    """Return everything of a host that an attach or detach could leave traces in, comparable as text.

    What happened before may still be on its way, so it is looked until two looks agree, and no link is left that waits
    in a group for its deletion.
    """
    looks = [_look(host)]

    def has_settled() -> bool:
        looks.append(_look(host))
        links = looks[-1]["links"]
        return looks[-1] == looks[-2] and links.count("'group': 'default'") == len(links.splitlines())

    eventually(has_settled, within=30)
    return looks[-1]


_QUEUES = re.compile(r"^(\S+\s+\S+\s+)\d+\s+\d+")
"""Of ss(8): protocol and state, and behind them how much waits in the socket's queues."""


def _flows(host: Host) -> Iterator[str]:
    """Yield what Open vSwitch, where it runs, has in bridges of ours."""
    if host.path("/run/openvswitch/db.sock").exists():
        for bridge in host.run("ovs-vsctl", "list-br").stdout.split():
            if bridge.startswith("nao"):
                command = ("ovs-ofctl", "--protocols=OpenFlow13", "--no-stats", "--no-names", "dump-flows", bridge)
                yield from (f"{bridge} {line}" for line in _lines(host, *command))


def _look(host: Host) -> dict[str, str]:
    links = json.loads(host.run("ip", "-d", "-j", "link").stdout)
    # Not operstate: a bridge whose last port has gone is seen to be down up to a second later (net/core/link_watch.c).
    kept = ("ifname", "mtu", "link_type", "address", "master", "ifalias", "group")
    return {
        "links": "\n".join(
            sorted(str({"up": "UP" in link["flags"]} | {key: link.get(key) for key in kept}) for link in links)
        ),
        "addresses": "\n".join(sorted(line.partition(": ")[2] for line in _lines(host, "ip", "-o", "-4", "address"))),
        # Without what the link watch adds as late.
        "routes": host.run("ip", "route", "show", "table", "main").stdout.replace(" linkdown", ""),
        "neighbours": "\n".join(_lines(host, "ip", "neigh", "show", "nud", "permanent")),
        # Without the multicast groups that the kernel joins by itself, or not yet, and what bridges learn and forget.
        "fdb": "\n".join(
            line
            for line in _lines(host, "bridge", "fdb", "show")
            if "permanent" in line and not line.startswith(("33:33", "01:00"))
        ),
        "flows": "\n".join(sorted(_flows(host))),
        "ruleset": ruleset(host),
        "sandboxes": host.run("sh", "-c", "ls /run/netagent/netns 2>/dev/null || true").stdout,
        "containers": host.run("sh", "-c", "ls /run/netagent/containers /run/netagent/runc 2>/dev/null || true").stdout,
        "mounts": "\n".join(sorted(line.split()[4] for line in _lines(host, "cat", "/proc/self/mountinfo"))),
        "journal": host.run(sys.executable, "-c", _JOURNAL_DUMP).stdout,
        "queues": "\n".join(
            line.partition(" refcnt")[0] for line in _lines(host, "tc", "qdisc", "show") if "noqueue" not in line
        ),
        "listening": "\n".join(sorted(_QUEUES.sub(r"\1", line) for line in _lines(host, "ss", "-Hlntu"))),
    }


def ruleset(host: Host) -> str:
    """Return all nftables tables of a host without what they count, which begins with each repair and each packet."""
    text = host.run("nft", "--stateless", "list", "ruleset").stdout
    return re.sub(r"\n\t*elements = \{[^}]* counter\b[^}]*\}", "", text)


def _lines(host: Host, *command: str) -> list[str]:
    return sorted(host.run(*command).stdout.splitlines())


def same(host: Host, before: dict[str, str], *, within: float = 20) -> bool:
    """Assert that a host is as ``before`` showed it, or is soon; the failure shows the lines that differ.

    An agent may stand still for a second in the middle of what it does after its answer. With ``within=0`` the host
    must be so as soon as it has settled.
    """
    return eventually(lambda: _same(host, before), within=within)


def _same(host: Host, before: dict[str, str]) -> bool:
    after = dump(host)
    differences = [
        f"{name}: {line}"
        for name in before
        for line in difflib.unified_diff(before[name].splitlines(), after[name].splitlines(), lineterm="", n=0)
    ]
    assert not differences, "\n".join(differences)
    return True


_JOURNAL_DUMP = """
import sqlite3
database = sqlite3.connect("file:/var/lib/netagent/journal.db?mode=ro", uri=True)
for table in ("endpoints", "containers", "docker_networks", "docker_pools"):
    for row in database.execute(f"SELECT * FROM {table} ORDER BY id"):
        print(table, row)
"""
