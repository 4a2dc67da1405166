"""Names of containers, asked for by containers of two hosts."""

import time

import pytest

from netagent.lab.lab import Lab
from tests.support.dns import ask, data
from tests.support.hosts import address, inside, netagent, run
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

NETWORK = ("--network", "staticnet")


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2)
    h1, h2 = lab.hosts
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "staticnet")
    eventually(lambda: "staticnet" in netagent(h2, "network", "ls").stdout)
    run(h1, "web", *NETWORK, "--alias", "www", "--hostname", "front")
    run(h2, "client", *NETWORK)
    eventually(lambda: resolve(lab, "web"))
    return lab


def resolve(lab: Lab, name: str, container: str = "client", host: str = "h2") -> list[str]:
    """Return the IPv4 addresses that the C library of a container finds for ``name``."""
    found = inside(lab.host(host), container, "getent", "ahostsv4", name).stdout
    return sorted({line.split()[0] for line in found.splitlines()})


def test_a_container_finds_one_on_another_host_by_name(lab: Lab) -> None:
    web = address(lab.host("h1"), "web")
    assert resolve(lab, "web") == [web]
    assert inside(lab.host("h2"), "client", "ping", "-c", "1", "-W", "2", "web").returncode == 0


@pytest.mark.parametrize("name", ["www", "front", "web.staticnet", "WEB"])
def test_other_names_of_a_container_lead_to_it_too(lab: Lab, name: str) -> None:
    assert resolve(lab, name) == [address(lab.host("h1"), "web")]


def test_a_short_id_is_a_name(lab: Lab) -> None:
    identity = netagent(lab.host("h1"), "ps", "-q").stdout.split()[0]
    assert len(identity) == 12
    assert resolve(lab, identity) == [address(lab.host("h1"), "web")]


def test_a_name_can_be_found_as_soon_as_its_container_runs_and_not_any_more_once_it_is_gone(lab: Lab) -> None:
    """A command waits half a second for its names: on a busy machine they may come later now and then."""
    h2 = lab.host("h2")
    found_at_once = []
    for _ in range(5):
        run(h2, "brief", *NETWORK)
        found_at_once.append(resolve(lab, "brief") == [address(h2, "brief")])
        eventually(lambda: resolve(lab, "brief") == [address(h2, "brief")])
        netagent(h2, "rm", "-f", "brief")
        found_at_once.append(resolve(lab, "brief") == [])
        eventually(lambda: resolve(lab, "brief") == [])
    assert found_at_once.count(True) >= 5, found_at_once


def test_a_link_leads_to_a_container_on_another_host(lab: Lab) -> None:
    h2, web = lab.host("h2"), address(lab.host("h1"), "web")
    run(h2, "linker", *NETWORK, "--link", "web:far")
    eventually(lambda: resolve(lab, "far", "linker") == [web])
    assert "FAR_NAME=/linker/far" in inside(h2, "linker", "env").stdout
    netagent(h2, "rm", "-f", "linker")


def test_another_machine_gets_no_answer(lab: Lab) -> None:
    h1, h2 = lab.hosts
    netagent(h1, "network", "create", "--subnet", "10.79.0.0/24", "near")
    run(h1, "inner", "--network", "near")
    h2.run("ip", "route", "add", "10.79.0.0/24", "via", str(h1.ip))
    try:
        for how in ("udp", "tcp"):
            eventually(lambda how=how: data(ask(h1, "inner", "10.79.0.1", "inner", how=how)) == [address(h1, "inner")])
            assert ask(h2, "", "10.79.0.1", "inner", how=how, within=1) is None
    finally:
        h2.run("ip", "route", "del", "10.79.0.0/24")
        netagent(h1, "rm", "-f", "inner")


def test_names_are_answered_while_the_agent_is_killed_and_comes_back(lab: Lab) -> None:
    h2 = lab.host("h2")
    ask = "echo begun; for n in $(seq 40); do getent ahostsv4 web >/dev/null || echo lost; sleep 0.05; done; echo asked"
    flow = h2.popen("netagent", "exec", "client", "--", "sh", "-c", ask, stdout=-1)
    with flow:
        assert flow.stdout is not None
        assert flow.stdout.readline() == "begun\n"
        h2.agent.kill()
        h2.agent.start()
        said, _ = flow.communicate(timeout=200)
    assert said == "asked\n"


def test_the_names_of_a_host_stay_while_its_agent_is_stopped_for_a_while(lab: Lab) -> None:
    """Longer than the four seconds that names outlive a lease: one that is stopped lets its lease run out."""
    h1, h2 = lab.hosts[:2]
    ask = "echo begun; until read -t 0.1; do getent ahostsv4 web >/dev/null || echo lost; done; echo asked"
    with h2.popen("netagent", "exec", "-i", "client", "--", "bash", "-c", ask, stdin=-1, stdout=-1) as flow:
        assert flow.stdout is not None
        assert flow.stdout.readline() == "begun\n"
        h1.agent.stop()
        # Less than the ten seconds that are left of a lease at least, however slow the machine is.
        time.sleep(5)
        said, _ = flow.communicate("enough\n", timeout=60)
        h1.agent.start()
    assert said == "asked\n"
    assert resolve(lab, "web")


def test_the_names_of_a_host_that_dies_are_gone_in_twenty_seconds_and_back_with_it(lab: Lab) -> None:
    h1 = lab.host("h1")
    h1.agent.kill()
    try:
        assert resolve(lab, "web"), "at first it may only be restarting"
        # As long as the lease (15 s), and 4 s; the rest is for a busy machine.
        eventually(lambda: not resolve(lab, "web"), within=40)
    finally:
        h1.agent.start()
    eventually(lambda: resolve(lab, "web"))


def test_the_process_that_answers_may_do_nothing_else(lab: Lab) -> None:
    status = lab.host("h1").run("sh", "-c", "cat /proc/$(cat /run/netagent/dns.pid)/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["65534"] * 4
    assert fields["Gid"].split() == ["65534"] * 4
    assert fields["Groups"].strip() == ""
    assert fields["NoNewPrivs"] == "1"
    assert {name: fields[name] for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == dict.fromkeys(
        ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"), "0000000000000000"
    )


def test_another_process_takes_over_from_one_that_died(lab: Lab) -> None:
    h2 = lab.host("h2")
    before = h2.run("cat", "/run/netagent/dns.pid").stdout
    h2.run("kill", "-9", before.strip())
    eventually(lambda: h2.run("cat", "/run/netagent/dns.pid").stdout != before)
    eventually(lambda: resolve(lab, "web") == [address(lab.host("h1"), "web")])
