"""Faults of a lab, each with its healing: what a seeded adversary does to hosts and etcd while others work."""

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.history import History

CUT_OFF = "table inet nemesis { chain in { type filter hook input priority -300; ip saddr 198.18.0.0/15 drop; }; }"
"""A host that hears nobody: what it sends is answered into the void."""

RESET = (
    "table inet nemesis { chain out { type filter hook output priority -300; tcp dport 2379 reject with tcp reset; }; }"
)


@contextmanager
def rules_of_nemesis(host: Host, rules: str) -> Iterator[None]:
    """Hold up a table of rules on a host."""
    host.run("nft", rules)
    try:
        yield
    finally:
        host.run("nft", "delete", "table", "inet", "nemesis")


@contextmanager
def paused_agent(host: Host) -> Iterator[None]:
    """Stop the agent where it stands, as a machine that swaps or a debugger does."""
    host.signal("agent", signal.SIGSTOP)
    try:
        yield
    finally:
        host.signal("agent", signal.SIGCONT)


def compact(lab: Lab) -> None:
    """Let etcd forget all history up to now."""
    etcd = lab.etcd[0]
    listed = etcd.run("etcdctl", "--endpoints", etcd.url, "get", "/netagent/v1/generation", "-w", "fields").stdout
    revision = next(line.split()[-1] for line in listed.splitlines() if line.startswith('"Revision"'))
    etcd.run("etcdctl", "--endpoints", etcd.url, "compact", revision, check=False)


@dataclass(slots=True, kw_only=True)
class Nemesis:
    """Does ``lab`` harm, in an order that ``rng`` alone decides; ``diary`` says what was done when."""

    lab: Lab
    history: History
    rng: random.Random
    diary: list[str] = field(default_factory=list)
    busy: set[str] = field(default_factory=set)

    def rage(self) -> None:
        """Do everything once on some host, the agents' faults twice, with a pause beyond the lease beside it."""
        sleeper, cut = self.rng.sample(self.lab.hosts[1:], 2)
        self.busy = {sleeper.name}
        faults: list[Callable[[], None]] = [
            *(self._kill_agent,) * 2,
            *(self._cut_off,) * 2,
            self._reset_connections,
            self._pause_briefly,
            self._kill_etcd,
            self._freeze_etcd,
            self._storm_of_compactions,
            lambda: self._cut_power(cut),
        ]
        self.rng.shuffle(faults)
        asleep = threading.Thread(target=self._pause_beyond_lease, args=(sleeper,))
        asleep.start()
        try:
            for fault in faults:
                time.sleep(self.rng.uniform(0.2, 1.0))
                fault()
        finally:
            asleep.join()

    def _note(self, what: str) -> None:
        self.diary.append(f"{time.monotonic():.3f} {what}")

    def _victim(self) -> Host:
        return self.rng.choice([host for host in self.lab.hosts if host.name not in self.busy])

    def _pause_beyond_lease(self, host: Host) -> None:
        self._note(f"{host.name}: agent stopped for longer than its lease")
        with paused_agent(host):
            time.sleep(17)
        self._note(f"{host.name}: agent goes on")
        self.busy.discard(host.name)

    def _kill_agent(self) -> None:
        host = self._victim()
        self._note(f"{host.name}: agent killed")
        host.agent.kill()
        time.sleep(self.rng.uniform(0, 1))
        host.agent.start()
        self._note(f"{host.name}: agent started")

    def _cut_off(self) -> None:
        host = self._victim()
        self._note(f"{host.name}: cut off")
        with rules_of_nemesis(host, CUT_OFF):
            time.sleep(self.rng.uniform(1, 4))
            compact(self.lab)
        self._note(f"{host.name}: connected")

    def _reset_connections(self) -> None:
        host = self._victim()
        self._note(f"{host.name}: connections to etcd are reset")
        with rules_of_nemesis(host, RESET):
            time.sleep(self.rng.uniform(0.2, 1))

    def _pause_briefly(self) -> None:
        host = self._victim()
        self._note(f"{host.name}: agent stopped for a moment")
        with paused_agent(host):
            time.sleep(self.rng.uniform(0.5, 2))

    def _kill_etcd(self) -> None:
        self._note("etcd killed")
        self.lab.etcd[0].kill()
        time.sleep(self.rng.uniform(0.5, 2))
        self.lab.etcd[0].start()
        self._note("etcd started")

    def _freeze_etcd(self) -> None:
        self._note("etcd frozen")
        self.lab.etcd[0].pause()
        time.sleep(self.rng.uniform(1, 3))
        self.lab.etcd[0].resume()

    def _storm_of_compactions(self) -> None:
        self._note("compactions")
        for _ in range(8):
            compact(self.lab)

    def _cut_power(self, host: Host) -> None:
        self._note(f"{host.name}: power cut")
        self.history.cut_power(host.name)
        host.power_off()
        # What came there in the meantime is gone as well.
        self.history.cut_power(host.name)
        time.sleep(self.rng.uniform(0, 1))
        host.power_on()
        host.agent.start()
        self._note(f"{host.name}: up again")
