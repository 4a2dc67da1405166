"""One machine with a real agent, its store in a real etcd, for all CNI conformance tests of a process.

The ids C01 to C106 in their names number the cases that a CNI plugin has to stand.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cni import PLUGIN, Plugin, a_configuration
from tests.support.cni_runner import Runner
from tests.support.lab import eventually
from tests.support.lone_host import LoneHost

GRACE_S = 0.6
"""How long the agent of these tests spares what seems forgotten."""

ETCD = (
    *("etcd", "--data-dir", "/run/etcd", "--log-level", "error"),
    *("--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379"),
    *("--listen-peer-urls", "http://127.0.0.1:2380"),
)

STATE = "/var/lib/elsewhere"
"""Where that agent keeps its state: not where the plugin would look for its queue by itself."""

_numbers = itertools.count(1)

Make = Callable[[], tuple[str, str]]


class Machine(LoneHost):
    """A lone host whose agent keeps the cluster's records in an etcd beside it."""

    def start_etcd(self) -> None:
        """Start etcd and wait until it answers."""
        self.etcd = self.spawn(*ETCD)
        eventually(lambda: self.succeeds("etcdctl", "endpoint", "health"), within=20)

    def stop_etcd(self) -> None:
        """End etcd as a crash does."""
        self.etcd.kill()
        self.etcd.wait()

    def settles(self, before: dict[str, Any], *, but: str = "") -> None:
        """Wait until the machine is as it was, ``but`` for one part: links are deleted some moments after an answer."""

        def same() -> bool:
            assert {**self.dump(), but: None} == {**before, but: None}
            return True

        eventually(same)

    def interface(self, name: str, *, inside: str = "") -> dict[str, Any]:
        """Return an interface as iproute2 shows it."""
        (found,) = self.json("ip", "-j", "-d", "address", "show", "dev", name, inside=inside)
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="session")
def started_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Yield the machine with the networks app, tiny (six addresses), dual (both families) and wide (VXLAN)."""
    directory = tmp_path_factory.mktemp("conformance")
    configuration = directory / "agent.toml"
    configuration.write_text(f'store = "etcd://127.0.0.1:2379"\nstate_dir = "{STATE}"\n[cni]\ngrace_s = {GRACE_S}\n')
    with Machine(directory / "agent.log", options=("--config", str(configuration))) as machine:
        machine.start_etcd()
        machine.start_agent()
        machine.netagent("network", "create", "--subnet", "10.20.0.0/16", "app")
        machine.netagent("network", "create", "--subnet", "10.21.0.0/29", "tiny")
        machine.netagent("network", "create", "--subnet", "10.22.0.0/24", "--subnet", "fd22::/64", "dual")
        machine.netagent("network", "create", "--driver", "vxlan", "--subnet", "10.23.0.0/16", "wide")
        yield machine
        log = machine.log.read_text()
        assert "Traceback" not in log, log[log.index("Traceback") :][:4000]


@pytest.fixture
def machine(started_machine: Machine) -> Machine:
    """The machine; a test that has failed must not leave it without an agent."""
    return started_machine


@pytest.fixture
def plugin(machine: Machine) -> Plugin:
    """The plugin as a program of the machine."""
    return machine.plugin


@pytest.fixture
def netns(machine: Machine, plugin: Plugin) -> Iterator[Make]:
    """Yield a function that makes a container: its id and its namespace, both gone after the test."""
    made: list[str] = []

    def make() -> tuple[str, str]:
        name = f"c{next(_numbers)}"
        made.append(name)
        return name, machine.make_netns(name)

    yield make
    for name in made:
        for interface in ("eth0", "eth1"):
            outcome = plugin.delete(name, "", interface, configuration=a_configuration("any"))
            assert outcome.status == 0, outcome
        machine.remove_netns(name)


@pytest.fixture
def runner(machine: Machine, tmp_path: Path) -> Callable[..., Runner]:
    """Return a function that makes libcni for a list of plugins, netagent alone if none are given."""

    def make(*plugins: dict[str, Any], name: str = "app", version: str = "1.1.0", **more: Any) -> Runner:
        capabilities = dict.fromkeys(("portMappings", "ips", "mac", "aliases", "dns", "ipRanges", "bandwidth"), True)
        alone = ({"type": "netagent", "capabilities": capabilities},)
        return Runner(
            conflist={"cniVersion": version, "name": name, "plugins": list(plugins or alone)},
            path=[PLUGIN.parent, Path("/usr/lib/cni"), tmp_path / "bin"],
            cache=tmp_path / "cni",
            prefix=machine.prefix,
            **more,
        )

    return make


@pytest.fixture
def fake_plugin(tmp_path: Path) -> Callable[[str, str], dict[str, Any]]:
    """Return a function that puts a shell script in place as a plugin and returns its part of a list."""
    directory = tmp_path / "bin"
    directory.mkdir(exist_ok=True)

    def make(name: str, script: str) -> dict[str, Any]:
        path = directory / name
        path.write_text(f"#!/bin/sh\ninput=$(cat)\n{script}\n")
        path.chmod(0o755)
        return {"type": name}

    return make


def previous(configuration: dict[str, Any], result: dict[str, Any]) -> str:
    """Return a configuration as text with the result of ADD in it."""
    return json.dumps({**configuration, "prevResult": result})
