"""What hosts find out about the ways to each other, and a switch between them that loses what is too large."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from netagent.lab.command import run as run_command
from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import inside, netagent, run

SPOILED = "checksums left to a network device arrive wrong"
SWITCHED_OFF = "checksum offload is off: what was left to a network device arrived wrong"
_PORT = 8000


def problems(host: Host) -> set[str]:
    """Return what ``host`` says about the ways to all others, and about its own devices."""
    shown = [json.loads(line) for line in netagent(host, "host", "ls", "--format", "json").stdout.splitlines()]
    return {problem for entry in shown for problem in entry["Problems"]}


def path_results(host: Host, network: str = "") -> list[str]:
    """Return what its events say was found of the ways to others, of those of one network or of all."""
    lines = [line for line in netagent(host, "events").stdout.splitlines() if " host path " in line]
    return [line.split("result=")[1].rstrip(")") for line in lines if not network or f"network={network}," in line]


def ask_again(host: Host) -> None:
    """Let all hosts ask soon, as any change of networks does: else they wait up to half a minute, in order two."""
    netagent(host, "network", "create", "--driver", "route", "wake")
    netagent(host, "network", "rm", "wake")


def route_mtus(host: Host) -> dict[str, str | None]:
    """Return how large packets may be by netagent's routes to other hosts, which are the ones with a gateway."""
    shown = [
        line for v in ("-4", "-6") for line in host.run("ip", v, "route", "show", "proto", "110").stdout.splitlines()
    ]
    words = [line.split() for line in shown if " via " in line]
    return {line[0]: line[line.index("lock") + 1] if "lock" in line else None for line in words}


def serve_bytes(host: Host, name: str, count: int, *options: str) -> None:
    """Start a container that sends ``count`` bytes to whoever connects, by either family."""
    listen = f"TCP6-LISTEN:{_PORT},fork,reuseaddr,ipv6only=0"
    run(host, name, *options, listens=_PORT, command=("socat", listen, f"SYSTEM:head -c {count} /dev/zero"))


def receives(host: Host, name: str, target: str, count: int) -> bool:
    """Tell whether a container gets ``count`` bytes from the server at ``target``."""
    family, at = (6, f"[{target}]") if ":" in target else (4, target)
    got = inside(host, name, "timeout", "10", "socat", "-u", f"TCP{family}:{at}:{_PORT}", "SYSTEM:wc -c >&2")
    return str(count) in got.stderr.split()


@contextmanager
def losing(lab: Lab, *which: str) -> Iterator[None]:
    """Let the switch between a lab's hosts lose, without a word, the frames that match one of ``which`` (nft)."""
    switch = ("nsenter", f"--net=/run/netns/{lab.layout.switch}", "nft")
    chain = "add chain bridge lossy forward { type filter hook forward priority 0; }"
    rules = [f"add rule bridge lossy forward {match} drop" for match in which]
    run_command([*switch, "; ".join(["add table bridge lossy", chain, *rules])])
    try:
        yield
    finally:
        run_command([*switch, "delete table bridge lossy"])
