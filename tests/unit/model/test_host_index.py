"""Hosts by id, underlay address and MTU: after any changes what a fresh look at all of them finds."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from netagent.model.address import parse_address
from netagent.model.host import Host
from netagent.model.host_index import Hosts
from netagent.model.ids import HostId
from tests.support.world import H1, H2, H3, a_host

ADDRESSES = [parse_address(text) for text in ("198.18.0.1", "198.18.0.2", "fd00::1", "fd00::2")]
UNDERLAYS = st.lists(st.sampled_from(ADDRESSES), max_size=3).map(tuple)
HOSTS = st.builds(
    lambda identity, underlay, mtu: replace(a_host(1), id=identity, underlay=underlay, mtu=mtu),
    st.sampled_from([HostId(f"h{number}") for number in range(6)]),
    UNDERLAYS,
    st.sampled_from([1400, 1500, 9000]),
)
SEVERAL = st.lists(HOSTS, max_size=6)


def by_id(*lists: list[Host]) -> dict[HostId, Host]:
    return {host.id: host for hosts in lists for host in hosts}


def assert_are(hosts: Hosts, expected: dict[HostId, Host]) -> None:
    assert hosts == expected
    assert len(hosts) == len(expected)
    for address in ADDRESSES:
        assert hosts.at(address) == {host.id for host in expected.values() if address in host.underlay}
    narrower = [(mtu, {host.id for host in expected.values() if host.mtu == mtu}) for mtu in (1400, 1500)]
    assert list(hosts.narrower(9000)) == [(mtu, group) for mtu, group in narrower if group]


@given(SEVERAL, SEVERAL, SEVERAL)
def test_after_changes_hosts_are_found_as_among_fresh_ones(
    first: list[Host], put: list[Host], gone: list[Host]
) -> None:
    before = Hosts.of(first)
    left = {identity: host for identity, host in by_id(first).items() if identity not in by_id(gone)}
    after = before.updated(put, gone=by_id(gone))
    assert_are(after, left | by_id(put))
    assert_are(before, by_id(first))
    assert after.changed(before) == {
        identity for identity in {**after, **before} if after.get(identity) != before.get(identity)
    }


@given(SEVERAL, SEVERAL)
def test_of_two_stores_hosts_the_latters_count(first: list[Host], second: list[Host]) -> None:
    assert_are(Hosts.of(first).joined(Hosts.of(second)), by_id(first, second))


def test_hosts_that_give_one_address_are_all_found_by_it() -> None:
    twin = replace(a_host(3), underlay=a_host(2).underlay)
    hosts = Hosts.of((a_host(1), a_host(2), twin))
    assert hosts.at(a_host(2).underlay[0]) == {H2, H3}
    assert hosts.updated(gone=[H2]).at(a_host(2).underlay[0]) == {H3}
    assert hosts.at(a_host(1).underlay[0]) == {H1}
