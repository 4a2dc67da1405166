"""Blocks given in advance and given back: reserve, release, drain."""

import json

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import address, netagent, pings, refusal, run
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2)
    h1, h2 = lab.hosts
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "staticnet")
    eventually(lambda: "staticnet" in netagent(h2, "network", "ls").stdout)
    return lab


def _blocks(of: Host, name: str) -> dict[str, str]:
    (details,) = json.loads(netagent(of, "host", "inspect", name).stdout)
    return {block["Prefix"]: block["State"] for block in details["Blocks"]}


def test_a_reserved_block_serves_its_host_while_etcd_is_down(lab: Lab) -> None:
    h1, h2 = lab.hosts
    assert (
        netagent(h1, "host", "reserve", "--block", "192.168.77.0/24", "h2", "staticnet").stdout == "192.168.77.0/24\n"
    )
    refused = refusal(h2, "host", "reserve", "--block", "192.168.77.0/24", "h1", "staticnet")
    assert refused.startswith("block 192.168.77.0/24 of network staticnet is held by another host")
    assert "is no block of network" in refusal(h1, "host", "reserve", "--block", "192.168.0.0/24", "h1", "staticnet")
    eventually(lambda: _blocks(h2, "h2") == {"192.168.77.0/24": "confirmed"})
    lab.etcd[0].stop()
    try:
        run(h2, "early", "--network", "staticnet")
        assert address(h2, "early").startswith("192.168.77.")
    finally:
        lab.etcd[0].start()


def test_a_released_block_goes_when_it_is_empty_and_never_before(lab: Lab) -> None:
    h1, h2 = lab.hosts
    run(h1, "web", "--network", "staticnet")
    netagent(h1, "host", "reserve", "--release", "h2", "staticnet")
    eventually(lambda: _blocks(h2, "h2") == {"192.168.77.0/24": "draining"})
    run(h2, "late", "--network", "staticnet")
    assert not address(h2, "late").startswith("192.168.77.")
    assert eventually(lambda: pings(h1, "web", address(h2, "early")))
    assert "which is being drained" in refusal(
        h2, "run", "-d", "--network", "staticnet", "--ip", "192.168.77.9", "--", "true", status=125
    )
    netagent(h2, "rm", "-f", "early")
    eventually(lambda: "192.168.77.0/24" not in _blocks(h1, "h2"))
    h2.agent.kill()
    h2.agent.start()
    assert len(_blocks(h2, "h2")) == 1
    assert eventually(lambda: pings(h1, "web", address(h2, "late")))


def test_a_drained_host_gets_no_containers_and_ends_without_blocks(lab: Lab) -> None:
    h1, h2 = lab.hosts
    run(h2, "fixed", "--network", "staticnet", "--ip", "192.168.0.9")
    netagent(h1, "host", "drain", "h2")
    eventually(lambda: set(_blocks(h2, "h2").values()) == {"draining"})
    said = refusal(h2, "run", "-d", "--network", "staticnet", "--", "true", status=125)
    assert said.startswith("host h2 is being drained")
    assert pings(h1, "web", address(h2, "late"))
    netagent(h2, "rm", "-f", "late")
    eventually(lambda: '"late"' not in netagent(h1, "host", "inspect", "h2").stdout)
    # The way to a fixed address is by the block, though it lies outside.
    assert pings(h1, "web", "192.168.0.9")
    assert set(_blocks(h1, "h2").values()) == {"draining"}
    netagent(h2, "rm", "-f", "fixed")
    eventually(lambda: _blocks(h1, "h2") == {})
    netagent(h1, "host", "drain", "--stop", "h2")
    eventually(
        lambda: netagent(h2, "run", "-d", "--network", "staticnet", "--", "sleep", "9", check=False).returncode == 0
    )
