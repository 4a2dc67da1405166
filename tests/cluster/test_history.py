"""Containers come and go on three hosts while agents, etcd, paths and power fail; no address is ever given twice.

Two runtimes a host add and delete containers through the CNI plugin, with dynamic addresses out of blocks of eight and
with fixed ones that all hosts want. What they were answered is written down (``tests/support/history.py``) while a
seeded adversary works (``tests/support/nemesis.py``). Afterwards everything must be as the answers say: in the
kernel, in the journals, in the store, and on the wire.
"""

import ipaddress
import json
import os
import random
import subprocess
import threading
from collections import Counter

import pytest

from netagent.errors import NetagentError
from netagent.lab.host import Host
from netagent.lab.lab import Lab
from netagent.store import keys
from netagent.store.endpoint_records import decode_endpoint
from netagent.store.records import decode_block, decode_fixed
from tests.support.history import History, Span, overlaps
from tests.support.hosts import dump, netagent, same
from tests.support.lab import MakeLab, eventually
from tests.support.nemesis import Nemesis

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SEED = int(os.environ.get("NETAGENT_SEED", "4"))
SUBNET = "10.44.0.0/24"
FIXED = ("10.44.0.3", "10.44.0.4", "10.44.0.5", "10.44.0.250")
AT_MOST = 5
"""Containers that one runtime keeps: two runtimes need more than one block of eight addresses."""

LEAST = {"added": 21, "fixed": 4, "deleted": 21}
"""How much must have been done for the rest to say anything."""

LEAST_ON_A_HOST = 3
"""Its two runtimes may each delete one more when they are told to stop."""

CONVERGED_WITHIN_S = 90.0


class ContainerRuntime(threading.Thread):
    """Adds and deletes containers on one host as a container runtime does, until told to stop."""

    def __init__(self, host: Host, number: int, history: History, stop: threading.Event) -> None:
        super().__init__(name=f"{host.name}-r{number}")
        self._host = host
        self._history = history
        self._halt = stop
        self._rng = random.Random(f"{SEED} {self.name}")  # repeats, guards nothing
        self._boot = -1
        self._made = 0
        self._sandboxes: dict[str, str] = {}
        self.outcomes: Counter[str] = Counter()
        self.broken: BaseException | None = None

    def run(self) -> None:
        """Work; what goes wrong in the test itself is kept in ``broken``."""
        try:
            while not self._halt.wait(self._rng.uniform(0, 0.2)):
                self._step()
        except BaseException as error:  # raised again by the test
            self.broken = error

    def _step(self) -> None:
        boot = self._history.boot(self._host.name)
        if boot != self._boot:
            # The machine came up with an empty /run: a runtime starts anew as well.
            self._boot, self._sandboxes = boot, {}
        present = sorted(self._sandboxes)
        if present and (len(present) >= AT_MOST or self._rng.random() < 0.4):
            self.delete(self._rng.choice(present))
        else:
            self._add(boot)

    def _add(self, boot: int) -> None:
        self._made += 1
        holder = f"{self.name}-{self._made}"
        if self._enter("ip", "netns", "add", holder).returncode:
            return
        self._sandboxes[holder] = holder
        fixed = self._rng.choice(FIXED) if self._rng.random() < 0.3 else None
        done = self._plugin("ADD", holder, fixed)
        if done.returncode:
            self.outcomes["refused"] += 1
            self.delete(holder)
            return
        (given,) = json.loads(done.stdout)["ips"]
        address = given["address"].partition("/")[0]
        assert fixed in (None, address)
        if self._history.take(address, self._host.name, holder, boot=boot):
            self.outcomes["fixed" if fixed else "added"] += 1

    def delete(self, holder: str) -> None:
        """Delete a container, again and again if need be, as runtimes do."""
        self._history.give_back(holder)
        while self._boot == self._history.boot(self._host.name):
            if not self._plugin("DEL", holder, None).returncode:
                self._enter("ip", "netns", "delete", holder)
                self.outcomes["deleted"] += 1
                break
        self._sandboxes.pop(holder, None)

    def delete_all(self) -> None:
        """Delete what is left."""
        for holder in tuple(self._sandboxes):
            self.delete(holder)

    def _plugin(self, verb: str, holder: str, address: str | None) -> subprocess.CompletedProcess[str]:
        configuration = {"cniVersion": "1.1.0", "name": "shared", "type": "netagent"}
        if address is not None:
            configuration |= {"runtimeConfig": {"ips": [f"{address}/24"]}}  # type: ignore[dict-item]
        env = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": holder,
            "CNI_NETNS": f"/run/netns/{holder}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/opt/cni/bin",
        }
        return self._enter("/opt/cni/bin/netagent", stdin=json.dumps(configuration), env=env)

    def _enter(
        self, *argv: str, stdin: str = "", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        try:
            return self._host.run(*argv, check=False, stdin=stdin, env=env, timeout=150)
        except NetagentError as error:
            # A machine without power has nothing that could be entered.
            return subprocess.CompletedProcess(argv, 255, "", str(error))


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=3)
    h1 = lab.hosts[0]
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", SUBNET, "--host-prefix", "29", "shared")
    for host in lab.hosts:
        eventually(lambda host=host: netagent(host, "network", "inspect", "shared", check=False).returncode == 0)
    return lab


