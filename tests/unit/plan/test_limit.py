from dataclasses import replace

from netagent.model.rate import Rate
from netagent.plan.desired import Ifb, Ruleset, State
from netagent.plan.diff import diff
from netagent.plan.render import render_endpoint
from tests.support.world import an_endpoint, an_overlay, two_hosts

WEB = an_endpoint("192.168.1.7")
LIMITED = replace(WEB, rate_in=Rate(bits=10_000_000), rate_out=Rate(bits=5_000_000))
NOTHING = State(ruleset=Ruleset())
VETH, IFB = "nae" + 12 * "e", "nai" + 12 * "e"


def rendered(endpoint: object = LIMITED, *, mtu: int = 1450) -> State:
    return render_endpoint(two_hosts(an_overlay()), endpoint, mtu=mtu)  # type: ignore[arg-type]


def _limits(before: State, after: State) -> list[str]:
    return [line for line in str(diff(after, before)).splitlines() if line.split()[0] in ("qdisc", "filter", "link")]


def test_what_comes_is_shaped_on_the_veth_and_what_goes_on_a_device_of_its_own() -> None:
    desired = rendered()
    assert {(s.device, s.rate) for s in desired.shapers} == {(VETH, 1_250_000), (IFB, 625_000)}
    assert isinstance(desired.links[IFB].kind, Ifb)
    assert {(r.device, r.through) for r in desired.redirects} == {(VETH, IFB)}
    assert not rendered(WEB).shapers | rendered(WEB).redirects
    assert list(rendered(WEB).links) == [VETH]


def test_the_queue_is_there_before_packets_are_led_to_it_and_before_the_container_has_an_address() -> None:
    steps = [line.split()[0] for line in str(diff(rendered(), NOTHING)).splitlines()]
    assert steps[-6:-2] == ["qdisc", "qdisc", "filter", "address"]


def test_a_limit_that_goes_takes_its_device_after_the_packets_no_longer_pass_it() -> None:
    assert _limits(rendered(), rendered(WEB)) == [
        f"filter delete dev {VETH} through {IFB}",
        f"qdisc delete {next(s for s in rendered().shapers if s.device == VETH)}",
        f"link delete {IFB}",
    ]


def test_a_container_that_goes_takes_its_limits_along() -> None:
    assert _limits(rendered(), NOTHING) == [f"link delete {VETH}", f"link delete {IFB}"]


def test_another_rate_replaces_only_the_queue_that_it_concerns() -> None:
    other = replace(LIMITED, rate_in=Rate(bits=20_000_000))
    (line,) = _limits(rendered(), rendered(other))
    assert line.startswith("qdisc replace tbf rate 20000000bit")


def test_a_bucket_takes_the_largest_frame_and_what_fits_the_kernels_counter() -> None:
    for mtu in (1450, 65535):
        for bits in (8000, 10**6, 10**12):
            for burst in (None, 1, 1 << 30):
                endpoint = replace(WEB, rate_in=Rate(bits=bits, burst=burst))
                (shaper,) = rendered(endpoint, mtu=mtu).shapers
                assert shaper.burst >= mtu + 22
                assert shaper.burst * 10**9 / shaper.rate / 64 < 1 << 32
                assert shaper.queue > shaper.burst
