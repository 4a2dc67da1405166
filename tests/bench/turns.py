"""Sides that take turns: each with a machine of its own, and a worker in it that does what it is told.

A side that cannot begin, or fails, leaves a line in the report and takes no part any more.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from netagent.lab import cgroup
from tests.bench import engines
from tests.bench.report import median, missing, say
from tests.support.lone_host import ROOT, LoneHost

OWN = "netagent"
ENDS_WITHIN_S = 20
"""After that a worker is killed, and what it has started with it."""


BURST_MS = 15000
"""How long calls that begin at once may take about; there are fewer of them where one takes long."""


class SideFailed(Exception):
    """A side has failed, and takes no part any more."""


class Turns:
    """The sides that take part, in their order."""

    def __init__(self) -> None:
        self._workers: dict[str, subprocess.Popen[str]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._workers))

    def join(self, side: str, host: LoneHost) -> None:
        """Let a side take part, its machine being ``host``."""
        log = host.log.with_suffix(".worker").open("wb")
        command = [*host.prefix, "env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.bench.worker", side]
        with log:
            self._workers[side] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.do(side, "start")

    def do(self, side: str, verb: str, first: int = 0, count: int = 0, **more: Any) -> dict[str, Any]:
        """Tell a side to do something; if that fails it is out, and what it returns is empty."""
        if (worker := self._workers.get(side)) is None:
            return {}
        assert worker.stdin is not None
        assert worker.stdout is not None
        order = {"do": verb, "numbers": [first, first + count], **more}
        try:
            worker.stdin.write(json.dumps(order) + "\n")
            worker.stdin.flush()
            answer: dict[str, Any] = json.loads(worker.stdout.readline() or '{"error": "its process ended"}')
        except (BrokenPipeError, ValueError) as error:
            answer = {"error": str(error)}
        if (why := answer.get("error")) is not None:
            missing(f"{side}: {verb}: {' '.join(str(why).split())[:300]}")
            self._leave(side)
            if side == OWN:
                raise SideFailed(f"{side}: {verb}: {why}")
            return {}
        return answer

    def close(self) -> None:
        """End all workers, and with them what they have started."""
        for side in tuple(self._workers):
            self._leave(side)

    def _leave(self, side: str) -> None:
        worker = self._workers.pop(side)
        with suppress(BrokenPipeError):
            try:
                worker.communicate(timeout=ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.communicate()
        cgroup.remove(cgroup.of_machine(engines.cgroup_of(worker.pid)))


def burst_of(wished: int, *samples: Sequence[float]) -> int:
    """Return how many calls may begin at once on a side whose calls, one by one, took ``samples`` ms a verb."""
    longest = max((median(each) for each in samples if each), default=1.0)
    return max(2, min(wished, int(BURST_MS / longest)))


@contextmanager
def turns(sides: Sequence[str]) -> Iterator[Turns]:
    """Give each of ``sides`` a machine, netagent's with an agent whose state is on a disk, as the others' is."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        hosts = {}
        for number, side in enumerate(sides):
            (disk := directory / f"disk{number}").mkdir()
            hosts[side] = stack.enter_context(LoneHost(directory / f"agent{number}.log", disk=disk))
        taking_part = Turns()
        stack.callback(taking_part.close)
        for side, host in hosts.items():
            say(f"{side} makes itself ready")
            if side == OWN:
                host.start_agent()
            taking_part.join(side, host)
        yield taking_part