@pytest.fixture(scope="module")
def runtimes(lab: Lab) -> list[ContainerRuntime]:
    """Return the runtimes after their work, done while the adversary did its own."""
    history, stop = History(), threading.Event()
    nemesis = Nemesis(lab=lab, history=history, rng=random.Random(SEED))  # repeats, guards nothing
    workers = [ContainerRuntime(host, number, history, stop) for host in lab.hosts for number in (1, 2)]
    for worker in workers:
        worker.start()
    try:
        nemesis.rage()
        eventually(lambda: _have_done_enough(workers, history), within=120)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    print(f"NETAGENT_SEED={SEED}", *nemesis.diary, *history.spans, *(w.outcomes for w in workers), sep="\n")
    for worker in workers:
        if worker.broken is not None:
            raise worker.broken
    return workers


def _have_done_enough(workers: list[ContainerRuntime], history: History) -> bool:
    """Tell whether what was done is worth looking at, or cannot become so any more."""
    if any(worker.broken is not None for worker in workers):
        return True
    outcomes = _sum_of_outcomes(workers)
    present = Counter(span.host for span in history.present)
    done = all(outcomes[what] >= least for what, least in LEAST.items())
    return done and all(present[host] >= LEAST_ON_A_HOST for host in ("h1", "h2", "h3"))


def _sum_of_outcomes(runtimes: list[ContainerRuntime]) -> Counter[str]:
    return sum((runtime.outcomes.copy() for runtime in runtimes), Counter())


@pytest.fixture(scope="module")
def history(runtimes: list[ContainerRuntime]) -> History:
    return runtimes[0]._history


def test_no_address_was_given_twice(history: History, runtimes: list[ContainerRuntime]) -> None:
    assert overlaps(history.spans) == []
    outcomes = _sum_of_outcomes(runtimes)
    assert {what: outcomes[what] for what, least in LEAST.items() if outcomes[what] < least} == {}
    assert {span.host for span in history.present} == {"h1", "h2", "h3"}


def test_every_agent_is_well_afterwards(lab: Lab, history: History) -> None:
    def is_well(host: Host) -> bool:
        found = json.loads(netagent(host, "info", "--format", "json").stdout)
        return bool(found["StoreConnected"]) and not found["KernelError"] and not found["RefusedRecords"]

    for host in lab.hosts:
        eventually(lambda host=host: is_well(host), within=CONVERGED_WITHIN_S)


