"""Records: what is written is read back, and what must not be used is refused, one record at a time."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netagent.model.address import Address, derive_mac, nth, parse_address, parse_prefix
from netagent.model.block import Block, BlockState, FixedAddress
from netagent.model.endpoint import Endpoint, EndpointAddress, EndpointState
from netagent.model.host import Host
from netagent.model.ids import ContainerId, EndpointId, HostId, NetworkId
from netagent.model.network import Network, NetworkState, Scope, Subnet
from netagent.model.port import PROTOCOLS, PortMapping
from netagent.store.endpoint_records import decode_endpoint, encode_endpoint
from netagent.store.network_records import decode_network, encode_network
from netagent.store.record_format import SIZE_LIMIT, InvalidRecord
from netagent.store.records import decode_block, decode_fixed, decode_host, encode_block, encode_fixed, encode_host
from tests.support.world import H1, a_block, a_claim, a_host, a_local_network, an_endpoint, an_overlay

ids = st.integers(0, (1 << 256) - 1).map("{:064x}".format)
hosts = st.uuids().map(lambda uuid: HostId(str(uuid)))
names = st.text("aZ0_.-", max_size=20).map("n{}".format)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def _can_be_reached(address: Address) -> bool:
    nowhere = address.is_loopback, address.is_multicast, address.is_unspecified, address.is_link_local
    return not any(nowhere) and str(address) != "255.255.255.255"


addresses = st.one_of(
    st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda a: not (a.ipv4_mapped or getattr(a, "scope_id", None)))
)
prefixes = st.sampled_from(["10.0.0.0/8", "192.168.0.0/16", "172.16.5.0/24", "fd00:1::/64", "2001:db8::/32"]).map(
    parse_prefix
)


@st.composite
def subnets(draw: st.DrawFn) -> Subnet:
    prefix = draw(prefixes)
    gateway = nth(prefix, draw(st.integers(1, 200)))
    return Subnet(
        prefix=prefix, gateway=gateway, block_length=draw(st.integers(prefix.prefixlen, prefix.max_prefixlen))
    )


@st.composite
def networks(draw: st.DrawFn) -> Network:
    driver, scope = draw(st.sampled_from([("vxlan", Scope.GLOBAL), ("bridge", Scope.LOCAL)]))
    return Network(
        id=NetworkId(draw(ids)),
        name=draw(names),
        driver=driver,
        scope=scope,
        subnets=tuple(draw(st.lists(subnets(), max_size=3))),
        vni=draw(st.integers(1, (1 << 24) - 1)),
        internal=draw(st.booleans()),
        mtu=draw(st.none() | st.integers(68, 65535)),
        options=draw(st.dictionaries(texts, texts, max_size=2)),
        labels=draw(st.dictionaries(texts, texts, max_size=2)),
        created=draw(texts),
        state=draw(st.sampled_from(NetworkState)),
    )


ports = st.builds(
    PortMapping,
    protocol=st.sampled_from(PROTOCOLS),
    container_port=st.integers(1, 65535),
    host_port=st.integers(0, 65535),
    host_address=st.none() | addresses,
)
endpoints = st.builds(
    Endpoint,
    id=ids.map(EndpointId),
    network_id=ids.map(NetworkId),
    container_id=ids.map(ContainerId),
    container_name=names,
    interface=st.sampled_from(["eth0", "net1", "ä"]),
    sandbox=texts,
    sandbox_inode=st.integers(0, 1 << 64),
    addresses=st.lists(st.builds(EndpointAddress, address=addresses, fixed=st.booleans()), max_size=3).map(tuple),
    mac=texts.map(derive_mac),
    ports=st.lists(ports, max_size=3).map(tuple),
    aliases=st.lists(names, max_size=2).map(tuple),
    gw_priority=st.integers(min_value=-(2**31), max_value=2**31 - 1),
    ways_out=st.sampled_from([(), (4,), (6,), (4, 6)]),
    state=st.sampled_from(EndpointState),
)
host_records = st.builds(
    Host,
    id=hosts,
    name=names,
    underlay=st.lists(addresses.filter(_can_be_reached), max_size=2).map(tuple),
    mtu=st.integers(576, 65536),
    interface=texts,
)
fixed_claims = st.builds(
    FixedAddress,
    network_id=ids.map(NetworkId),
    address=addresses,
    owner=hosts,
    epoch=st.integers(0, (1 << 63) - 1),
    endpoint_id=ids.map(EndpointId),
)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    prefix = draw(prefixes)
    return Block(
        network_id=NetworkId(draw(ids)),
        prefix=prefix,
        owner=draw(hosts),
        epoch=draw(st.integers(0, (1 << 63) - 1)),
        own_address=draw(st.none() | st.just(nth(prefix, 0))),
        state=draw(st.sampled_from(BlockState)),
    )


@given(networks(), blocks(), fixed_claims, host_records, endpoints)
@settings(max_examples=30)
def test_everything_is_read_back_as_it_was_written(
    network: Network, block: Block, claim: FixedAddress, host: Host, endpoint: Endpoint
) -> None:
    assert decode_network(encode_network(network)) == network
    assert decode_block(encode_block(block)) == block
    assert decode_fixed(encode_fixed(claim)) == claim
    assert decode_host(encode_host(host)) == host
    assert decode_endpoint(encode_endpoint(endpoint)) == endpoint


@pytest.mark.parametrize("decode", [decode_network, decode_block, decode_fixed, decode_host, decode_endpoint])
@given(value=st.binary(max_size=60) | st.recursive(st.none() | st.text(), st.lists).map(msgspec.json.encode))
@settings(max_examples=30)
def test_any_bytes_are_a_record_or_a_refusal(decode: Callable[[bytes], object], value: bytes) -> None:
    with pytest.raises(InvalidRecord):
        decode(value)


KINDS: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "network": (encode_network(an_overlay()), decode_network),
    "block": (encode_block(a_block("192.168.1.0/24", H1)), decode_block),
    "address": (encode_fixed(a_claim("192.168.0.2", H1)), decode_fixed),
    "host": (encode_host(a_host(1)), decode_host),
    "endpoint": (encode_endpoint(an_endpoint("192.168.1.7", publish=("4000:80",))), decode_endpoint),
}


def changed(kind: str, **fields: Any) -> bytes:
    """The good record of a kind with some of its fields exchanged."""
    return msgspec.json.encode({**msgspec.json.decode(KINDS[kind][0]), **fields})


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_version_and_an_unknown_feature_are_refused_with_the_way_out(kind: str) -> None:
    decode = KINDS[kind][1]
    with pytest.raises(InvalidRecord, match="record has version 2, this agent knows 1") as caught:
        decode(changed(kind, v=2))
    assert caught.value.hint == "upgrade this agent"
    with pytest.raises(InvalidRecord, match="record requires later, much-later"):
        decode(changed(kind, requires=["much-later", "later"]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_giant_is_refused_before_it_is_read(kind: str) -> None:
    value, decode = KINDS[kind]
    with pytest.raises(InvalidRecord, match=f"more than {SIZE_LIMIT}"):
        decode(value + b" " * SIZE_LIMIT)


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_keys_are_read_over(kind: str) -> None:
    decode = KINDS[kind][1]
    assert decode(changed(kind, later={"a": [1]})) == decode(KINDS[kind][0])


@pytest.mark.parametrize("kind", KINDS)
def test_deep_nesting_is_refused(kind: str) -> None:
    with pytest.raises(InvalidRecord):
        KINDS[kind][1](b'{"v":1,"later":' + b"[" * 50_000 + b"]" * 50_000 + b"}")


SUBNET = {"prefix": "192.168.0.0/16", "gateway": "192.168.0.1", "block_length": 24}

HOSTILE: list[tuple[str, dict[str, Any]]] = [
    ("network", {"id": "A" * 64}),
    ("network", {"id": "a" * 63}),
    ("network", {"name": "../etc"}),
    ("network", {"name": "n" * 129}),
    ("network", {"scope": "galaxy"}),
    ("network", {"scope": "local"}),
    ("network", {"driver": "later"}),
    ("network", {"vni": 0}),
    ("network", {"vni": 1 << 24}),
    ("network", {"vni": None}),
    ("network", {"mtu": 1}),
    ("network", {"mtu": 1 << 16}),
    ("network", {"state": "sleeping"}),
    ("network", {"subnets": [{**SUBNET, "prefix": "0.0.0.0/0"}]}),
    ("network", {"subnets": [{**SUBNET, "prefix": "127.0.0.0/8", "gateway": "127.0.0.1"}]}),
    ("network", {"subnets": [{**SUBNET, "prefix": "192.168.0.5/16"}]}),
    ("network", {"subnets": [{**SUBNET, "gateway": "10.0.0.1"}]}),
    ("network", {"subnets": [{**SUBNET, "gateway": "fd00::1"}]}),
    ("network", {"subnets": [{**SUBNET, "gateway": "$(reboot)"}]}),
    ("network", {"subnets": [{**SUBNET, "block_length": 15}]}),
    ("network", {"subnets": [{**SUBNET, "block_length": 33}]}),
    ("network", {"subnets": [SUBNET] * 65}),
    ("network", {"options": {"a": 1}}),
    ("block", {"owner": "somebody"}),
    ("block", {"prefix": "192.168.1.5/24"}),
    ("block", {"own_address": "192.168.2.0"}),
    ("block", {"epoch": -1}),
    ("block", {"state": "lost"}),
    ("address", {"address": "192.168.0.2/32"}),
    ("address", {"address": "::ffff:192.168.0.2"}),
    ("address", {"endpoint": "x"}),
    ("host", {"id": "../../etc"}),
    ("host", {"name": "a b"}),
    ("host", {"underlay": ["198.18.0.1"] * 9}),
    ("host", {"underlay": ["fe80::1%eth0"]}),
    ("host", {"mtu": 575}),
    ("host", {"mtu": "1500"}),
    ("endpoint", {"interface": "eth0/../x"}),
    ("endpoint", {"interface": "e" * 16}),
    ("endpoint", {"mac": "01:00:5e:00:00:01"}),
    ("endpoint", {"name": "a;b"}),
    ("endpoint", {"aliases": ["a b"]}),
    ("endpoint", {"addresses": [{"address": "10.0.0.256"}]}),
    ("endpoint", {"ports": [{"protocol": "icmp", "container_port": 1, "host_port": 1}]}),
    ("endpoint", {"ports": [{"protocol": "tcp", "container_port": 0, "host_port": 1}]}),
    ("endpoint", {"ports": [{"protocol": "tcp", "container_port": 1, "host_port": 65536}]}),
]


@pytest.mark.parametrize(("kind", "fields"), HOSTILE, ids=lambda value: str(value)[:60])
def test_what_no_agent_writes_is_refused(kind: str, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecord):
        KINDS[kind][1](changed(kind, **fields))


def test_networks_that_give_no_interface_need_no_driver_of_ours() -> None:
    network = replace(a_local_network(), name="host", driver="host", subnets=())
    assert decode_network(encode_network(network)) == network


def test_unknown_keys_of_a_record_are_kept_when_it_is_rewritten() -> None:
    old = changed("network", later={"a": [1]}, state="active")
    fresh = encode_network(replace(an_overlay(), state=NetworkState.DELETING), old)
    record = msgspec.json.decode(fresh)
    assert (record["later"], record["state"]) == ({"a": [1]}, "deleting")
    assert decode_network(fresh).state is NetworkState.DELETING


@pytest.mark.parametrize("old", [b"", b"{", b"[1]", b"7", b"\xff", b"[" * 50_000], ids=lambda old: str(old[:5]))
def test_a_record_that_cannot_be_read_is_rewritten_from_nothing(old: bytes) -> None:
    assert encode_host(a_host(1), old) == encode_host(a_host(1))


def test_a_big_endpoint_still_fits() -> None:
    many = replace(
        an_endpoint("192.168.1.7"),
        ports=tuple(PortMapping(protocol="tcp", container_port=n, host_port=n) for n in range(1, 1001)),
    )
    assert len(encode_endpoint(many)) < SIZE_LIMIT
    assert decode_endpoint(encode_endpoint(many)) == many


def test_addresses_are_written_in_one_spelling() -> None:
    claim = replace(a_claim("192.168.0.2", H1), address=parse_address("FD00:0::0:1"))
    assert b'"fd00::1"' in encode_fixed(claim)
