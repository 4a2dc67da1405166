"""What probing finds out about ways by GRE in a machine whose kernel has it, and what comes of it.

On the way from h1 to h2 large packets are lost and checksums are spoiled, on h3's way to h1 checksums are. The
agent's own service asks; what it finds is rendered and applied by the agent's own code.
"""

import asyncio
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any, cast

from netagent.kernel.kernel import Kernel
from netagent.model.ids import HostId
from netagent.model.paths import Paths
from netagent.model.persistent_map import PersistentSet
from netagent.model.snapshot import Snapshot
from netagent.plan.diff import diff
from netagent.plan.render import render_everything
from netagent.services.context import Context
from netagent.services.events import EventBus
from netagent.services.probing import ProbingService
from tests.support.spoiling import spoiling
from tests.support.vm_hosts import address_of, host, inside, network, pings, sh, snapshot

TUNNELS = {1: "nagre4", 3: f"nao{network('net').id[:12]}"}
LIMITS = [["net", "h2", 4, 1358], ["net", "h2", 6, 1358], ["six", "h2", 4, 1338]]
BYTES = 1 << 18
_WITHIN_S = 120
_INNER_PROTOCOL, _INNER_TARGET, _INNER_CHECKSUM = "@th,248,8", "@th,304,32", "@th,384,16"
"""Behind a GRE header with a key and an Ethernet header: of IPv4, and of UDP behind that."""


class Agent:
    """The part of a host's agent that asks, and what it tells the rest of it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.kernel = Kernel(namespace=f"/run/netns/h{number}")
        self.events = EventBus(lambda: "now")
        self.paths = Paths()
        self.path_problems: Mapping[HostId, tuple[str, ...]] = {}
        self.knowledge = self.engine = self
        self.host = host(number)
        known = snapshot(number)
        self._known = replace(known, live=PersistentSet().updated(known.hosts))
        self._service = ProbingService(cast("Context", self))

    def snapshot(self) -> Snapshot:
        return self._known

    def follow_snapshot(self) -> None:
        """What was found is applied when it is asked for."""

    async def ask_until(self, is_enough: Callable[[Paths], bool]) -> None:
        """Ask all ways until that was found, or it has lasted too long."""
        deadline = time.monotonic() + _WITHIN_S
        while not is_enough(self.paths) and time.monotonic() < deadline:
            await self._service.step()

    async def apply(self) -> list[str]:
        """Bring the kernel to what was found; return what a second look still finds to do."""
        desired = render_everything(replace(self._known, paths=self.paths))
        await self.kernel.apply(diff(desired, await self.kernel.observe(desired)))
        return [str(o) for o in diff(desired, await self.kernel.observe(desired)).operations]

    def is_in_doubt(self) -> bool:
        """Tell whether anything is wrong on the ways to others."""
        return any(peer != self.host.id for peer in self.path_problems)

    def report(self) -> dict[str, Any]:
        return {
            "limits": sorted(
                [self._known.networks[of].name, self._known.hosts[peer].name, version, mtu]
                for (of, peer, version), mtu in self.paths.narrow.items()
            ),
            "corrupting": sorted(self._known.networks[of].name for of in self.paths.corrupting),
            "problems": {self._known.hosts[peer].name: texts for peer, texts in self.path_problems.items()},
        }


def leaves_checksums(number: int) -> bool:
    features = inside(f"h{number}", "ethtool", "--show-features", TUNNELS[number]).stdout
    return "tx-checksumming: on" in features


def break_the_ways() -> None:
    for number, target in ((1, "192.168.2.0"), (3, "192.168.1.0")):
        # The kernel works out what the cable does not offer to, and takes apart what is larger than a packet.
        inside(f"h{number}", "ethtool", "-K", "eth0", "tx", "off", "gso", "off", "tso", "off")
        match = f"ip protocol gre {_INNER_PROTOCOL} 17 {_INNER_TARGET} {int(IPv4Address(target))}"
        ends = {"source": f"192.168.{number}.0", "target": target}
        inside(f"h{number}", "nft", spoiling("eth0", match, _INNER_CHECKSUM, protocol=17, **ends))
    chain = "add chain netdev lossy in { type filter hook ingress device eth0 priority 0; }"
    rules = [
        f"add rule netdev lossy in {match} drop"
        for match in ("ip saddr 198.18.0.1 ip length > 1400", "ip6 saddr fd00:198:18::1 ip6 length > 1360")
    ]
    inside("h2", "nft", "; ".join(["add table netdev lossy", chain, *rules]))


def transferred() -> int:
    """Return how many bytes a container of h1 gets to one of h2, which has them counted."""
    target = address_of(2, "net")
    server = ("ip", "netns", "exec", "net2", "timeout", "100", "socat", "-u", "TCP-LISTEN:8000", "SYSTEM:wc -c >&2")
    client = ("socat", "-u", f"SYSTEM:head -c {BYTES} /dev/zero", f"TCP:{target}:8000,retry=50,interval=0.2")
    with subprocess.Popen(server, stderr=subprocess.PIPE, text=True) as receiver:
        inside("net1", "timeout", "90", *client, check=False)
        counted = receiver.communicate()[1].split()
    return int(counted[0]) if counted else 0


async def is_loss_of_neighbours_noticed(agent: Agent) -> bool:
    noticed = asyncio.Event()
    async with agent.kernel.watched(noticed.set):
        sh("ip", "-n", "h1", "neighbour", "flush", "dev", TUNNELS[1], "nud", "permanent")
        try:
            async with asyncio.timeout(60):
                await noticed.wait()
        except TimeoutError:
            return False
    return True


async def look(found: dict[str, Any]) -> None:
    one, three = Agent(1), Agent(3)
    try:
        found["leaves checksums"] = {"before": [leaves_checksums(n) for n in TUNNELS]}
        break_the_ways()
        await asyncio.gather(
            # An echo that comes late in a slow machine is lost: what is found then is less, and found again.
            one.ask_until(lambda paths: one.report()["limits"] == LIMITS and bool(paths.corrupting)),
            three.ask_until(lambda paths: bool(paths.corrupting)),
        )
        for agent in (one, three):
            found[f"h{agent.number}"] = agent.report()
            found[f"left to do on h{agent.number}"] = await agent.apply()
        found["leaves checksums"]["after"] = [leaves_checksums(n) for n in TUNNELS]
        found["routes"] = sh("ip", "-n", "h1", "route").stdout + sh("ip", "-n", "h1", "-6", "route").stdout
        too_large = ("ping", "-n", "-c1", "-W5", "-M", "do", "-s", "1400")
        found["told"] = inside("net1", *too_large, address_of(2, "net"), check=False).stdout
        found["smaller ones arrive"] = pings("net1", address_of(2, "net"), "-M", "do", "-s", str(1358 - 28))
        found["transferred"] = transferred()
        inside("h2", "nft", "delete", "table", "netdev", "lossy")
        await asyncio.gather(
            *(agent.ask_until(lambda _, agent=agent: not agent.is_in_doubt()) for agent in (one, three))
        )
        found["left to do in the end"] = await one.apply()
        found["h1 in the end"], found["h3 in the end"] = one.report(), three.report()
        found["loss of neighbours noticed"] = await is_loss_of_neighbours_noticed(one)
        found["left to do after it"] = await one.apply()
        for number in (1, 3):
            inside(f"h{number}", "nft", "delete", "table", "netdev", "sums")
    finally:
        for agent in (one, three):
            await agent.kernel.close()
