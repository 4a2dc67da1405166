"""What goes on while the agent, etcd or both are away, and what is mended when they are back."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import (
    address,
    dump,
    fetches,
    inspect,
    lost,
    netagent,
    pinging,
    pings,
    refusal,
    run,
    same,
    serve_name,
)
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

DEPLOY = Path(__file__).parents[2] / "deploy"
NOT_LONGER_THAN_S = 5.0
COMMAND_START_S = 20.0
"""What a loaded machine may need to start and end the command itself."""


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2)
    h1, h2 = lab.hosts
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "staticnet")
    eventually(lambda: "staticnet" in netagent(h2, "network", "ls").stdout)
    serve_name(h1, "web", "--network", "staticnet", "-p", "4000:80")
    run(h2, "remote", "--network", "staticnet")
    eventually(lambda: pings(h2, "remote", address(h1, "web")))
    return lab


def _endpoints(lab: Lab, host: int) -> set[str]:
    (details,) = json.loads(netagent(lab.hosts[host], "network", "inspect", "staticnet").stdout)
    return {endpoint["Name"] for endpoint in details["Containers"].values()}


def test_a_stopped_agent_leaves_the_data_path_and_finds_everything_as_it_was(lab: Lab) -> None:
    h1, h2 = lab.hosts
    before = dump(h1)
    h1.agent.stop()
    assert same(h1, before)
    assert pings(h2, "remote", "192.168.1.1", count=5)
    assert fetches(h2, f"http://{h1.ip}:4000/hostname", "web")
    h1.agent.start()
    assert same(h1, before)
    assert pings(h2, "remote", address(h1, "web"), count=3)


def test_what_others_change_while_the_agent_is_away_is_as_it_was_once_it_serves(lab: Lab) -> None:
    """Nobody tells it, neither outside nor inside a container: the one look that it takes must see all of it."""
    h1, h2 = lab.hosts
    inside = ("nsenter", f"--net={inspect(h1, 'web')['NetworkSettings']['SandboxKey']}")
    (own,) = json.loads(h1.run(*inside, "ip", "-j", "address", "show", "dev", "eth0").stdout)
    before, routes = dump(h1), h1.run(*inside, "ip", "route").stdout
    h1.agent.stop()
    h1.run(*inside, "ip", "address", "flush", "dev", "eth0")
    h1.run(*inside, "ip", "link", "set", "eth0", "mtu", "1200")
    h1.run("nft", "delete", "table", "bridge", "netagent")
    h1.run("ip", "route", "flush", "proto", "110")
    h1.agent.start()
    assert same(h1, before, within=0)
    (mended,) = json.loads(h1.run(*inside, "ip", "-j", "address", "show", "dev", "eth0").stdout)
    assert [a["local"] for a in mended["addr_info"] if a["family"] == "inet"] == [address(h1, "web")]
    assert mended["mtu"] == own["mtu"]
    assert h1.run(*inside, "ip", "route").stdout == routes
    assert pings(h2, "remote", address(h1, "web"))
    assert fetches(h2, f"http://{h1.ip}:4000/hostname", "web")


def test_no_packet_is_lost_over_a_restart_of_the_agent(lab: Lab) -> None:
    h1, h2 = lab.hosts
    target = address(h1, "web")
    with pinging(h2, "remote", target) as answered:
        h1.agent.restart()
        h2.agent.kill()
        h2.agent.start()
    assert not lost(answered)


def test_a_container_that_ends_while_the_agent_is_away_is_put_to_rest_at_its_start(lab: Lab) -> None:
    h1, _ = lab.hosts
    before = dump(h1)
    ends = ("sh", "-c", "trap 'exit 7' TERM; sleep infinity & wait")
    run(h1, "short", "--network", "staticnet", "-p", "4009:80", command=ends)
    pid = str(inspect(h1, "short")["State"]["Pid"])
    h1.agent.kill()
    # One that comes before the trap is laid is without effect.
    eventually(lambda: h1.run("kill", "-TERM", pid, check=False).returncode != 0)
    h1.agent.start()
    found = eventually(lambda: (state := inspect(h1, "short")["State"])["Status"] == "exited" and state)
    assert found["ExitCode"] == 7
    netagent(h1, "rm", "short")
    eventually(lambda: same(h1, before))


def test_containers_come_and_go_while_etcd_is_stopped(lab: Lab) -> None:
    h1, h2 = lab.hosts
    lab.etcd[0].stop()
    try:
        run(h1, "born", "--network", "staticnet", "-p", "4020:80")
        assert pings(h2, "remote", address(h1, "born"))
        netagent(h1, "rm", "-f", "born")
        run(h1, "stays", "--network", "staticnet")
        run(h2, "leaves", "--network", "staticnet")
        netagent(h2, "rm", "-f", "leaves")
    finally:
        lab.etcd[0].start()
    eventually(lambda: {"web", "remote", "stays"} == _endpoints(lab, 1))
    netagent(h1, "rm", "-f", "stays")
    eventually(lambda: {"web", "remote"} == _endpoints(lab, 1))


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_what_needs_the_store_says_so_within_five_seconds(lab: Lab, how: str) -> None:
    h1, _ = lab.hosts
    before = dump(h1)
    etcd = lab.etcd[0]
    (etcd.stop if how == "stopped" else etcd.pause)()
    try:
        for arguments in (
            ("network", "create", "--driver", "vxlan", "new"),
            ("run", "-d", "--network", "staticnet", "--ip", "192.168.0.9", "--", "sleep", "1"),
            ("network", "rm", "staticnet"),
        ):
            begun = time.monotonic()
            status = 125 if arguments[0] == "run" else 1
            words = refusal(h1, *arguments, status=status)
            assert time.monotonic() - begun < NOT_LONGER_THAN_S + COMMAND_START_S
            assert "store etcd://" in words or "active endpoints" in words
        begun = time.monotonic()
        run(h1, "meanwhile", "--network", "staticnet")
        netagent(h1, "rm", "-f", "meanwhile")
        assert time.monotonic() - begun < NOT_LONGER_THAN_S + 2 * COMMAND_START_S
    finally:
        (etcd.start if how == "stopped" else etcd.resume)()
    eventually(lambda: same(h1, before))


def test_an_agent_that_starts_while_etcd_is_down_keeps_its_peers_and_serves(lab: Lab) -> None:
    h1, h2 = lab.hosts
    before = dump(h2)
    eventually(lambda: h2.run("test", "-s", "/var/lib/netagent/cluster.snapshot", check=False).returncode == 0)
    lab.etcd[0].stop()
    try:
        h2.agent.restart()
        assert same(h2, before)
        assert pings(h2, "remote", address(h1, "web"))
        run(h2, "late", "--network", "staticnet")
        assert eventually(lambda: pings(h2, "late", address(h1, "web")))
        netagent(h2, "rm", "-f", "late")
    finally:
        lab.etcd[0].start()
    eventually(lambda: {"web", "remote"} == _endpoints(lab, 0))
    assert same(h2, before)


def test_a_wiped_store_tears_nothing_down(lab: Lab) -> None:
    h1, h2 = lab.hosts
    before = dump(h2)
    etcd = lab.etcd[0]
    saved = etcd.run("etcdctl", "--endpoints", etcd.url, "get", "--prefix", "/netagent/", "-w", "json").stdout
    etcd.run("etcdctl", "--endpoints", etcd.url, "del", "--prefix", "/netagent/")
    try:
        time.sleep(1.0)
        assert pings(h2, "remote", address(h1, "web"))
        assert "staticnet" in netagent(h2, "network", "ls").stdout
        kept = dump(h2)
        assert kept["links"] == before["links"]
        h2.agent.kill()
        h2.agent.start()
        assert dump(h2)["links"] == before["links"]
        assert pings(h2, "remote", address(h1, "web"))
    finally:
        _restore(etcd, saved)
    eventually(lambda: same(h2, before))
    eventually(lambda: pings(h2, "remote", address(h1, "web")))


def test_a_wiped_store_is_rebuilt_from_the_hosts(lab: Lab) -> None:
    h1, h2 = lab.hosts
    run(h1, "pinned", "--network", "staticnet", "--ip", "192.168.0.40")
    eventually(lambda: pings(h2, "remote", "192.168.0.40"))
    before = dump(h1), dump(h2)
    etcd = lab.etcd[0]
    ctl = ("etcdctl", "--endpoints", etcd.url)
    eventually(lambda: "pinned" in _endpoints(lab, 1))

    def kept() -> set[str]:
        found = etcd.run(*ctl, "get", "--prefix", "/netagent/v1/", "--keys-only").stdout.split()
        return {key for key in found if "/live/" not in key}

    def is_as_before() -> bool:
        assert kept() ^ keys == set()
        return True

    # What an etcd had received when it was frozen may have been carried out after all, though it was refused here.
    netagent(h1, "network", "rm", "-f", "new")
    # What was removed before leaves the store after the answer.
    eventually(lambda: sum("/endpoints/" in key for key in kept()) == 3)
    keys = kept()
    etcd.run(*ctl, "del", "--prefix", "/netagent/")
    h2.agent.kill()
    h2.agent.start()
    assert netagent(h2, "store", "rebuild").stdout == "staticnet\n"
    eventually(is_as_before)
    assert netagent(h1, "store", "rebuild").stdout == ""
    eventually(lambda: same(h1, before[0]) and same(h2, before[1]))
    run(h2, "after", "--network", "staticnet")
    assert eventually(lambda: pings(h2, "after", "192.168.0.40") and pings(h2, "after", address(h1, "web")))
    netagent(h2, "rm", "-f", "after")
    netagent(h1, "rm", "-f", "pinned")


def test_a_store_restored_without_a_hosts_block_gets_it_back(lab: Lab) -> None:
    _, h2 = lab.hosts
    before = dump(h2)
    etcd = lab.etcd[0]
    keys = etcd.run("etcdctl", "--endpoints", etcd.url, "get", "--prefix", "/netagent/v1/blocks/", "--keys-only").stdout
    (key,) = [key for key in keys.split() if key.endswith("/192.168.2.0-24")]
    etcd.run("etcdctl", "--endpoints", etcd.url, "del", key)
    eventually(lambda: key in etcd.run("etcdctl", "--endpoints", etcd.url, "get", key).stdout)
    assert same(h2, before)


def _restore(etcd: object, saved: str) -> None:
    import base64

    for entry in json.loads(saved)["kvs"]:
        key, value = (base64.b64decode(entry[name]).decode() for name in ("key", "value"))
        etcd.run("etcdctl", "--endpoints", etcd.url, "put", key, stdin=value)  # type: ignore[attr-defined]


def test_rules_and_routes_that_others_remove_come_back(lab: Lab) -> None:
    h1, h2 = lab.hosts
    before = dump(h1)
    h1.run("nft", "flush", "ruleset")
    eventually(lambda: fetches(h2, f"http://{h1.ip}:4000/hostname", "web"))
    tunnel = next(word for word in before["routes"].split() if word.startswith("nav"))
    h1.run("ip", "route", "flush", "dev", tunnel, "proto", "110")
    eventually(lambda: dump(h1)["routes"] == before["routes"])
    h1.run("ip", "link", "delete", tunnel)
    eventually(lambda: pings(h2, "remote", address(h1, "web")))
    bridge = tunnel.replace("nav", "nab")
    h1.run("ip", "link", "delete", bridge)
    eventually(lambda: pings(h2, "remote", address(h1, "web")))
    eventually(lambda: fetches(h2, f"http://{h1.ip}:4000/hostname", "web"))
    settings = ("net.ipv4.ip_forward", f"net.ipv4.conf.{bridge}.proxy_arp")
    h1.run("sysctl", "-qw", *(f"{setting}=0" for setting in settings))
    eventually(lambda: h1.run("sysctl", "-n", *settings).stdout.split() == ["1", "1"])
    eventually(lambda: same(h1, before))


def test_a_mac_that_others_change_is_put_back_and_traffic_goes_on(lab: Lab) -> None:
    h1, h2 = lab.hosts
    before, target = dump(h1), address(h2, "remote")
    for link in _interfaces(h1):
        # Some may be lost, those on their way while the address is another one; pings sent afterwards are answered.
        with pinging(h1, "web", target):
            mac = h1.run("cat", f"/sys/class/net/{link}/address").stdout
            h1.run("ip", "link", "set", link, "address", "02:00:00:00:00:99")
            eventually(lambda: h1.run("cat", f"/sys/class/net/{link}/address").stdout == mac)  # noqa: B023
    assert same(h1, before)


def test_udev_and_networkd_leave_our_interfaces_to_the_agent(lab: Lab) -> None:
    """With the installed files, although the administrator's are for every interface; without them they do not."""
    h1, _ = lab.hosts
    before, links = dump(h1), _interfaces(h1)
    configuration = h1.path("/run/systemd/network")
    configuration.mkdir(parents=True)
    (configuration / "50-all.network").write_text("[Match]\nName=na*\n[Network]\nAddress=203.0.113.7/24\n")
    # Of links that udev has not seen networkd waits to hear.
    h1.path("/run/udev/data").mkdir(parents=True)
    for link in links:
        index = h1.run("cat", f"/sys/class/net/{link}/ifindex").stdout.strip()
        h1.path(f"/run/udev/data/n{index}").write_text("I:1\n")
    try:
        assert "50-all.network" in _networkd_on(h1, links[0])
        for file in (DEPLOY / "network").glob("10-netagent.*"):
            shutil.copy(file, configuration)
        for link in links:
            assert "Unmanaging" in _networkd_on(h1, link)
            seen = h1.run("udevadm", "test-builtin", "net_setup_link", f"/sys/class/net/{link}").stdout
            assert "/10-netagent.link" in seen
    finally:
        shutil.rmtree(configuration)
        shutil.rmtree(h1.path("/run/udev"))
    eventually(lambda: same(h1, before))


