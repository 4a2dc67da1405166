"""Addresses that were given back rest before somebody else gets them: any history, with restarts, by an own clock."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from netagent.errors import Exhausted
from netagent.ipam.allocate import choose_address
from netagent.model.address import Address, parse_address
from netagent.model.endpoint import Endpoint, EndpointAddress, EndpointState
from netagent.model.ids import EndpointId
from netagent.store.journal import Journal
from netagent.store.released import Rest
from tests.support.world import H1, LOCALNET, a_block, a_local_network, an_endpoint

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
NETWORK = a_local_network("10.0.0.0/28")
BLOCKS = [a_block("10.0.0.0/28", H1, network=LOCALNET, own=False)]
POOL = frozenset(parse_address(f"10.0.0.{n}") for n in range(2, 15))
HOLD_DOWN_S = 60.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def directory() -> Iterator[Path]:
    with TemporaryDirectory(dir=MEMORY) as path:
        yield Path(path)


class HandOut(RuleBasedStateMachine):
    """One host gives addresses of a small network and takes them back; the model knows when each came back."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory(dir=MEMORY)
        self.clock = Clock()
        self.number = 0
        self.used: dict[Address, Endpoint] = {}
        self.released: dict[Address, float] = {}
        self._open()

    def _open(self) -> None:
        self.journal = Journal(Path(self.directory.name), rest=Rest(hold_down_s=HOLD_DOWN_S, clock=self.clock))

    def _rests(self, address: Address) -> bool:
        return self.clock.now - self.released.get(address, -HOLD_DOWN_S) < HOLD_DOWN_S

    @rule()
    def attach(self) -> None:
        last = self.journal.last_address(LOCALNET, 4)
        free = POOL - self.used.keys()
        try:
            chosen = choose_address(NETWORK, BLOCKS, self.used.keys(), last, self.journal.resting(LOCALNET))
        except Exhausted:
            assert not free
            return
        assert chosen in free
        rested = {a for a in free if not self._rests(a)}
        if rested:
            assert chosen in rested
        else:
            assert self.released[chosen] == min(self.released[a] for a in free)
        self.number += 1
        identity = EndpointId(f"{self.number:064x}")
        endpoint = replace(an_endpoint(network=LOCALNET), id=identity, addresses=(EndpointAddress(address=chosen),))
        self.journal.put_endpoints([endpoint])
        self.used[chosen] = endpoint

    @precondition(lambda self: self.used)
    @rule(data=st.data(), dormant=st.booleans())
    def release(self, data: st.DataObject, *, dormant: bool) -> None:
        address = data.draw(st.sampled_from(sorted(self.used)))
        endpoint = self.used.pop(address)
        if dormant:
            self.journal.put_endpoints([replace(endpoint, addresses=(), state=EndpointState.DORMANT)])
        else:
            self.journal.remove_endpoints([endpoint.id])
        self.released[address] = self.clock.now

    @rule(seconds=st.floats(min_value=0.5, max_value=90))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def restart(self) -> None:
        self.journal.close()
        self._open()

    def teardown(self) -> None:
        self.journal.close()
        self.directory.cleanup()


HandOut.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestHandOut = HandOut.TestCase


def test_an_address_rests_over_a_restart_and_no_longer_than_it_should(directory: Path) -> None:
    clock = Clock()
    endpoint = an_endpoint("10.0.0.2", network=LOCALNET)
    journal = Journal(directory, rest=Rest(clock=clock))
    journal.put_endpoints([endpoint])
    assert not journal.resting(LOCALNET)
    journal.remove_endpoints([endpoint.id])
    journal.close()
    clock.now += 59
    journal = Journal(directory, rest=Rest(clock=clock))
    assert journal.resting(LOCALNET) == {parse_address("10.0.0.2"): 1000.0}
    clock.now += 1
    assert not journal.resting(LOCALNET)
    journal.close()


def test_a_clock_that_was_set_back_prolongs_no_rest(directory: Path) -> None:
    clock = Clock()
    endpoint = an_endpoint("10.0.0.2", network=LOCALNET)
    journal = Journal(directory, rest=Rest(clock=clock))
    journal.put_endpoints([endpoint])
    journal.remove_endpoints([endpoint.id])
    journal.close()
    clock.now = 10.0
    journal = Journal(directory, rest=Rest(clock=clock))
    clock.now += 60
    assert not journal.resting(LOCALNET)
    journal.close()


def test_with_no_hold_down_nothing_rests_and_a_forgotten_network_leaves_nothing(directory: Path) -> None:
    endpoint = an_endpoint("10.0.0.2", network=LOCALNET)
    for hold_down_s, expected in ((0.0, 0), (60.0, 1)):
        journal = Journal(directory, rest=Rest(hold_down_s=hold_down_s, clock=Clock()))
        journal.put_endpoints([endpoint])
        journal.remove_endpoints([endpoint.id])
        assert len(journal.resting(LOCALNET)) == expected
        journal.forget_network(LOCALNET)
        assert not journal.resting(LOCALNET)
        journal.close()
