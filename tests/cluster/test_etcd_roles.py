"""etcd with users: each host's may write what is its own and the shared claims, and the agents need no more."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from netagent.errors import EnvironmentProblem
from netagent.lab.lab import Lab
from netagent.reconcile.ports import Delete, Put
from netagent.store import keys
from netagent.store.etcd.access import parse_access
from netagent.store.etcd.store import EtcdStore
from netagent.store.etcd.transactor import SLOT_PREFIX
from tests.support.etcd import EtcdServer, etcd_server
from tests.support.hosts import address, netagent, pings, run
from tests.support.lab import MakeLab, eventually
from tests.support.world import H1, H2, STATICNET

pytestmark = pytest.mark.cluster

ROLES = Path(__file__).parents[2] / "deploy/etcd-roles.sh"
FOREIGN = [
    keys.host_key(H2),
    keys.live_key(H2),
    keys.removed_key(H2),
    f"{keys.own_endpoints_prefix(H2)}{STATICNET}/x",
    f"{SLOT_PREFIX}{H2}/x/1",
    keys.EPOCH,
]


def make_users(endpoint: str, *arguments: tuple[str, ...]) -> None:
    """Run the script for each of ``arguments``, twice, and switch users on."""
    environment = {**os.environ, "ETCDCTL_ENDPOINTS": endpoint, "ETCDCTL_API": "3"}
    for words in arguments * 2:
        subprocess.run([ROLES, *words], input="secret\n", text=True, check=True, capture_output=True, env=environment)
    for command in (("user", "add", "root:root"), ("user", "grant-role", "root", "root"), ("auth", "enable")):
        subprocess.run(["etcdctl", *command], check=True, capture_output=True, env=environment)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with etcd_server(tmp_path_factory.mktemp("etcd")) as server:
        make_users(server.endpoint, ("host", H1), ("host", H2), ("operator",))
        yield server


@asynccontextmanager
async def opened(etcd: EtcdServer, user: str, owner: str) -> Any:
    store = EtcdStore(parse_access(etcd.url, user=user, password="secret"), owner=owner)
    try:
        yield store
    finally:
        await store.close()


async def test_a_host_writes_what_is_its_own_and_claims_and_reads_all(etcd: EtcdServer) -> None:
    own = [
        keys.host_key(H1),
        keys.removed_key(H1),
        f"{keys.own_endpoints_prefix(H1)}{STATICNET}/x",
        f"{keys.blocks_prefix(STATICNET)}192.168.1.0-24",
        f"{keys.ADDRESSES}{STATICNET}/192.168.2.0-24/192.168.2.7",
        keys.network_key("staticnet"),
        keys.number_key(4097),
        keys.gone_key(STATICNET),
        keys.GENERATION,
    ]
    async with opened(etcd, f"netagent-{H1}", H1) as store:
        assert await store.transact([], [Put(key=keys.live_key(H1), value=b"{}", leased=True)])
        assert await store.transact([], [Put(key=key, value=b"{}") for key in own])
        assert {entry.key for entry in (await store.list(keys.ROOT)).entries} == {*own, keys.live_key(H1)}
        await anext(store.watch(keys.ROOT))
        assert await store.transact([], [Delete(key=key) for key in own])


@pytest.mark.parametrize("key", FOREIGN)
async def test_a_host_cannot_write_the_records_of_another(etcd: EtcdServer, key: str) -> None:
    async with opened(etcd, f"netagent-{H1}", H1) as store:
        for write in (Put(key=key, value=b"{}"), Delete(key=key)):
            with pytest.raises(EnvironmentProblem, match="denies"):
                await store.transact([], [write])


async def test_an_operators_agent_may_remove_a_host(etcd: EtcdServer) -> None:
    async with opened(etcd, "netagent-operator", "operator") as store:
        assert await store.transact([], [Put(key=keys.EPOCH, value=b"{}"), Delete(key=keys.host_key(H2))])


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2, agents=False)
    (member,) = lab.etcd
    for host, uuid in zip(lab.hosts, (H1, H2), strict=True):
        member.run("sh", "-c", f"echo secret | {ROLES} host {uuid}")
        host.run("mkdir", "-p", "/var/lib/netagent")
        host.path("/var/lib/netagent/host-id").write_text(f"{uuid}\n")
        host.path("/etc/netagent/password").write_text("secret\n")
        with host.path("/etc/netagent/agent.toml").open("a") as config:
            config.write(f'[etcd]\nuser = "netagent-{uuid}"\npassword_file = "/etc/netagent/password"\n')
    for command in ("user add root:root", "user grant-role root root", "auth enable"):
        member.run("env", "ETCDCTL_API=3", "etcdctl", *command.split())
    for host in lab.hosts:
        host.agent.start()
    return lab


def test_agents_need_no_more_than_their_roles(lab: Lab) -> None:
    h1, h2 = lab.hosts
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "net")
    eventually(lambda: "net" in netagent(h2, "network", "ls").stdout)
    run(h1, "one", "--network", "net")
    run(h2, "two", "--network", "net", "--ip", "192.168.9.9")
    eventually(lambda: pings(h1, "one", address(h2, "two")))
    h2.agent.restart()
    for host, name in ((h1, "one"), (h2, "two")):
        netagent(host, "rm", "-f", name)
    netagent(h2, "network", "rm", "net")
    eventually(lambda: "net" not in netagent(h1, "network", "ls", "--format", "{{.Name}}").stdout.split())
    assert "denies" not in "".join(host.agent.log.read_text() for host in lab.hosts)


def test_info_shows_the_stores_revision_and_the_lease(lab: Lab) -> None:
    h1 = lab.hosts[0]

    def info() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(netagent(h1, "info", "--format", "json").stdout)
        return found

    before = info()
    assert before["StoreListings"]["start"] == 1
    assert before["StoreStatistics"]["MissedChanges"] == 0
    eventually(lambda: 0 < (info()["LeaseRemaining"] or 0) <= 15)
    (member,) = lab.etcd
    member.run("env", "ETCDCTL_API=3", "etcdctl", "--user=root:root", "put", f"{keys.ROOT}x", "1")
    eventually(lambda: info()["StoreRevision"] > before["StoreRevision"])


def test_a_claim_that_another_host_overwrites_is_reported(lab: Lab) -> None:
    h1 = lab.hosts[0]
    (member,) = lab.etcd
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "net2")
    run(h1, "victim", "--network", "net2")
    etcdctl = ("env", "ETCDCTL_API=3", "etcdctl", f"--user=netagent-{H2}:secret")
    key, record = member.run(*etcdctl, "get", "--prefix", keys.BLOCKS).stdout.splitlines()
    assert H1 in record
    member.run(*etcdctl, "put", key, record.replace(H1, H2))

    def status() -> str:
        lines = netagent(h1, "host", "ls").stdout.splitlines()
        return next(line for line in lines if line.startswith(H1))

    eventually(lambda: "1 overwritten" in status())
    shown = [json.loads(line) for line in netagent(h1, "host", "ls", "--format", "json").stdout.splitlines()]
    (own,) = [host for host in shown if host["Self"]]
    assert own["Seized"] == [f"{key.removeprefix(keys.ROOT)} by {H2}"]
    eventually(lambda: "was overwritten by host" in h1.agent.log.read_text())
    with h1.popen("netagent", "events", "--format", "json", stdout=-1) as events:
        assert events.stdout is not None
        seen = next(line for line in events.stdout if "claim-seized" in line)
        events.kill()
    assert H2 in seen
    member.run(*etcdctl, "put", key, record)
    eventually(lambda: "overwritten" not in status())
    assert "Ready" in status()
