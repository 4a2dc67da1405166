import json

import pytest

from netagent.cli.output import human_size
from netagent.model.container import Container, ContainerKind
from netagent.model.counters import Counters
from netagent.model.ids import ContainerId
from netagent.services.stats import EndpointStats, NetworkStats
from tests.support.fake_agent import ServedAgent
from tests.support.world import an_endpoint, an_overlay
from tests.unit.cli.conftest import Cli

COUNTERS = Counters(rx_bytes=1234567, rx_packets=900, rx_dropped=7, tx_bytes=1000, tx_packets=12, tx_dropped=0)
WEB = Container(id=ContainerId("c" * 64), name="web", kind=ContainerKind.RUN)


@pytest.fixture(autouse=True)
def _known(agent: ServedAgent) -> None:
    agent.fake.endpoint_stats = (
        EndpointStats(
            container=WEB, endpoint=an_endpoint("192.168.1.7"), network=an_overlay(), counters=COUNTERS, ports={}
        ),
    )
    agent.fake.network_stats = (
        NetworkStats(network=an_overlay(), containers=2, counters=COUNTERS, tunnel=Counters(rx_bytes=5, tx_bytes=6)),
    )


def test_stats_show_what_each_container_received_and_sent(agent: ServedAgent, netagent_cli: Cli) -> None:
    lines = [line.split() for line in netagent_cli("stats", "--no-stream", "web").stdout.splitlines()]
    assert " ".join(lines[0]) == (
        "CONTAINER ID NAME NETWORK INTERFACE NET I/O RX PACKETS RX DROPPED TX PACKETS TX DROPPED"
    )
    assert " ".join(lines[1]) == "cccccccccccc web staticnet eth0 1.23MB / 1kB 900 7 12 0"
    assert agent.fake.asked == [("stats", ("web",))]


def test_stats_as_json_are_numbers_of_bytes_and_packets(netagent_cli: Cli) -> None:
    assert json.loads(netagent_cli("stats", "--format", "json").stdout) == {
        "ID": "c" * 12,
        "Name": "web",
        "Network": "staticnet",
        "Interface": "eth0",
        "NetIO": "1.23MB / 1kB",
        "RxBytes": 1234567,
        "RxPackets": 900,
        "RxDropped": 7,
        "TxBytes": 1000,
        "TxPackets": 12,
        "TxDropped": 0,
        "Ports": {},
    }
    template = "table {{.Name}}\t{{.NetIO}}"
    assert netagent_cli("stats", "--format", template).stdout == "NAME      NET I/O\nweb       1.23MB / 1kB\n"


def test_stats_of_networks_add_up_and_tell_the_tunnel(agent: ServedAgent, netagent_cli: Cli) -> None:
    (shown,) = map(json.loads, netagent_cli("network", "stats", "--format", "json", "staticnet").stdout.splitlines())
    assert (shown["Name"], shown["Containers"], shown["RxBytes"]) == ("staticnet", 2, 1234567)
    assert (shown["TunnelRxBytes"], shown["TunnelTxBytes"], shown["TunnelIO"]) == (5, 6, "5B / 6B")
    assert agent.fake.asked == [("network-stats", ("staticnet",))]
    assert "5B / 6B" in netagent_cli("network", "stats").stdout


@pytest.mark.parametrize(
    ("octets", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (1234, "1.23kB"), (48 * 10**6, "48MB"), (10**15, "1PB")],
)
def test_sizes_are_written_as_docker_writes_them(octets: int, text: str) -> None:
    assert human_size(octets) == text
