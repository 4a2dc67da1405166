"""``netagent exposure``."""

import json

from netagent.firewall.verdict import Obstacle
from netagent.services.exposure import ANYWHERE, NETWORK, Exposure, ExposureView
from tests.support.fake_agent import ServedAgent
from tests.unit.cli.conftest import Cli

VIEW = ExposureView(
    ways=(
        Exposure(
            container="web",
            container_id="c" * 64,
            network="app",
            reach=ANYWHERE,
            version=4,
            protocol="tcp",
            address="0.0.0.0",
            ports="4000",
            target="172.16.0.2:80",
            rule="inet netagent publish4 { tcp . 4000 : 172.16.0.2 . 80 }",
            obstacles=(
                Obstacle(where="ip filter FORWARD: policy drop", certain=True),
                Obstacle(where="inet netagent-admin forward: ip saddr 203.0.113.7 drop", certain=False),
            ),
        ),
        Exposure(
            container="web",
            container_id="c" * 64,
            network="staticnet",
            reach=NETWORK,
            version=6,
            protocol="any",
            address="fd00::2",
            ports="any",
            target="fd00::2",
            rule="inet netagent paths { nav1 . nab1 }",
            peers=("h2", "h3"),
        ),
    ),
    warnings=("VXLAN from other hosts is blocked by ip filter INPUT: policy drop",),
)


def test_exposure_says_what_is_reached_from_where_and_what_blocks_it(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.exposed = VIEW
    result = netagent_cli("exposure")
    header, published, inside = (
        [cell.strip() for cell in line.split("   ") if cell] for line in result.stdout.splitlines()
    )
    assert header == ["CONTAINER", "NETWORK", "REACHABLE FROM", "ADDRESS", "TARGET", "RULE", "BLOCKED BY"]
    assert published == [
        "web",
        "app",
        "anywhere",
        "0.0.0.0:4000/tcp",
        "172.16.0.2:80",
        "inet netagent publish4 { tcp . 4000 : 172.16.0.2 . 80 }",
        "ip filter FORWARD: policy drop; maybe inet netagent-admin forward: ip saddr 203.0.113.7 drop",
    ]
    assert inside[2:] == [
        "staticnet on this host, h2, h3",
        "[fd00::2] all ports",
        "fd00::2",
        "inet netagent paths { nav1 . nab1 }",
        "-",
    ]
    assert result.stderr == "warning: VXLAN from other hosts is blocked by ip filter INPUT: policy drop\n"


def test_exposure_as_json_has_every_part(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.exposed = VIEW
    result = netagent_cli("exposure", "--format", "json")
    shown = json.loads(result.stdout)
    assert shown["Warnings"] == list(VIEW.warnings)
    assert result.stderr == ""
    published, inside = shown["Ways"]
    assert published["BlockedBy"][0] == {"Where": "ip filter FORWARD: policy drop", "Certain": True}
    assert (inside["ReachableFrom"], inside["Hosts"], inside["Family"]) == ("network", ["h2", "h3"], "IPv6")
