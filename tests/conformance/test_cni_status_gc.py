"""CNI STATUS and GC, and what the agent collects by itself (C22, C90 to C98, C106)."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.conftest import GRACE_S, Machine, Make
from tests.support.cni import Outcome, Plugin, a_configuration
from tests.support.cni_runner import PluginFailed, Runner
from tests.support.lab import eventually

pytestmark = pytest.mark.cluster

VALID = "cni.dev/valid-attachments"
DRAFT = "cni.dev/attachments"


def status(plugin: Plugin, network: str = "app", **more: Any) -> Outcome:
    return plugin.call("STATUS", "", "", "", configuration=a_configuration(network, version="1.1.0"), **more)


def collect(plugin: Plugin, configuration: str = "app", **keys: Any) -> Outcome:
    return plugin.call("GC", "", "", "", configuration=a_configuration(configuration, version="1.1.0", **keys))


def attachment(name: str, interface: str = "eth0") -> dict[str, str]:
    return {"containerID": name, "ifname": interface}


def is_attached(machine: Machine, name: str) -> bool:
    return any(
        json.loads(line)["Names"] == name for line in machine.netagent("ps", "-a", "--format", "json").splitlines()
    )


def let_grow_old() -> None:
    """Wait until what is there by now is old enough to be collected: time itself is what is tested."""
    time.sleep(GRACE_S * 1.5)


@pytest.mark.parametrize(("verb", "version"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")])
def test_c22_a_verb_is_refused_for_versions_that_do_not_know_it(plugin: Plugin, verb: str, version: str) -> None:
    outcome = plugin.call(verb, configuration=a_configuration(version=version, prevResult={}))
    assert outcome.code == 1
    assert verb in outcome.json["msg"]
    assert version in outcome.json["msg"]


# STATUS


def test_c90_status_of_a_healthy_host_succeeds(plugin: Plugin) -> None:
    assert status(plugin) == Outcome(status=0, stdout="", stderr="")


def test_c90_status_of_an_unknown_network_is_not_available(plugin: Plugin) -> None:
    outcome = status(plugin, "nosuch")
    assert outcome.code == 50
    assert "nosuch" in outcome.json["msg"]


def test_c90_status_without_an_agent_is_not_available(machine: Machine, plugin: Plugin) -> None:
    machine.stop_agent()
    assert status(plugin).code == 50
    machine.start_agent()
    assert status(plugin).status == 0


def test_c90_status_of_an_exhausted_network_is_not_available(plugin: Plugin, netns: Make) -> None:
    configuration = a_configuration("tiny")
    while (added := plugin.add(*netns(), configuration=configuration)).status == 0:
        assert status(plugin, "app").status == 0
    assert added.code == 103
    outcome = status(plugin, "tiny")
    assert outcome.code == 50
    assert "tiny" in outcome.json["msg"]


def test_c90_status_while_the_store_is_away_depends_on_the_addresses_here(
    machine: Machine, plugin: Plugin, netns: Make
) -> None:
    machine.netagent("network", "create", "--driver", "vxlan", "--subnet", "10.24.0.0/16", "unused")
    name, path = netns()
    plugin.add(name, path, configuration=a_configuration("wide"))
    machine.stop_etcd()
    try:
        eventually(lambda: status(plugin, "unused").status, within=20)
        outcome = status(plugin, "unused")
        assert outcome.code == 50
        assert "store is away" in outcome.json["msg"]
        assert status(plugin, "wide").status == 0
        assert plugin.add(*netns(), configuration=a_configuration("wide")).status == 0, "as STATUS has said"
    finally:
        machine.start_etcd()
    eventually(lambda: status(plugin, "unused").status == 0, within=20)
    machine.netagent("network", "rm", "unused")


def test_an_agent_that_does_not_see_the_runtimes_namespaces_says_so(
    machine: Machine, plugin: Plugin, netns: Make
) -> None:
    """As one in a container into which they are not handed on; what runs is not taken for gone."""
    attached, there = netns()
    plugin.add(attached, there)
    machine.stop_agent()
    blind = ("unshare", "--mount", "--propagation", "private", "sh", "-ec", f'umount -l {there}; exec "$@"', "sh")
    machine.start_agent(through=blind)
    try:
        name, path = netns()
        for outcome in (status(plugin), plugin.add(name, path)):
            assert outcome.code == 50
            assert "does not see network namespaces" in outcome.json["msg"]
            assert "rslave" in outcome.json["details"]
        assert not is_attached(machine, name)
        let_grow_old()
        assert is_attached(machine, attached)
        assert machine.ping("10.20.0.1", inside=attached)
    finally:
        machine.stop_agent()
        machine.start_agent()
    assert status(plugin).status == 0
    assert plugin.add(name, path).status == 0


def test_c90_status_tells_that_the_way_to_other_hosts_is_broken(machine: Machine, plugin: Plugin, netns: Make) -> None:
    identity = machine.netagent("network", "create", "--driver", "vxlan", "--subnet", "10.25.0.0/16", "blocked").strip()
    tunnel = f"nav{identity[:12]}"
    machine.run("ip", "link", "add", tunnel, "type", "veth", "peer", "name", "foreign")
    assert plugin.add(*netns(), configuration=a_configuration("blocked")).status != 0
    assert status(plugin, "app").code == 51
    machine.run("ip", "link", "delete", tunnel)
    machine.netagent("network", "rm", "blocked")
    eventually(lambda: status(plugin, "app").status == 0)


def test_c91_status_is_quick_and_changes_nothing(machine: Machine, plugin: Plugin) -> None:
    before = machine.dump()
    took = []
    for _ in range(5):
        start = time.monotonic()
        status(plugin)
        took.append(time.monotonic() - start)
    assert min(took) < 0.2
    assert machine.dump() == before


# GC


def test_c92_collection_leaves_what_is_in_use(machine: Machine, plugin: Plugin, netns: Make) -> None:
    (one, one_path), (two, two_path) = netns(), netns()
    plugin.add(one, one_path)
    plugin.add(two, two_path)
    before = machine.dump()
    let_grow_old()
    outcome = collect(plugin, **{VALID: [attachment(one), attachment(two)]})
    assert outcome == Outcome(status=0, stdout="", stderr="")
    machine.settles(before)


@pytest.mark.parametrize("nothing", [[], None], ids=["empty-list", "null"])
def test_c93_collection_of_all_removes_all_of_the_configuration(
    machine: Machine, plugin: Plugin, netns: Make, nothing: list[Any] | None
) -> None:
    name, path = netns()
    ports = {"portMappings": [{"hostPort": 4093, "containerPort": 80}]}
    before = machine.dump()
    plugin.add(name, path, configuration=a_configuration(runtimeConfig=ports))
    let_grow_old()
    assert collect(plugin, **{VALID: nothing}).status == 0
    machine.settles(before)
    assert [link["ifname"] for link in machine.json("ip", "-j", "link", inside=name)] == ["lo"]


@pytest.mark.parametrize(
    "keys",
    [{}, {VALID: "c1"}, {VALID: [7]}, {VALID: [{"containerID": "c1"}]}, {VALID: [attachment("c1") | {"ifname": 7}]}],
    ids=json.dumps,
)
def test_c94_collection_without_a_proper_list_changes_nothing(
    machine: Machine, plugin: Plugin, netns: Make, keys: dict[str, Any]
) -> None:
    name, path = netns()
    plugin.add(name, path)
    let_grow_old()
    assert collect(plugin, **keys).code == 7
    assert is_attached(machine, name)


def test_c95_the_list_under_the_final_name_wins(machine: Machine, plugin: Plugin, netns: Make) -> None:
    (kept, kept_path), (gone, gone_path) = netns(), netns()
    plugin.add(kept, kept_path)
    plugin.add(gone, gone_path)
    let_grow_old()
    assert collect(plugin, **{VALID: [attachment(kept)], DRAFT: [attachment(gone)]}).status == 0
    assert is_attached(machine, kept)
    assert not is_attached(machine, gone)


def test_c95_the_list_under_the_name_of_drafts_alone_counts(machine: Machine, plugin: Plugin, netns: Make) -> None:
    (kept, kept_path), (gone, gone_path) = netns(), netns()
    plugin.add(kept, kept_path)
    plugin.add(gone, gone_path)
    let_grow_old()
    assert collect(plugin, **{DRAFT: [attachment(kept)]}).status == 0
    assert is_attached(machine, kept)
    assert not is_attached(machine, gone)


def test_c96_collection_leaves_what_others_made(machine: Machine, plugin: Plugin, netns: Make) -> None:
    """The same network of ours, used by two configurations, by ``attach`` and by ``run``."""
    (theirs, theirs_path), (api, api_path), (own, own_path) = netns(), netns(), netns()
    plugin.add(theirs, theirs_path, configuration=a_configuration("podnet", netagent={"network": "app"}))
    plugin.add(own, own_path)
    machine.netagent("attach", "--netns", api_path, "--name", api, "--network", "app")
    let_grow_old()
    assert collect(plugin, **{VALID: []}).status == 0
    assert is_attached(machine, theirs)
    assert is_attached(machine, api)
    assert not is_attached(machine, own)
    machine.netagent("detach", api)


def test_c97_one_attachment_that_cannot_be_removed_does_not_keep_the_others(
    machine: Machine, plugin: Plugin, netns: Make, runner: Callable[..., Runner], fake_plugin: Callable[..., Any]
) -> None:
    (one, one_path), (two, two_path) = netns(), netns()
    chain = runner({"type": "netagent"}, fake_plugin("stubborn", STUBBORN))
    chain.add(one, one_path)
    chain.add(two, two_path)
    let_grow_old()
    with pytest.raises(PluginFailed, match="stubborn DEL"):
        chain.collect([])
    assert not is_attached(machine, one)
    assert not is_attached(machine, two)


STUBBORN = r"""case $CNI_COMMAND in
ADD) printf '%s' "$input" | sed 's/.*"prevResult": \({.*}\)}$/\1/' ;;
DEL) echo '{"cniVersion":"1.1.0","code":100,"msg":"no"}'; exit 1 ;;
esac"""
"""A plugin that hands on the result so far and fails with DEL."""


def test_c98_an_attachment_made_while_the_list_was_written_survives(
    machine: Machine, plugin: Plugin, netns: Make
) -> None:
    name, path = netns()
    plugin.add(name, path)
    assert collect(plugin, **{VALID: []}).status == 0
    assert is_attached(machine, name)
    let_grow_old()
    assert collect(plugin, **{VALID: []}).status == 0
    assert not is_attached(machine, name)


def test_libcni_collects_by_its_cache_and_then_asks_the_plugin(
    machine: Machine, plugin: Plugin, netns: Make, runner: Callable[..., Runner]
) -> None:
    (kept, kept_path), (cached, cached_path), (leaked, leaked_path) = netns(), netns(), netns()
    libcni = runner()
    libcni.add(kept, kept_path)
    libcni.add(cached, cached_path)
    plugin.add(leaked, leaked_path)
    let_grow_old()
    libcni.collect([(kept, "eth0")])
    assert is_attached(machine, kept)
    assert not is_attached(machine, cached)
    assert not is_attached(machine, leaked)


# What the agent collects by itself


@pytest.mark.parametrize("how", ["gone", "another-at-its-path", "alive-without-a-path"])
def test_what_has_lost_its_namespace_is_collected(machine: Machine, plugin: Plugin, netns: Make, how: str) -> None:
    name, path = netns()
    before = machine.dump()
    ports = {"portMappings": [{"hostPort": 4098, "containerPort": 80}]}
    plugin.add(name, path, configuration=a_configuration(runtimeConfig=ports))
    if how == "alive-without-a-path":
        machine.spawn("sleep", "30", inside=name)
    machine.remove_netns(name)
    if how == "another-at-its-path":
        machine.make_netns(name)
    eventually(lambda: not is_attached(machine, name), within=20 * GRACE_S)
    machine.settles(before)


def test_a_namespace_that_is_there_is_never_collected(machine: Machine, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    plugin.add(name, path)
    time.sleep(3 * GRACE_S)
    assert is_attached(machine, name)


def test_c106_what_a_chain_never_deletes_is_collected(
    machine: Machine, netns: Make, runner: Callable[..., Runner], fake_plugin: Callable[..., Any]
) -> None:
    """DEL goes in reverse and stops at the first failure, so ours is never called (containerd issue 12130)."""
    name, path = netns()
    before = machine.dump()
    chain = runner({"type": "netagent"}, fake_plugin("broken", "exit 1"))
    with pytest.raises(PluginFailed, match="broken ADD"):
        chain.add(name, path)
    with pytest.raises(PluginFailed, match="broken DEL"):
        chain.delete(name, path)
    assert is_attached(machine, name)
    machine.remove_netns(name)
    eventually(lambda: not is_attached(machine, name), within=20 * GRACE_S)
    machine.settles(before)
