"""A network that many other hosts share: the hosts are records in a real etcd, the kernel is a real one.

Told are: all peers at once, from the first record written to the last route in the kernel; then one more peer each
time, from the commit of its block to its route, and the bytes that etcd sends for it; the keys that the store has for
each block, beside hosts' records and leases; the agent's memory, and its CPU time while nothing changes, though no peer
answers. At last a start with an empty kernel, from the first instruction of
the process to the last route, with its CPU time and what it asks of etcd, and a restart over what is there.
"""

import argparse
import asyncio
import ipaddress
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path

from netagent.kernel.netlink import NetlinkSocket
from netagent.kernel.uapi import NETLINK_ROUTE, RTM_NEWROUTE, RTNLGRP_IPV4_ROUTE
from netagent.model.block import Block
from netagent.model.host import Host, Incarnation
from netagent.model.ids import HostId, NetworkId
from netagent.reconcile.ports import Put
from netagent.store import keys
from netagent.store.etcd.access import parse_access
from netagent.store.etcd.store import EtcdStore
from netagent.store.host_records import encode_live
from netagent.store.network_records import decode_network
from netagent.store.records import encode_block, encode_host
from tests.bench.report import draw_lines, keep, median, p99, show
from tests.support.lab import eventually
from tests.support.lone_host import ROOT, LoneHost

STORE = "127.0.0.1:2379"
SUBNET = "10.128.0.0/9"
NAME = "wide"
AT_ONCE = 20
"""Peers of one transaction."""
WITHIN_S = 120.0
PAUSE_S = 0.3


def main(arguments: list[str]) -> None:
    """Measure and print; ``--peers`` are the numbers of hosts, ``--rounds`` the changes among each."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench peers", description=__doc__)
    parser.add_argument("--peers", type=int, nargs="*", default=[10, 100, 1000, 5000])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--idle", type=float, default=10.0, metavar="SECONDS", help="how long the idle agent is watched"
    )
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--inside", type=int, metavar="PID", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.count:
        asyncio.run(_count(options.peers[0]))
        return
    if options.inside:
        (peers,) = options.peers
        json.dump(asyncio.run(_change(peers, options.rounds, options.inside, options.idle)), sys.stdout)
        return
    report({peers: measure(peers, options.rounds, options.idle) for peers in options.peers})


def measure(peers: int, rounds: int, idle_s: float) -> dict[str, list[float]]:
    """Return figures by what they are, times in ms."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        disk = Path(directory) / "disk"
        disk.mkdir()
        # As it is where netagent is installed: compiled once.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = f"{directory}/compiled"
        with LoneHost(Path(directory) / "agent.log", disk=disk, options=("--store", f"etcd://{STORE}")) as host:
            host.spawn("etcd", "--data-dir", "/run/etcd", "--unsafe-no-fsync", "--log-level", "error")
            eventually(lambda: host.succeeds("curl", "-sf", f"http://{STORE}/health"))
            host.start_agent()
            host.netagent("network", "create", "--driver", "vxlan", "--subnet", SUBNET, "--host-prefix", "24", NAME)
            path = host.make_netns("one")
            host.netagent("attach", "--netns", path, "--name", "one", "--network", NAME)
            command = [*host.prefix, "env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.bench", "peers"]
            sizes = ["--peers", str(peers), "--rounds", str(rounds), "--idle", str(idle_s)]
            done = subprocess.run([*command, "--inside", str(host.agent_pid), *sizes], stdout=subprocess.PIPE)
            if done.returncode:
                raise SystemExit(f"the measurement failed:\n{host.log.read_text()[-2000:]}")
            figures: dict[str, list[float]] = json.loads(done.stdout)
            figures |= _start(host, command, peers + rounds)
    return figures


