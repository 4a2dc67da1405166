import json
from dataclasses import replace

import pytest

from netagent.model.container import Container, ContainerKind, ContainerState
from netagent.model.ids import ContainerId
from netagent.services.requests import ContainerView, NetworkChange, NetworkView
from tests.support.fake_agent import CREATED, ServedAgent
from tests.support.world import LOCALNET, a_local_network, an_endpoint
from tests.unit.cli.conftest import Cli


@pytest.fixture
def web(agent: ServedAgent) -> None:
    """A container that serves 81 and has 80 and 90 published, the latter for IPv4 only."""
    endpoint = an_endpoint("172.16.0.2", "fd00::2", network=LOCALNET, publish=("4000:80", "0.0.0.0:4001:90"))
    container = Container(
        id=ContainerId("c" * 64),
        name="web",
        kind=ContainerKind.RUN,
        state=ContainerState.RUNNING,
        exposed=("80/tcp", "81/tcp", "90/tcp"),
        created=CREATED,
        started=CREATED,
    )
    agent.fake.put(ContainerView(container=container, endpoints=((endpoint, a_local_network()),)))


@pytest.mark.usefixtures("web")
def test_publish_shows_what_it_has_published(agent: ServedAgent, netagent_cli: Cli) -> None:
    assert netagent_cli("publish", "web", "4000:80").stdout == "80/tcp -> 0.0.0.0:4000\n80/tcp -> [::]:4000\n"
    shown = json.loads(netagent_cli("publish", "--format", "json", "web", "0.0.0.0:4001:90").stdout)
    assert shown == {"90/tcp": [{"HostIp": "0.0.0.0", "HostPort": "4001"}]}
    assert agent.fake.asked == [("publish", "web", ("4000:80",)), ("publish", "web", ("0.0.0.0:4001:90",))]


@pytest.mark.usefixtures("web")
def test_unpublish_says_nothing(agent: ServedAgent, netagent_cli: Cli) -> None:
    result = netagent_cli("unpublish", "web", "80", "81/udp")
    assert (result.exit_code, result.output) == (0, "")
    assert agent.fake.asked == [("unpublish", "web", ("80", "81/udp"))]


@pytest.mark.usefixtures("web")
def test_what_is_exposed_but_not_published_is_shown_without_a_host_port(netagent_cli: Cli) -> None:
    ports = json.loads(netagent_cli("inspect", "-f", "{{json .NetworkSettings.Ports}}", "web").stdout)
    assert ports["81/tcp"] is None
    assert ports["90/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": "4001"}]
    assert netagent_cli("ps", "--format", "{{.Ports}}").stdout == (
        "0.0.0.0:4000->80/tcp, [::]:4000->80/tcp, 0.0.0.0:4001->90/tcp, 81/tcp\n"
    )


def test_run_passes_exposed_ports_on(agent: ServedAgent, netagent_cli: Cli) -> None:
    netagent_cli("run", "-d", "-P", "--expose", "80", "--expose", "53/udp", "--", "sleep")
    connection = agent.fake.asked[0][1].connection
    assert (connection.publish_all, connection.expose) == (True, ("80", "53/udp"))


def test_update_prints_the_name_and_passes_everything_on(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.networks_known = [NetworkView(network=replace(a_local_network(), created=CREATED))]
    result = netagent_cli("network", "update", "--label", "a=1", "--label-rm", "b", "-o", "mtu=1400", "app")
    assert (result.exit_code, result.output) == (0, "app\n")
    assert agent.fake.asked[0] == (
        "network update",
        NetworkChange(name="app", labels={"a": "1"}, removed_labels=("b",), options={"mtu": "1400"}),
    )


def test_an_update_of_nothing_is_wrong_usage(netagent_cli: Cli) -> None:
    assert netagent_cli("network", "update", "app").exit_code == 2
