"""The agent is killed between the transactions of what operators do to hosts and to the store.

Repeated, the command ends as ever. Which transactions there are is not written here: each command is run once while
the agent notes the crash points that it reaches, then once for each of the first transactions with a kill before it,
and once with one after the last. What the store holds after the command was repeated is what it holds without a
crash: no claim is lost, doubled, or somebody else's.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from netagent.store import keys
from tests.support.crash import arm, disarm, start_agent
from tests.support.hosts import netagent, run
from tests.support.lab import MakeLab, eventually
from tests.support.stored_peer import peer_records

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

NEVER = 1_000_000
LOOKS = 10
"""So many looks at the store find the same when nothing is being written any more: they take a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A host whose agent notes its crash points, and the records that its store begins each round with."""

    lab: Lab
    network: str
    beginning: dict[str, str]

    @property
    def host(self) -> Host:
        return self.lab.host("h1")

    def etcdctl(self, *words: str, stdin: str = "") -> str:
        return self.lab.etcd[0].run("etcdctl", *words, stdin=stdin).stdout

    def records(self) -> dict[str, str]:
        """Return what the store holds, but for times, and for what counts changes."""
        lines = self.etcdctl("get", "--prefix", keys.ROOT).splitlines()
        found = dict(zip(lines[::2], lines[1::2], strict=True))
        left_out = (keys.LIVE, keys.GENERATION, keys.REMOVED)
        return {key: value for key, value in found.items() if not key.startswith(left_out)}

    def begin(self, *without: str) -> None:
        """Put the records of the beginning into the store, and none other, ``without`` those of some kinds."""
        wanted = {key: value for key, value in self.beginning.items() if not key.startswith(without)}
        changes = [f"del {json.dumps(key)}" for key in self.records().keys() - wanted.keys()]
        changes += [f"put {json.dumps(key)} {json.dumps(value)}" for key, value in wanted.items()]
        self.etcdctl("del", "--prefix", keys.REMOVED)
        done = self.etcdctl("txn", "-w", "json", stdin="\n".join(("", *changes, "", "", "")))
        revision = json.loads(done[done.index("{") :])["header"]["revision"]
        eventually(lambda: self._heard() >= revision)

    def _heard(self) -> int:
        """Return the revision of the store that the agent has heard of."""
        return int(json.loads(netagent(self.host, "info", "--format", "json").stdout)["StoreRevision"])

    def store_has(self, records: dict[str, str]) -> bool:
        found = self.records()
        assert found == records, {k: (found.get(k), records.get(k)) for k in found.keys() | records.keys()}
        return True


@pytest.fixture(scope="module")
def cluster(make_lab: MakeLab) -> Cluster:
    lab = make_lab(1, agents=False)
    h1 = lab.host("h1")
    start_agent(h1)
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "net")
    run(h1, "web", "--network", "net")
    run(h1, "fixed", "--network", "net", "--ip", "192.168.0.9")
    (details,) = json.loads(netagent(h1, "network", "inspect", "net").stdout)
    cluster = Cluster(lab=lab, network=details["Id"], beginning={})
    eventually(lambda: sum(key.startswith(keys.ENDPOINTS) for key in cluster.records()) == 2)
    beginning = cluster.records() | peer_records(cluster.network)
    return Cluster(lab=lab, network=cluster.network, beginning=beginning)


def killed(cluster: Cluster, number: int, act: Callable[[], object]) -> list[str]:
    """Let the agent die at its ``number``-th step in ``act``, start it again, and return the steps that it took."""
    host = cluster.host
    arm(host, number)
    act()
    steps = disarm(host)
    if not host.agent.running:
        start_agent(host)
    return steps


COMMANDS = {
    "reserve": ("host", "reserve", "--block", "192.168.77.0/24", "peer", "net"),
    "release": ("host", "reserve", "--release", "--block", "192.168.200.0/24", "peer", "net"),
    "drain": ("host", "drain", "peer"),
    "remove": ("host", "rm", "peer"),
    "rebuild": ("store", "rebuild"),
    "import": ("store", "import", "--force", "/run/copy.json"),
}
LOST = {
    "rebuild": (keys.NETWORKS, keys.BLOCKS, keys.ADDRESSES, keys.NUMBERS),
    "import": (keys.NETWORKS, keys.NUMBERS, keys.BLOCKS),
}
"""What is not in the store when these begin."""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_killed_and_repeated_ends_as_ever(cluster: Cluster, name: str) -> None:
    command, host = COMMANDS[name], cluster.host
    cluster.begin()
    eventually(lambda: cluster.store_has(cluster.beginning))
    if name == "import":
        netagent(host, "store", "export", "-o", "/run/copy.json")

    def begin() -> None:
        cluster.begin(*LOST.get(name, ("nothing",)))

    begin()
    steps = killed(cluster, NEVER, lambda: netagent(host, *command))
    ended = settled(cluster)
    transactions = [number for number, step in enumerate(steps, 1) if step == "store.transact"]
    # Each is noted before and after; after one is before the next. Later ones are the host's own records, as ever.
    for number in {*transactions[:6:2], transactions[-1]}:
        begin()
        killed(cluster, number, lambda: netagent(host, *command, check=False))
        repeated = netagent(host, *command, check=False)
        assert repeated.returncode == 0 or (name == "remove" and "not found" in repeated.stderr), repeated.stderr
        eventually(lambda: cluster.store_has(ended))
        assert host.run("ping", "-n", "-c", "1", "-W", "2", "192.168.0.9", check=False).returncode == 0


def settled(cluster: Cluster) -> dict[str, str]:
    """Return what the store holds when it does not change any more: the host's own claims come after the answer."""
    looks = [cluster.records()]

    def has_settled() -> bool:
        looks.append(cluster.records())
        return len(looks) > LOOKS and all(look == looks[-1] for look in looks[-LOOKS:])

    eventually(has_settled)
    return looks[-1]