def _start(host: LoneHost, command: list[str], peers: int) -> dict[str, list[float]]:
    """Return what it takes to start over an empty kernel, and over what the last life left."""
    host.stop_agent()
    for device in json.loads(host.run("ip", "-j", "link")):
        if device["ifname"].startswith("na") and device.get("link_type") != "none":
            host.run("ip", "link", "delete", device["ifname"], check=False)
    host.run("nft", "flush", "ruleset")
    counter = subprocess.Popen([*command, "--count", "--peers", str(peers)], stdout=subprocess.PIPE, text=True)
    assert counter.stdout is not None
    before = json.loads(counter.stdout.readline())
    begun = time.monotonic()
    host.start_agent(wait=False)
    after = json.loads(counter.stdout.readline())
    figures = {
        "start": [(after["time"] - begun) * 1000],
        "start cpu": [_cpu_seconds(host.agent_pid) * 1000],
        "start requests": [after["requests"] - before["requests"]],
        "start bytes": [after["sent"] - before["sent"]],
    }
    counter.wait()
    counter.stdout.close()
    # What was told may have been other routes too: those of addresses.
    eventually(lambda: host.run("ip", "route", "show", "proto", "110").count("\n") >= peers)
    host.stop_agent()
    begun = time.monotonic()
    host.start_agent(wait=False)
    while not host.serves():
        time.sleep(0.01)
    return figures | {"restart": [(time.monotonic() - begun) * 1000]}


async def _count(peers: int) -> None:
    """Print what etcd has done so far, and again when the kernel has so many routes more; both times in s."""
    routes = NetlinkSocket(NETLINK_ROUTE, groups=(RTNLGRP_IPV4_ROUTE,))
    print(json.dumps(_etcd_load()), flush=True)
    await _routes(routes, peers)
    done = time.monotonic()
    print(json.dumps({**_etcd_load(), "time": done}), flush=True)
    routes.close()


