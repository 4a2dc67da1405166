from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netagent.model.address import parse_address, parse_prefix
from netagent.plan.desired import Chain, ElementSet, Link, Route, Ruleset, State, Vxlan
from netagent.plan.diff import diff
from netagent.plan.flows import confirm_flows
from netagent.plan.operation import Phase
from netagent.plan.render import render_everything
from tests.support.world import H1, H2, a_claim, an_endpoint, an_overlay, two_hosts

TUNNEL = "nav" + "a" * 12


def everything() -> State:
    endpoint = an_endpoint("192.168.1.7", publish=("4000:80",))
    return render_everything(two_hosts(an_overlay(), endpoint, fixed=(a_claim("192.168.0.2", H2),)))


def test_what_is_as_it_should_be_needs_nothing() -> None:
    assert not diff(everything(), everything())


def test_a_plan_runs_phase_by_phase() -> None:
    phases = [operation.phase for operation in diff(everything(), State()).operations]
    assert phases == sorted(phases)


def test_rules_come_before_links_and_go_after_them() -> None:
    endpoint = an_endpoint("192.168.1.7", publish=("4000:80",))
    with_it = render_everything(two_hosts(an_overlay(), endpoint))
    without = render_everything(two_hosts(an_overlay()))
    assert next(str(o).split()[0:2] for o in diff(with_it, without).operations) == ["nft", "add"]
    removals = [str(o) for o in diff(without, with_it).operations if not str(o).startswith("conntrack")]
    assert removals[-1].startswith("nft delete")


def test_nothing_is_removed_before_everything_was_heard() -> None:
    assert not diff(render_everything(two_hosts(an_overlay())), everything(), prune=False)


def test_a_device_with_another_vni_is_made_anew_with_all_that_hangs_on_it() -> None:
    desired = everything()
    link = desired.links[TUNNEL]
    assert isinstance(link.kind, Vxlan)
    other = replace(link, kind=replace(link.kind, vni=9))
    lines = str(diff(desired, replace(desired, links={**desired.links, TUNNEL: other}))).splitlines()
    assert lines[:2] == [f"link delete {TUNNEL}", f"link add {TUNNEL} type vxlan mtu 1450"]
    assert sum(line.startswith("route replace") for line in lines) == 2
    assert any(line.startswith("neighbour replace") for line in lines)
    assert not any("delete" in line for line in lines[1:])


def test_a_fixed_address_that_moved_to_another_host_is_announced_as_the_bridges() -> None:
    here, there = (
        render_everything(two_hosts(an_overlay(), fixed=(a_claim("192.168.0.2", host),))) for host in (H1, H2)
    )
    bridge = next(name for name in here.links if name.startswith("nab"))
    lines = str(diff(there, here)).splitlines()
    assert lines[-1] == f"announce 192.168.0.2 at {here.links[bridge].mac} dev {bridge}"
    assert not any(line.startswith("announce") for line in str(diff(here, there)).splitlines())


def test_an_address_is_announced_with_its_interface_and_not_again() -> None:
    endpoint = an_endpoint("192.168.1.7")
    before = render_everything(two_hosts(an_overlay()))
    after = render_everything(two_hosts(an_overlay(), endpoint))
    assert str(diff(after, before)).splitlines()[-1].startswith("announce 192.168.1.7 at")
    published = render_everything(two_hosts(an_overlay(), an_endpoint("192.168.1.7", publish=("4000:80",))))
    assert "announce" not in str(diff(published, after))


def test_a_changed_mtu_is_set_on_the_living_device() -> None:
    desired = everything()
    narrower = {name: replace(link, mtu=1400) for name, link in desired.links.items()}
    lines = str(diff(desired, replace(desired, links=narrower))).splitlines()
    assert len(lines) == len(desired.links)
    assert all(line.startswith("link set") and "mtu 1450" in line for line in lines)


def test_a_route_that_moved_is_replaced_and_not_deleted_afterwards() -> None:
    destination = parse_prefix("192.168.9.0/24")
    before = Route(destination=destination, device=TUNNEL, gateway=parse_address("192.168.2.0"))
    after = replace(before, gateway=parse_address("192.168.3.0"))
    links = {TUNNEL: everything().links[TUNNEL]}
    plan = diff(State(links=links, routes=frozenset({after})), State(links=links, routes=frozenset({before})))
    assert str(plan) == f"route replace {after}"


def test_what_hangs_on_a_deleted_device_is_not_deleted_one_by_one() -> None:
    lines = str(diff(State(), everything())).splitlines()
    assert lines
    assert all(line.startswith("link delete") for line in lines)


def test_an_element_with_new_data_is_taken_out_before_it_is_put_in() -> None:
    sets = (ElementSet(name="publish4", key="inet_proto . inet_service", data="ipv4_addr . inet_service"),)
    before = Ruleset(sets=sets, elements={"publish4": frozenset({"tcp . 80 : 10.0.0.2 . 80"})})
    after = Ruleset(sets=sets, elements={"publish4": frozenset({"tcp . 80 : 10.0.0.3 . 80"})})
    plan = diff(State(ruleset=after), State(ruleset=before))
    phases = [operation.phase for operation in plan.operations]
    assert phases == [Phase.SET_GUARDS, Phase.ADD_ELEMENTS, Phase.FLUSH_FLOWS]
    assert str(plan).endswith("conntrack flush ipv4 *:80/tcp not to 10.0.0.3:80")
    assert str(plan).startswith("nft delete element publish4 { tcp . 80 : 10.0.0.2 . 80 }")


