"""One agent for each host UUID, one host for each underlay address: the later one is refused and changes nothing."""

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import address, dump, netagent, pings, run, same
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

WAITS = "for it to end"


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=4)
    h1, _, _, h4 = lab.hosts
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "staticnet")
    eventually(lambda: "staticnet" in netagent(h4, "network", "ls").stdout)
    run(h1, "web", "--network", "staticnet")
    run(h4, "remote", "--network", "staticnet")
    eventually(lambda: pings(h4, "remote", address(h1, "web")))
    return lab


def _last_words(host: Host) -> str:
    assert not host.agent.running
    return host.last_words("agent")


def test_the_later_of_two_hosts_with_one_uuid_or_one_underlay_address_is_refused(lab: Lab) -> None:
    h1, clone, twin, h4 = lab.hosts
    before = dump(h1)
    for host in (clone, twin):
        host.agent.stop()
    clone.path("/var/lib/netagent/host-id").write_text(h1.path("/var/lib/netagent/host-id").read_text())
    # Not to be answered for on the wire: the first one's own traffic goes on.
    twin.run("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1")
    twin.run("ip", "address", "add", f"{h1.ip}/32", "dev", "lo")
    untouched = dump(clone), dump(twin)
    clone.agent.launch()
    twin.agent.launch(options=["--host-ip", str(h1.ip)])
    eventually(lambda: not clone.agent.running and not twin.agent.running, within=90)
    assert WAITS in clone.agent.log.read_text()
    assert f"another machine at {h1.ip} is host " in _last_words(clone)
    assert "empty /var/lib/netagent here" in _last_words(clone)
    assert f"has this host's underlay address {h1.ip}" in _last_words(twin)
    assert same(clone, untouched[0])
    assert same(twin, untouched[1])
    assert same(h1, before)
    assert pings(h4, "remote", address(h1, "web"))


@pytest.mark.parametrize("how", ["its agent killed", "its power cut"])
def test_a_host_that_comes_back_does_not_wait_for_its_own_lease(lab: Lab, how: str) -> None:
    h1, *_, h4 = lab.hosts
    if how == "its agent killed":
        h1.agent.kill()
    else:
        h1.power_off()
        h1.power_on()
    said_before = len(h1.agent.log.read_text())
    h1.agent.start()
    assert WAITS not in h1.agent.log.read_text()[said_before:]
    assert f"{h1.name} " in netagent(h4, "host", "ls").stdout