def _etcd_load() -> dict[str, float]:
    """Return how many calls etcd has taken, and the bytes that it has sent to clients."""
    with urllib.request.urlopen(f"http://{STORE}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    sums = {"grpc_server_started_total": 0.0, "etcd_network_client_grpc_sent_bytes_total": 0.0}
    for line in lines:
        name = re.split(r"[ {]", line, maxsplit=1)[0]
        if name in sums:
            sums[name] += float(line.rpartition(" ")[2])
    return dict(zip(("requests", "sent"), sums.values(), strict=True))


async def _change(peers: int, rounds: int, agent: int, idle_s: float) -> dict[str, list[float]]:
    """Write peers into the store and watch the kernel; for a process in the machine's network namespace."""
    store = EtcdStore(parse_access(f"etcd://{STORE}"))
    entry = await store.get(keys.network_key(NAME))
    assert entry is not None
    network = decode_network(entry.value).id
    routes = NetlinkSocket(NETLINK_ROUTE, groups=(RTNLGRP_IPV4_ROUTE,))
    for_routing = await _keys_for_routing(store)
    cpu = _cpu_seconds(agent)
    begun = time.perf_counter()
    for first in range(0, peers, AT_ONCE):
        writes = [put for number in range(first, min(first + AT_ONCE, peers)) for put in _records(network, number)]
        await store.transact([], writes)
    written = time.perf_counter()
    await _routes(routes, peers)
    last = time.perf_counter()
    figures = {
        "all": [(last - begun) * 1000],
        "after": [(last - written) * 1000],
        "cpu": [(_cpu_seconds(agent) - cpu) * 1000],
        "one": [],
        "bytes": [],
    }
    for number in range(peers, peers + rounds):
        await asyncio.sleep(PAUSE_S)
        sent = _etcd_load()["sent"]
        await store.transact([], _records(network, number))
        begun = time.perf_counter()
        await _routes(routes, 1)
        figures["one"].append((time.perf_counter() - begun) * 1000)
        figures["bytes"].append(_etcd_load()["sent"] - sent)
    figures["keys"] = [(await _keys_for_routing(store) - for_routing) / (peers + rounds)]
    await asyncio.sleep(10 * PAUSE_S)
    cpu = _cpu_seconds(agent)
    await asyncio.sleep(idle_s)
    figures["idle"] = [(_cpu_seconds(agent) - cpu) / idle_s * 100]
    status = Path(f"/proc/{agent}/status").read_text()
    figures["memory"] = [int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024]
    routes.close()
    await store.close()
    return figures


async def _keys_for_routing(store: EtcdStore) -> int:
    """Return how many keys there are that no host has but for its routes."""
    listing = await store.list(keys.ROOT)
    return sum(not entry.key.startswith((keys.HOSTS, keys.LIVE)) for entry in listing.entries)


def _records(network: NetworkId, number: int) -> Sequence[Put]:
    """Return the records of a host and of its block, counted from the end of the subnet."""
    identity = HostId(str(uuid.UUID(int=number + 1)))
    underlay = ipaddress.ip_address("198.19.0.1") + number
    life = Incarnation(boot="boot", life=str(number), underlay=(underlay,))
    host = Host(id=identity, name=f"peer{number}", underlay=(underlay,), mtu=1500)
    start = ipaddress.ip_network(SUBNET).broadcast_address - 256 * (number + 2) + 1
    block = Block(
        network_id=network,
        prefix=ipaddress.ip_network((start, 24)),
        owner=identity,
        epoch=1,
        own_address=start + 1,
    )
    return (
        Put(key=keys.host_key(identity), value=encode_host(host)),
        Put(
            key=keys.live_key(identity),
            value=encode_live(life),
        ),
        Put(key=keys.block_key(network, block.prefix), value=encode_block(block)),
    )


async def _routes(notifications: NetlinkSocket, count: int) -> None:
    """Wait until the kernel has told of so many routes more."""
    deadline = time.monotonic() + WITHIN_S
    while count > 0:
        told = notifications.receive_notifications()
        count -= sum(message.kind == RTM_NEWROUTE for message in told)
        if not told:
            if time.monotonic() > deadline:
                raise SystemExit(f"{count} routes are missing")
            await asyncio.sleep(0.001)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(figures: dict[int, dict[str, list[float]]]) -> None:
    """Print the tables and keep the figures."""
    least = next(iter(figures.values()))
    changes = [
        (
            f"{peers:,} peers",
            f"{median(each['one']) / median(least['one']):.2f}",
            f"{median(each['one']):.1f}",
            f"{p99(each['one']):.1f}",
            f"{median(each['bytes']):,.0f}",
            f"{each['memory'][0]:.0f}",
            f"{each['idle'][0]:.1f}",
            f"{each['keys'][0]:.2f}",
        )
        for peers, each in figures.items()
    ]
    starts = [
        (
            f"{peers:,} peers",
            f"{each['start'][0]:,.0f}",
            f"{each['start cpu'][0]:,.0f}",
            f"{each['start requests'][0]:.0f}",
            f"{each['start bytes'][0] / 1024:,.0f}",
            f"{each['restart'][0]:,.0f}",
            f"{each['all'][0]:,.0f}",
            f"{each['cpu'][0]:,.0f}",
        )
        for peers, each in figures.items()
    ]
    series = {"one peer more: median": [(float(peers), median(each["one"])) for peers, each in figures.items()]}
    draw_lines("peers", "from the store to the kernel", "peers", "ms", series)
    columns = (
        "",
        "ratio of a change",
        "a change, ms",
        "p99, ms",
        "bytes from etcd",
        "memory, MiB",
        "idle, % of a core",
        "keys a block",
    )
    show("other hosts of a network: one more", columns, changes)
    columns = ("", "start, ms", "CPU, ms", "calls of etcd", "KiB from it", "restart, ms", "all at once, ms", "CPU, ms")
    show("other hosts of a network: all of them", columns, starts)
    keep("peers", {"unit": "ms", "samples": figures})
