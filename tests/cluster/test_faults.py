"""Faults of hosts, of the path to etcd, of etcd's history and of the clock: nothing is lost, nobody is disturbed.

What happens when several come at once, over many containers, is in ``test_history.py``.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from netagent.store import keys
from tests.support.hosts import address, dump, inspect, netagent, pings, refusal, run, same, serve_name
from tests.support.lab import MakeLab, eventually
from tests.support.nemesis import CUT_OFF, compact, paused_agent, rules_of_nemesis

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
FIXED = "192.168.0.9"


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2)
    h1, h2 = lab.hosts
    for host in lab.hosts:
        # The first one makes /run/netns a mount, which stays.
        host.run("sh", "-c", "ip netns add first && ip netns delete first")
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "staticnet")
    eventually(lambda: netagent(h2, "network", "inspect", "staticnet", check=False).returncode == 0)
    run(h1, "near", "--network", "staticnet")
    serve_name(h2, "far", "--network", "staticnet", "--ip", FIXED, "-p", "4000:80")
    run(h2, "plain", "--network", "staticnet")
    eventually(lambda: pings(h1, "near", FIXED))
    eventually(lambda: len(_records(lab, keys.ENDPOINTS)) == 3)
    return lab


def _etcdctl(lab: Lab, *arguments: str) -> str:
    etcd = lab.etcd[0]
    return etcd.run("etcdctl", "--endpoints", etcd.url, *arguments).stdout


def _records(lab: Lab, prefix: str = keys.ROOT) -> dict[str, str]:
    """Return what the store holds for good."""
    lines = _etcdctl(lab, "get", "--prefix", prefix).splitlines()
    found = dict(zip(lines[::2], lines[1::2], strict=True))
    return {key: value for key, value in found.items() if not key.startswith((keys.LIVE, keys.GENERATION))}


def _same_records(lab: Lab, stored: dict[str, str]) -> bool:
    assert _records(lab) == stored
    return True


def _status(host: Host, name: str) -> str:
    hosts = [json.loads(line) for line in netagent(host, "host", "ls", "--format", "json").stdout.splitlines()]
    return next(str(found["Status"]) for found in hosts if found["Name"] == name)


def _id(host: Host) -> str:
    return str(json.loads(netagent(host, "info", "--format", "json").stdout)["ID"])


def _attach(host: Host, name: str, *options: str) -> None:
    host.run("ip", "netns", "add", name)
    netagent(host, "attach", "--netns", f"/run/netns/{name}", "--name", name, "--network", "staticnet", *options)


def _detach(host: Host, name: str) -> None:
    netagent(host, "detach", name)
    host.run("ip", "netns", "delete", name)


def _given(host: Host, name: str) -> str:
    (word,) = [w for w in host.run("ip", "-n", name, "-4", "-br", "address", "show", "eth0").stdout.split() if "/" in w]
    return word.partition("/")[0]


def test_an_attachment_whose_whole_life_etcd_missed_leaves_no_trace_in_it(lab: Lab) -> None:
    h1, h2 = lab.hosts
    before, stored = dump(h1), _records(lab)
    lab.etcd[0].stop()
    try:
        _attach(h1, "brief", "-p", "4010:80")
        eventually(lambda: pings(h2, "far", _given(h1, "brief")))
        _detach(h1, "brief")
        _attach(h1, "longer")
        h1.agent.kill()
        h1.agent.start()
        _detach(h1, "longer")
    finally:
        lab.etcd[0].start()
    eventually(lambda: '"StoreConnected": true' in netagent(h1, "info", "--format", "json").stdout)
    eventually(lambda: same(h1, before))
    eventually(lambda: _same_records(lab, stored))


def test_both_sides_of_a_partition_attach_and_agree_afterwards(lab: Lab) -> None:
    h1, h2 = lab.hosts
    names = [f"both{number}" for number in range(2)]
    with rules_of_nemesis(h2, CUT_OFF):
        for name in names:
            _attach(h1, name)
            _attach(h2, name)
        # The claim lies with the store: one side has it, the other is told so.
        _attach(h1, "wanted", "--ip", "192.168.0.20")
        h2.run("ip", "netns", "add", "wanted")
        attach = ("attach", "--netns", "/run/netns/wanted", "--name", "wanted", "--network", "staticnet")
        assert "does not answer" in refusal(h2, *attach, "--ip", "192.168.0.20")
    eventually(lambda: '"StoreConnected": true' in netagent(h2, "info", "--format", "json").stdout)
    assert "Address already in use: 192.168.0.20" in refusal(h2, *attach, "--ip", "192.168.0.20")
    h2.run("ip", "netns", "delete", "wanted")
    given = [_given(host, name) for host in lab.hosts for name in names]
    assert len(set(given)) == len(given)
    for other in (*given, "192.168.0.20"):
        eventually(lambda other=other: pings(h1, "near", other))
        eventually(lambda other=other: pings(h2, "far", other))
    for name in names:
        _detach(h1, name)
        _detach(h2, name)
    _detach(h1, "wanted")
    eventually(lambda: not any("wanted" in v or "both" in v for v in _records(lab).values()))


def test_a_host_whose_agent_stood_still_beyond_its_lease_keeps_all_it_had(lab: Lab) -> None:
    h1, h2 = lab.hosts
    before, seen, stored = dump(h2), dump(h1), _records(lab)
    block_address = address(h2, "plain").rpartition(".")[0] + ".77"
    live = f"{keys.LIVE}{_id(h2)}"
    with paused_agent(h2):
        eventually(lambda: not _etcdctl(lab, "get", live), within=40)
        eventually(lambda: _status(h1, "h2") != "Ready")
        assert pings(h1, "near", FIXED)
        assert same(h1, seen)
        for taken in (FIXED, block_address):
            refused = refusal(h1, "run", "-d", "--network", "staticnet", "--ip", taken, "--", "true", status=125)
            assert "h2" in refused
    eventually(lambda: _etcdctl(lab, "get", live))
    eventually(lambda: _status(h1, "h2") == "Ready")
    eventually(lambda: same(h2, before))
    assert same(h1, seen)
    eventually(lambda: _same_records(lab, stored))


def test_changes_are_seen_through_a_storm_of_compactions(lab: Lab) -> None:
    h1, h2 = lab.hosts
    before, seen = dump(h2), dump(h1)
    with rules_of_nemesis(h2, CUT_OFF):
        for number in range(5):
            netagent(h1, "network", "create", "--driver", "vxlan", f"storm{number}")
            _attach(h1, f"storm{number}", "--ip", f"192.168.0.{100 + number}")
            compact(lab)
        netagent(h1, "network", "rm", "storm0")
        _detach(h1, "storm1")
        compact(lab)
    listed = ("network", "ls", "-f", "name=storm", "--format", "{{.Name}}")
    eventually(lambda: netagent(h2, *listed).stdout.split() == [f"storm{number}" for number in range(1, 5)])

    def routed() -> list[bool]:
        routes = h2.run("ip", "route").stdout
        return [f"192.168.0.{100 + number} " in routes for number in range(5)]

    eventually(lambda: routed() == [True, False, True, True, True])
    for number in range(1, 5):
        netagent(h1, "network", "rm", f"storm{number}")
        compact(lab)
    for number in (0, 2, 3, 4):
        _detach(h1, f"storm{number}")
        compact(lab)
    eventually(lambda: same(h2, before))
    eventually(lambda: same(h1, seen))


@contextmanager
def _clock_of(host: Host) -> Iterator[str]:
    """Run a host's agent by a clock of its own; yield the file that says how far it is from the true one."""
    setting = "/run/clock"
    host.run("sh", "-c", f"echo +0 > {setting}")
    env = {
        "LD_PRELOAD": FAKETIME,
        "FAKETIME_TIMESTAMP_FILE": setting,
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    host.agent.stop()
    host.agent.start(env=env)
    try:
        yield setting
    finally:
        host.agent.restart()


def test_jumps_of_the_clock_disturb_nothing(lab: Lab) -> None:
    h1, h2 = lab.hosts
    before, stored = dump(h2), _records(lab)
    held = f"{keys.LIVE}{_id(h2)}"
    earlier_life = _etcdctl(lab, "get", held)
    with _clock_of(h2) as clock:
        eventually(lambda: _etcdctl(lab, "get", held) not in ("", earlier_life))
        first = _etcdctl(lab, "get", held, "-w", "fields")
        had: list[str] = []
        for number, jump in enumerate(("+10y", "-10y")):
            h2.run("sh", "-c", f"echo {jump} > {clock}")
            name = f"jump{number}"
            run(h2, name, "--network", "staticnet")
            made = time.strptime(inspect(h2, name)["Created"][:10], "%Y-%m-%d")
            assert abs(made.tm_year - time.gmtime().tm_year) in (9, 10)
            had.append(address(h2, name))
            eventually(lambda: pings(h1, "near", had[-1]))
            netagent(h1, "network", "create", "--driver", "vxlan", name)
            eventually(lambda name=name: name in netagent(h2, "network", "ls").stdout)
            if number % 2:
                netagent(h2, "rm", "-f", name, f"jump{number - 1}")
        assert len({*had, address(h2, "plain"), FIXED}) == len(had) + 2
        # It neither thought its lease to be over nor forgot to renew it: the key is the one of the start.
        assert _etcdctl(lab, "get", held, "-w", "fields").splitlines()[3:] == first.splitlines()[3:]
    for number in range(2):
        netagent(h1, "network", "rm", f"jump{number}")
    eventually(lambda: same(h2, before))
    eventually(lambda: _same_records(lab, stored))


def test_a_host_that_lost_power_comes_back_to_what_was_its_own(lab: Lab) -> None:
    """The last test of this file: the other ones use h2 as it was before."""
    h1, h2 = lab.hosts
    _attach(h2, "runtimes")
    seen, blocks = dump(h1), _records(lab, keys.BLOCKS)
    h2.power_off()
    run(h1, "meanwhile", "--network", "staticnet")
    words = refusal(h1, "run", "-d", "--network", "staticnet", "--ip", FIXED, "--", "true", status=125)
    assert f"Address already in use: {FIXED}" in words
    h2.power_on()
    h2.agent.start()
    for name in ("far", "plain"):
        state = inspect(h2, name)["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 255)
    assert refusal(h2, "inspect", "runtimes", output="[]\n").startswith("No such object: runtimes")
    netagent(h2, "start", "far", "plain")
    assert address(h2, "far") == FIXED
    assert address(h2, "plain") not in {address(h1, "near"), address(h1, "meanwhile")}
    eventually(lambda: pings(h1, "near", FIXED))
    eventually(lambda: pings(h2, "plain", address(h1, "meanwhile")))
    netagent(h1, "rm", "-f", "meanwhile")
    eventually(lambda: _records(lab, keys.BLOCKS) == blocks)
    eventually(lambda: same(h1, seen))
    eventually(lambda: not any("runtimes" in value for value in _records(lab, keys.ENDPOINTS).values()))
