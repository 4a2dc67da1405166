"""Results of ADD in every version of the specification."""

from typing import Any

import pytest

from netagent.api.cni_config import VERSIONS
from netagent.api.cni_error import CniError
from netagent.api.cni_result import convert_result, render_result
from netagent.model.endpoint import Endpoint
from netagent.model.network import Network
from netagent.plan.names import bridge_name, veth_name
from tests.support.world import H1, LOCALNET, a_local_network, an_endpoint

SANDBOX = "/var/run/netns/../netns/c1"


def dual_stack() -> tuple[Endpoint, Network]:
    network = a_local_network("10.1.0.0/16", "fd00:1::/64")
    return an_endpoint("10.1.0.5", "fd00:1::5", network=LOCALNET), network


def result(version: str, previous: dict[str, Any] | None = None) -> dict[str, Any]:
    return convert_result(render_result(*dual_stack(), H1, SANDBOX), version, previous)


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_the_first_versions_have_one_object_a_family(version: str) -> None:
    assert result(version) == {
        "cniVersion": version,
        "dns": {"nameservers": ["10.1.0.1", "fd00:1::1"]},
        "ip4": {"ip": "10.1.0.5/16", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]},
        "ip6": {"ip": "fd00:1::5/64", "gateway": "fd00:1::1", "routes": [{"dst": "::/0", "gw": "fd00:1::1"}]},
    }


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0"])
def test_the_middle_versions_name_the_family_of_an_address(version: str) -> None:
    assert result(version)["ips"] == [
        {"version": "4", "interface": 2, "address": "10.1.0.5/16", "gateway": "10.1.0.1"},
        {"version": "6", "interface": 2, "address": "fd00:1::5/64", "gateway": "fd00:1::1"},
    ]


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_the_new_versions_do_not(version: str) -> None:
    endpoint, network = dual_stack()
    answer = result(version)
    assert answer["cniVersion"] == version
    assert answer["ips"] == [
        {"interface": 2, "address": "10.1.0.5/16", "gateway": "10.1.0.1"},
        {"interface": 2, "address": "fd00:1::5/64", "gateway": "fd00:1::1"},
    ]
    assert answer["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "::/0", "gw": "fd00:1::1"}]
    assert [interface["name"] for interface in answer["interfaces"]] == [
        bridge_name(network),
        veth_name(endpoint.id),
        "eth0",
    ]
    assert answer["dns"] == {"nameservers": ["10.1.0.1", "fd00:1::1"]}


@pytest.mark.parametrize("version", VERSIONS[2:])
def test_the_sandbox_is_written_as_the_runtime_wrote_it(version: str) -> None:
    bridge, veth, inside = result(version)["interfaces"]
    assert inside["sandbox"] == SANDBOX
    assert inside["mac"] == dual_stack()[0].mac
    assert "sandbox" not in bridge
    assert "sandbox" not in veth


@pytest.mark.parametrize("version", VERSIONS)
def test_an_internal_network_gives_no_default_route(version: str) -> None:
    endpoint, _ = dual_stack()
    network = a_local_network("10.1.0.0/16", "fd00:1::/64", name="closed")
    closed = type(network)(
        id=network.id, name=network.name, driver="bridge", scope=network.scope, subnets=network.subnets, internal=True
    )
    assert "0.0.0.0/0" not in str(convert_result(render_result(endpoint, closed, H1, SANDBOX), version))


PREVIOUS = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "lo", "x": 1}, {"name": "eth9"}],
    "ips": [{"interface": 1, "address": "10.9.0.1/24"}],
    "routes": None,
    "dns": {"nameservers": ["10.9.0.2"]},
    "vendor": {"kept": True},
}


def test_a_chained_result_is_added_to_what_was_there() -> None:
    answer = result("1.0.0", PREVIOUS)
    assert answer["interfaces"][:2] == PREVIOUS["interfaces"]
    assert len(answer["interfaces"]) == 5
    assert answer["ips"][0] == {"interface": 1, "address": "10.9.0.1/24"}
    assert {answer["interfaces"][ip["interface"]]["name"] for ip in answer["ips"][1:]} == {"eth0"}
    assert answer["routes"][0]["dst"] == "0.0.0.0/0"
    assert answer["dns"] == {"nameservers": ["10.9.0.2"]}
    assert answer["vendor"] == {"kept": True}


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_a_chained_result_of_the_first_versions_keeps_what_it_does_not_know(version: str) -> None:
    answer = result(version, {"dns": {"nameservers": ["10.9.0.2"]}, "ip4": {"ip": "10.9.0.1/24"}})
    assert answer["dns"] == {"nameservers": ["10.9.0.2"]}
    assert answer["ip4"]["ip"] == "10.1.0.5/16"


@pytest.mark.parametrize("key", ["interfaces", "ips", "routes"])
def test_a_previous_result_of_another_shape_is_invalid(key: str) -> None:
    with pytest.raises(CniError) as refusal:
        result("1.0.0", {key: {"a": 1}})
    assert refusal.value.code == 7
