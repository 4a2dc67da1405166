"""Requests of any content: understood, or refused with what prints as one line, and then nothing has changed."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from netagent.errors import InvalidRequest, NetagentError
from netagent.firewall import publish, spoof
from netagent.model.endpoint import Endpoint, EndpointAddress
from netagent.model.ids import ContainerId, EndpointId
from netagent.services.interfaces import choose_interfaces
from netagent.services.network_options import parse_options
from netagent.services.network_texts import split_networks
from netagent.services.requests import Connection, NetworkChange, NewNetwork
from netagent.services.wanted import parse_wanted
from netagent.store.endpoint_records import decode_endpoint, encode_endpoint
from tests.support.agent import Agent
from tests.support.world import a_local_network

_T = TypeVar("_T")

FEW = settings(max_examples=40)
NETWORK = a_local_network("10.5.0.0/24", "fd05::/64")


def odd(*usual: str) -> st.SearchStrategy[str]:
    """Return usual texts, odd ones, and usual ones with something odd in them."""
    strange = st.one_of(st.text(max_size=12), st.sampled_from(["", "\n", "a b", "*", "..", "-", "=", ",", "é", "\x7f"]))
    mixed = st.tuples(st.sampled_from(usual), strange).map("".join)
    return st.sampled_from([*[st.sampled_from(usual)] * 6, strange, mixed]).flatmap(lambda chosen: chosen)


def several(texts: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(texts, max_size=2).map(tuple)


def pairs(keys: st.SearchStrategy[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, str]]:
    return st.dictionaries(keys, values, max_size=2)


OPTIONS = pairs(
    odd("mtu", "icc", "masquerade", "bridge", "interface_prefix", "masquerade_except", "host_ipv4", "underlay"),
    odd("1400", "true", "false", "nab1", "eth", "10.0.0.0/8", "192.0.2.1", "ipv6"),
)
NETWORKS = st.builds(
    NewNetwork,
    name=odd("app", "app2", "bridge"),
    driver=odd("bridge", "bridge", "vxlan", "route", "gre"),
    subnets=several(odd("10.5.0.0/24", "fd05::/64", "10.5.0.0/16", "198.18.0.0/24")),
    gateways=several(odd("10.5.0.1", "fd05::1")),
    ip_ranges=several(odd("10.5.0.0/28", "10.5.0.128/25")),
    aux_addresses=pairs(odd("router"), odd("10.5.0.9", "fd05::9")),
    host_prefix=st.none() | st.integers(-1, 129),
    ipv4=st.none() | st.booleans(),
    ipv6=st.booleans(),
    internal=st.booleans(),
    options=OPTIONS,
    labels=pairs(odd("tier"), odd("db")),
)
CHANGES = st.builds(
    NetworkChange,
    name=st.just("kept"),
    driver=st.sampled_from(["", "bridge", "vxlan", "x"]),
    labels=pairs(odd("tier"), odd("db")),
    removed_labels=several(odd("tier")),
    options=OPTIONS,
    subnets=several(odd("10.6.0.0/24", "fd06::/64", "10.5.0.0/24")),
    gateways=several(odd("10.6.0.9")),
    removed_subnets=several(odd("10.5.0.0/24", "10.7.0.0/24")),
)
CONNECTIONS = st.builds(
    Connection,
    networks=st.lists(
        odd("app", "name=app,ip=10.5.0.7", "name=app,interface=x", "name=app,alias=*.db,link-local-ip=fe80::8"),
        min_size=1,
        max_size=2,
    ).map(tuple),
    addresses=several(odd("10.5.0.6", "fd05::6", "10.9.0.1")),
    mac=odd("", "02:00:00:00:00:01"),
    aliases=several(odd("db", "*.db")),
    publish=several(odd("80:80", "80", "8000-8001:80-81/udp", "80:80@10.0.0.0/8")),
    expose=several(odd("80", "1-3/udp")),
    publish_all=st.booleans(),
    rate_in=odd("", "10mbit"),
    gw_priority=st.integers(-(2**33), 2**33),
    link_local=several(odd("169.254.8.8", "fe80::8")),
)


def refusal_is_one_line(error: NetagentError) -> None:
    assert error.message
    # What the command line does to an error, cli/output.py: it must be left with words.
    assert " ".join(str(error).splitlines()).strip()


@FEW
@given(request=NETWORKS)
async def test_a_network_is_made_and_goes_without_trace_or_is_refused(agent: Agent, request: NewNetwork) -> None:
    before = agent.picture()
    try:
        network = await agent.networks.create(request)
    except NetagentError as error:
        refusal_is_one_line(error)
    else:
        assert agent.networks.find(network.name) == network
        async for _ in agent.network_removal.remove(network.name):
            pass
    after = agent.picture()
    assert {k: v for k, v in after.records.items() if "generation" not in k} == {
        k: v for k, v in before.records.items() if "generation" not in k
    }
    assert after.kernel == before.kernel


@FEW
@given(change=CHANGES)
async def test_a_network_is_changed_as_a_whole_or_not_at_all(agent: Agent, change: NetworkChange) -> None:
    with suppress(NetagentError):
        agent.networks.find("kept")
        async for _ in agent.network_removal.remove("kept"):
            pass
    made = await agent.networks.create(NewNetwork(name="kept", subnets=("10.5.0.0/24",), labels={"tier": "web"}))
    try:
        changed = await agent.networks.update(change)
    except NetagentError as error:
        refusal_is_one_line(error)
        assert agent.networks.find("kept") == made
    else:
        assert agent.networks.find("kept") == changed


@given(OPTIONS, st.sampled_from(["bridge", "vxlan", "route", "gre"]))
def test_options_are_understood_or_refused(options: dict[str, str], driver: str) -> None:
    try:
        parsed = parse_options(options, driver, ipv6=True)
    except InvalidRequest as error:
        refusal_is_one_line(error)
    else:
        assert parsed.mtu is None or 1280 <= parsed.mtu <= 65535
        assert len(parsed.interface_prefix) <= 12


@given(CONNECTIONS)
def test_a_connection_is_understood_or_refused_and_writes_nothing_odd(connection: Connection) -> None:
    """What is understood goes into firewall transactions as text, and into a record that must be read back."""
    try:
        texts = split_networks(connection)
        networks = tuple(NETWORK for _ in texts)
        wanted = parse_wanted(connection, networks, choose_interfaces(texts, networks))
    except NetagentError as error:
        refusal_is_one_line(error)
        return
    for number, want in enumerate(wanted):
        endpoint = Endpoint(
            id=EndpointId(f"{number:064x}"),
            network_id=NETWORK.id,
            container_id=ContainerId("c" * 64),
            container_name="web",
            interface=want.interface,
            sandbox="/run/netns/web",
            addresses=tuple(EndpointAddress(address=address, fixed=True) for address in want.addresses),
            link_local=want.link_local,
            mac=want.mac or "02:00:00:00:00:09",  # type: ignore[arg-type]
            ports=want.ports,
            aliases=want.aliases,
            gw_priority=want.gw_priority,
            rate_in=want.rate_in,
        )
        assert decode_endpoint(encode_endpoint(endpoint)) == endpoint
        for elements in (spoof.elements("nae0", endpoint), publish.elements(endpoint)):
            for text in _texts(elements):
                assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789.:/-_ ")


def _texts(elements: Any) -> Iterable[str]:
    return (element for group in elements.values() for element in group)