def test_the_namespaces_hold_what_was_answered_and_nothing_else(lab: Lab, history: History) -> None:
    for host in lab.hosts:
        expected = {span.holder: span.address for span in history.present if span.host == host.name}
        script = "for n in $(ls /run/netns); do echo $n $(ip -n $n -4 -br address show dev eth0 2>/dev/null); done"
        found = {}
        for line in host.run("sh", "-c", script).stdout.splitlines():
            name, _, words = line.partition(" ")
            if words:
                found[name] = words.split()[-1].partition("/")[0]
        assert found == expected, host.name


def test_the_store_says_what_was_answered(lab: Lab, history: History) -> None:
    eventually(lambda: _store_is_right(lab, history.present), within=CONVERGED_WITHIN_S)


def _store_is_right(lab: Lab, present: tuple[Span, ...]) -> bool:
    ids = {json.loads(netagent(h, "info", "--format", "json").stdout)["ID"]: h.name for h in lab.hosts}
    entries = _entries(lab)
    endpoints = [(k, decode_endpoint(v)) for k, v in entries.items() if k.startswith(keys.ENDPOINTS)]
    published = {(ids[keys.host_of_endpoint(k)], str(e.addresses[0].address)) for k, e in endpoints}
    assert len(published) == len(endpoints)
    assert published == {(span.host, span.address) for span in present}
    blocks = [decode_block(v) for k, v in entries.items() if k.startswith(keys.BLOCKS)]
    held = {b.prefix: ids[b.owner] for b in blocks}
    claims = {(ids[c.owner], str(c.address)) for c in map(decode_fixed, _below(entries, keys.ADDRESSES))}
    outside = set()
    for span in present:
        address = ipaddress.ip_address(span.address)
        owner = next((name for prefix, name in held.items() if address in prefix), None)
        assert owner in (None, span.host), span
        if owner is None:
            outside.add((span.host, span.address))
    assert claims == outside
    assert {key.removeprefix(keys.LIVE) for key in entries if key.startswith(keys.LIVE)} == set(ids)
    return True


def _below(entries: dict[str, bytes], prefix: str) -> list[bytes]:
    return [value for key, value in entries.items() if key.startswith(prefix)]


def _entries(lab: Lab) -> dict[str, bytes]:
    etcd = lab.etcd[0]
    lines = etcd.run("etcdctl", "--endpoints", etcd.url, "get", "--prefix", keys.ROOT).stdout.splitlines()
    return {key: value.encode() for key, value in zip(lines[::2], lines[1::2], strict=True)}


def test_every_container_reaches_every_other(lab: Lab, history: History) -> None:
    def all_answer(host: Host, holder: str) -> bool:
        pings = " ".join(f"(ping -nqc1 -W3 {s.address} >/dev/null || echo {s.address}) &" for s in history.present)
        silent = host.run("ip", "netns", "exec", holder, "sh", "-c", f"{pings} wait").stdout.split()
        assert not silent, f"{holder} on {host.name} does not reach {silent}"
        return True

    for host in lab.hosts:
        holder = next(span.holder for span in history.present if span.host == host.name)
        eventually(lambda host=host, holder=holder: all_answer(host, holder), within=CONVERGED_WITHIN_S)


def test_a_new_agent_finds_the_kernel_as_it_should_be(lab: Lab, history: History) -> None:
    for host in lab.hosts:
        before = dump(host)
        host.agent.kill()
        host.agent.start()
        eventually(lambda host=host, before=before: same(host, before))
        log = host.log("agent").read_text(errors="replace")
        assert "Traceback" not in log, log[log.index("Traceback") :][:4000]


def test_nothing_is_left_when_all_containers_are_gone(lab: Lab, runtimes: list[ContainerRuntime]) -> None:
    for runtime in runtimes:
        runtime.delete_all()
    for host in lab.hosts:
        eventually(lambda host=host: dump(host)["journal"] == "" and "nae" not in dump(host)["links"])

    def store_is_clear() -> bool:
        left = [key for key in _entries(lab) if key.startswith((keys.ENDPOINTS, keys.ADDRESSES))]
        assert left == []
        return True

    eventually(store_is_clear)
