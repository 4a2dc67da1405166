"""Endpoints that are there while others are measured.

netagent and its like attach them, some at a time. The rules of the reference chain, whose calls take longer and longer,
are loaded at once: one container is attached by the plugins, and what that has added to iptables is written again for
each of the others, with names, addresses and ports of its own.
"""

import re
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_interface

from tests.bench.sides import FIRST_PORT, NETWORKS, Reference, Side, ip_batch, sandbox

AT_ONCE = 8
_TABLES = ("nat", "filter")
_PATTERN = NETWORKS * 4
"""The plugins themselves attach so many; the last of each network is what is written again."""


def fill(side: Side, numbers: Sequence[int]) -> None:
    """Attach ``numbers`` with a port of their own each."""
    side.make(numbers, ())
    if isinstance(side, Reference) and len(numbers) > _PATTERN:
        _copy(side, numbers)
        return
    # portmap fails where two of its first calls make its chains at once.
    for number in numbers[:1]:
        side.attach(number, ())
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda number: side.attach(number, ()), numbers[1:]))


def _copy(side: Reference, numbers: Sequence[int]) -> None:
    begun, rest = numbers[:_PATTERN], numbers[_PATTERN:]
    patterns = {}
    for number in begun:
        before = _saved()
        address = ip_interface(side.attach(number, ()))
        added = {table: [line for line in lines if line not in set(before[table])] for table, lines in _saved().items()}
        patterns[number % NETWORKS] = (number, address, added)
    lines: dict[str, list[str]] = {table: [] for table in _TABLES}
    links: list[str] = []
    for number in rest:
        model, address, added = patterns[number % NETWORKS]
        own = address.ip + (number - model) // NETWORKS + 1000
        for table in _TABLES:
            lines[table] += _again(added[table], number, model, str(address.ip), str(own))
        links.append(
            f"link add veth{number:06} master ref{number % NETWORKS} up type veth peer name eth0 netns s{number}"
        )
    text = "".join(f"*{table}\n" + "\n".join(each) + "\nCOMMIT\n" for table, each in lines.items())
    subprocess.run(["iptables-restore", "--noflush"], input=text, text=True, check=True)
    ip_batch(links)


def _saved() -> dict[str, list[str]]:
    """Return the chains and rules of each table."""
    return {
        table: [
            re.sub(r" \[\d+:\d+\]", " [0:0]", line)
            for line in subprocess.run(
                ["iptables-save", "-t", table], capture_output=True, text=True, check=True
            ).stdout.splitlines()
            if line.startswith((":", "-"))
        ]
        for table in _TABLES
    }


def _again(lines: Iterable[str], number: int, model: int, address: str, own: str) -> Iterable[str]:
    """Return what one container has added, for another one."""
    for line in lines:
        changed = re.sub(rf"\b{re.escape(address)}\b", own, line)
        changed = re.sub(rf"\b{FIRST_PORT + model}\b", str(FIRST_PORT + number), changed)
        changed = re.sub(rf"\b{sandbox(model)}\b", sandbox(number), changed)
        # Chains are named after a hash of the network and the container.
        yield re.sub(r"\bCNI-(DN-)?[0-9a-f]{5}(?=[0-9a-f])", lambda chain: f"CNI-{chain[1] or ''}{number:05x}", changed)