def _interfaces(host: Host) -> list[str]:
    """Return the names of a host's bridge, tunnel and container's port."""
    links = host.run("ls", "/sys/class/net").stdout.split()
    found = [link for prefix in ("nab", "nav", "nae") for link in links if link.startswith(prefix)]
    assert len(found) == 3
    return found


def _networkd_on(host: Host, link: str) -> str:
    """Return what systemd-networkd says that it does with a link once it has found a configuration for it."""
    program = host.popen(
        "/lib/systemd/systemd-networkd", env={"SYSTEMD_LOG_LEVEL": "debug"}, stdout=subprocess.DEVNULL, stderr=-1
    )
    with program:
        assert program.stderr is not None
        try:
            for line in program.stderr:
                if f"{link}: Configuring with" in line or f"{link}: Unmanaging" in line:
                    return line
        finally:
            program.terminate()
            program.stderr.read()
    raise AssertionError("systemd-networkd ended")


def test_foreign_rules_routes_and_links_are_left_alone(lab: Lab) -> None:
    h1, _ = lab.hosts
    h1.run("nft", "add table ip theirs; add chain ip theirs c; add rule ip theirs c counter")
    h1.run("ip", "link", "add", "na-theirs", "type", "bridge")
    h1.run("ip", "route", "add", "203.0.113.0/24", "dev", "lo")
    try:
        theirs = dump(h1)
        run(h1, "guest", "--network", "staticnet", "-p", "4030:80")
        h1.agent.restart()
        netagent(h1, "rm", "-f", "guest")
        eventually(lambda: same(h1, theirs))
    finally:
        h1.run("nft", "delete", "table", "ip", "theirs")
        h1.run("ip", "link", "delete", "na-theirs")
        h1.run("ip", "route", "delete", "203.0.113.0/24")
