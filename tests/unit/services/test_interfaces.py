from dataclasses import replace

import pytest

from netagent.errors import AlreadyExists, InvalidRequest
from netagent.model.network import Network
from netagent.services.interfaces import choose_interfaces
from netagent.services.network_texts import NetworkText
from tests.support.world import a_local_network

ETH = a_local_network()
NET = replace(ETH, interface_prefix="net")


def _names(*networks: Network, asked: tuple[str, ...] = (), **rest: object) -> tuple[str, ...]:
    names = (*asked, *[""] * len(networks))[: len(networks)]
    return choose_interfaces([NetworkText(name="x", interface=name) for name in names], networks, **rest)  # type: ignore[arg-type]


def test_interfaces_are_numbered_by_the_prefix_of_their_network() -> None:
    assert _names(ETH, ETH, ETH) == ("eth0", "eth1", "eth2")
    assert _names(ETH, NET, ETH, NET) == ("eth0", "net0", "eth1", "net1")


def test_a_name_that_is_asked_for_takes_a_number_too() -> None:
    assert _names(ETH, ETH, first="net1") == ("net1", "eth1")
    assert _names(ETH, ETH, asked=("eth1",)) == ("eth1", "eth2")
    assert _names(ETH, ETH, asked=("", "eth0")) == ("eth1", "eth0")


def test_what_is_in_use_is_passed_over_or_refused() -> None:
    assert _names(ETH, used=("eth0", "eth2")) == ("eth1",)
    for names in (("eth0",), ("lo",)):
        with pytest.raises(AlreadyExists, match=f"interface {names[0]} is there already"):
            _names(ETH, asked=names, used=("eth0",))
    with pytest.raises(AlreadyExists, match="interface a is there already"):
        _names(ETH, ETH, asked=("a", "a"))
    with pytest.raises(InvalidRequest, match="invalid interface name"):
        _names(ETH, asked=("a/b",))
