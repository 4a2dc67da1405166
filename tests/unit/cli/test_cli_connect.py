import pytest

from netagent.errors import AlreadyExists
from netagent.services.requests import NewConnection
from tests.support.fake_agent import ServedAgent
from tests.unit.cli.conftest import Cli


def test_connect_says_nothing_and_passes_everything_on(agent: ServedAgent, netagent_cli: Cli) -> None:
    result = netagent_cli(
        *("network", "connect", "--ip", "10.1.0.9", "--ip6", "fd00::9", "--mac-address", "02:00:00:00:00:01"),
        *("--alias", "db", "--alias", "sql", "app", "web"),
    )
    assert (result.exit_code, result.output) == (0, "")
    assert agent.fake.asked == [
        (
            "connect",
            NewConnection(
                network="app",
                container="web",
                addresses=("10.1.0.9", "fd00::9"),
                mac="02:00:00:00:00:01",
                aliases=("db", "sql"),
            ),
        )
    ]


@pytest.mark.parametrize("force", [False, True])
def test_disconnect_says_nothing(agent: ServedAgent, netagent_cli: Cli, force: bool) -> None:
    result = netagent_cli("network", "disconnect", *(["-f"] if force else []), "app", "web")
    assert (result.exit_code, result.output) == (0, "")
    assert agent.fake.asked == [("disconnect", "app", "web", force)]


def test_a_refused_connection_is_one_line(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.refusals["connect"] = AlreadyExists("endpoint with name web already exists in network app")
    result = netagent_cli("network", "connect", "app", "web")
    assert (result.exit_code, result.output) == (1, "netagent: endpoint with name web already exists in network app\n")
