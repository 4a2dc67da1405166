"""``python -m tests.bench.worker SIDE``: does the work of one side inside its machine, as it is told line by line.

Orders are JSON on standard input, ``{"do": VERB, ...}``; each is answered by a line of JSON on standard output, with
the times in ms or with ``error``. The times are taken here, so that the way of an order takes no part.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from tests.bench import engines, filling, sides
from tests.bench.sides import Side

SIDES: dict[str, Callable[[], Side]] = {
    "netagent": sides.Own,
    "bridge + portmap + firewall": sides.Reference,
    "bridge alone": sides.BareBridge,
    "netavark": sides.Netavark,
    "ip -batch + nft by hand": sides.ByHand,
    "docker network connect": engines.Docker,
    "docker, no userland-proxy": lambda: engines.Docker("--userland-proxy=false"),
    "podman network connect": engines.Podman,
}
PAUSE_S = 0.05
"""Before a timed call, for what the kernel and daemons do after they have answered."""


class Worker:
    """Carries orders out."""

    def __init__(self, side: Side) -> None:
        self._side = side

    def do(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry one order out."""
        verb, numbers = order["do"], range(*order.get("numbers", (0, 0)))
        ports = range(*order.get("ports", (0, 0)))
        if verb == "start":
            self._side.start()
        elif verb == "make":
            self._side.make(numbers, ports)
        elif verb == "remove":
            self._side.remove(numbers)
        elif verb == "fill":
            filling.fill(self._side, numbers)
        elif verb in ("attach", "detach"):
            return {"ms": [self._timed(verb, number, ports) for number in numbers]}
        elif verb in ("attach at once", "detach at once"):
            return self._at_once(verb.partition(" ")[0], numbers)
        return {}

    def _timed(self, verb: str, number: int, ports: Sequence[int]) -> float:
        time.sleep(PAUSE_S)
        begun = time.perf_counter()
        getattr(self._side, verb)(number, ports)
        return (time.perf_counter() - begun) * 1000

    def _at_once(self, verb: str, numbers: Sequence[int]) -> dict[str, Any]:
        """Begin all calls at once; two that give one address are an error."""
        action, addresses = getattr(self._side, verb), []

        def one(number: int) -> float:
            begun = time.perf_counter()
            addresses.append(action(number, ()))
            return (time.perf_counter() - begun) * 1000

        begun = time.perf_counter()
        with ThreadPoolExecutor(len(numbers)) as pool:
            times = list(pool.map(one, numbers))
        took = time.perf_counter() - begun
        told = [address for address in addresses if address]
        if len(set(told)) < len(told):
            raise RuntimeError("an address was given twice")
        return {"ms": times, "a second": len(numbers) / took}


def main() -> None:
    """Serve until there are no more orders."""
    side = SIDES[sys.argv[1]]()
    worker = Worker(side)
    try:
        for line in sys.stdin:
            try:
                answer = worker.do(json.loads(line))
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)
    finally:
        with suppress(AttributeError):
            side.close()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
