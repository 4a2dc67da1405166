"""Labs for tests: with a name of their own each, so that tests run side by side, and gone when their module is done.

``tests/cluster/conftest.py`` makes the fixture known, and the report of a failed test shows the labs' logs.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol, TypeVar

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab

T = TypeVar("T")
_LOG_TAIL = 4000
_numbers = itertools.count(1)
_live: list[Lab] = []


class MakeLab(Protocol):
    """Make a lab that is taken down at the end of the module; arguments as for ``Lab.up``."""

    def __call__(
        self,
        hosts: int = 3,
        etcd: int = 1,
        *,
        agents: bool = True,
        mtu: int = 1500,
        underlay: str = "both",
        firewall: str = "nftables",
    ) -> Lab: ...


def unique_name() -> str:
    """Return a name that no other lab of this machine has."""
    return f"t{os.getpid()}x{next(_numbers)}"


@pytest.fixture(scope="module")
def make_lab() -> Iterator[MakeLab]:
    """Make as many labs as the module needs."""
    with ExitStack() as labs:

        def make(
            hosts: int = 3,
            etcd: int = 1,
            *,
            agents: bool = True,
            mtu: int = 1500,
            underlay: str = "both",
            firewall: str = "nftables",
        ) -> Lab:
            lab = labs.enter_context(Lab.up(unique_name(), hosts, etcd, agents=False, mtu=mtu, underlay=underlay))
            _live.append(lab)
            labs.callback(_live.remove, lab)
            for host in lab.hosts:
                configure_firewall(host, firewall)
                if agents:
                    host.agent.launch()
            for host in lab.hosts if agents else ():
                host.agent.wait_ready()
            return lab

        yield make


@pytest.fixture(scope="module", params=["nftables", "iptables"])
def firewall(request: pytest.FixtureRequest) -> str:
    """Run the module's tests once with each: what the hosts' agents program."""
    chosen: str = request.param
    return chosen


def configure_firewall(host: Host, firewall: str) -> None:
    """Let the agent of ``host`` program ``firewall`` from its next start on: nftables, iptables or iptables-legacy."""
    kind, _, flavour = firewall.partition("-")
    lines = [f'firewall = "{kind}"', *([f'iptables_command = "{firewall}"'] if flavour else [])]
    host.path("/etc/netagent/agent.toml").write_text("\n".join(lines) + "\n")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[Any]:
    """Put the end of every log of the labs there are into the report of a failed test."""
    report: pytest.TestReport = yield
    if report.failed:
        for lab in _live:
            for log in sorted(lab.directory.glob("*.log")):
                if tail := log.read_text(errors="replace")[-_LOG_TAIL:]:
                    report.sections.append((f"{lab.name}/{log.name}", tail))
    return report


def eventually(predicate: Callable[[], T], *, within: float = 60) -> T:
    """Return the first true value of ``predicate``; one that asserts is tried again, and its last words are raised.

    ``within`` is in seconds.
    """
    deadline = time.monotonic() + within
    while True:
        late = time.monotonic() > deadline
        try:
            if value := predicate():
                return value
        except AssertionError:
            if late:
                raise
        if late:
            raise AssertionError(f"not true within {within} s: {predicate}")
        time.sleep(0.05)