def test_an_interval_is_taken_out_before_another_that_overlaps_it_is_put_in() -> None:
    """The kernel refuses an element of an interval set while one that overlaps it is there."""
    before = State(
        ruleset=Ruleset(elements={"ranges4": frozenset({"tcp . 8000-8999 : 10.0.0.2", "tcp . 1-9 : 10.0.0.2"})})
    )
    after = State(ruleset=Ruleset(elements={"ranges4": frozenset({"tcp . 8000-8499 : 10.0.0.2"})}))
    assert [str(o) for o in diff(after, before).operations if "nft" in str(o)] == [
        "nft delete element ranges4 { tcp . 8000-8999 : 10.0.0.2 }",
        "nft add element ranges4 { tcp . 8000-8499 : 10.0.0.2 }",
        "nft delete element ranges4 { tcp . 1-9 : 10.0.0.2 }",
    ]


def test_what_a_drop_makes_an_exception_of_goes_after_what_it_drops() -> None:
    before = State(
        ruleset=Ruleset(elements={"routed4": frozenset({"10.1.0.0/16"}), "ways": frozenset({"eth0"})}),
    )
    after = State(ruleset=Ruleset(elements={}))
    operations = diff(after, before).operations
    assert [str(o) for o in operations] == [
        "nft delete element routed4 { 10.1.0.0/16 }",
        "nft delete element ways { eth0 }",
    ]
    assert operations[0].phase < operations[1].phase, "they would be one transaction"


def test_another_structure_replaces_the_table_as_a_whole() -> None:
    desired = everything()
    assert desired.ruleset is not None
    foreign = replace(desired.ruleset, chains=(*desired.ruleset.chains, Chain(name="x", rules=())))
    assert str(diff(desired, replace(desired, ruleset=foreign))).startswith("nft replace table")
    assert str(diff(desired, replace(desired, ruleset=None))).startswith("nft replace table")


def test_a_broken_link_is_made_anew() -> None:
    desired = everything()
    name = "nae" + "e" * 12
    lines = str(diff(desired, replace(desired, broken={name: "its end is gone"}))).splitlines()
    assert lines[:2] == [f"link delete {name}", f"link add {name} type veth mtu 1450"]


@pytest.mark.parametrize("up", [False])
def test_a_link_that_is_down_is_brought_up(up: bool) -> None:
    desired = everything()
    down = {name: replace(link, up=up) for name, link in desired.links.items()}
    assert all(str(o).endswith("up") for o in diff(desired, replace(desired, links=down)).operations)


def _apply(plan_from: State, plan_to: State) -> State:
    """A model of the kernel for links and routes only: enough to state what a plan must achieve."""
    links: dict[str, Link] = dict(plan_from.links)
    routes = set(plan_from.routes)
    for operation in diff(plan_to, plan_from).operations:
        match type(operation).__name__:
            case "AddLink" | "SetLink":
                links[operation.link.name] = operation.link  # type: ignore[attr-defined]
            case "DeleteLink":
                gone = operation.link.name  # type: ignore[attr-defined]
                links.pop(gone, None)
                routes = {route for route in routes if route.device != gone}
            case "AddRoute":
                added = operation.route  # type: ignore[attr-defined]
                routes = {r for r in routes if r.destination != added.destination} | {added}
            case "DeleteRoute":
                routes.discard(operation.route)  # type: ignore[attr-defined]
    return State(links=links, routes=frozenset(routes))


_names = st.sampled_from(["na1", "na2", "na3"])
_links = st.builds(lambda vni, mtu: (vni, mtu), st.integers(1, 3), st.sampled_from([1400, 1450]))


@st.composite
def _states(draw: st.DrawFn) -> State:
    links = {
        name: Link(
            name=name,
            kind=Vxlan(vni=vni, local=parse_address("198.18.0.1")),
            mtu=mtu,
            alias="netagent:x",
        )
        for name, (vni, mtu) in draw(st.dictionaries(_names, _links)).items()
    }
    routes = {}
    for index in range(4):
        if links and draw(st.booleans()):
            destination = parse_prefix(f"10.0.{index}.0/24")
            gateway = draw(st.sampled_from(["10.9.0.1", "10.9.0.2"]))
            device = draw(st.sampled_from(sorted(links)))
            routes[destination] = Route(destination=destination, device=device, gateway=parse_address(gateway))
    return State(links=links, routes=frozenset(routes.values()))


@given(_states(), _states())
def test_applying_a_plan_gives_the_desired_state_and_a_second_plan_is_empty(before: State, after: State) -> None:
    result = _apply(before, after)
    assert (result.links, result.routes) == (after.links, after.routes)
    assert not diff(after, result)


def test_a_start_looks_at_the_connections_to_every_port() -> None:
    assert str(confirm_flows(everything())) == "conntrack flush ipv4 *:4000/tcp not to 192.168.1.7:80"


def test_a_port_that_goes_alone_leaves_the_containers_other_connections() -> None:
    both = an_endpoint("192.168.1.7", publish=("4000:80", "4001:81"))
    one = an_endpoint("192.168.1.7", publish=("4000:80",))
    before, after = (render_everything(two_hosts(an_overlay(), endpoint)) for endpoint in (both, one))
    assert str(diff(after, before)).splitlines()[-1] == "conntrack flush ipv4 *:4001/tcp"
