import json

from netagent.dns.reply import Answer
from netagent.errors import NotFound
from tests.support.fake_agent import ServedAgent
from tests.unit.cli.conftest import Cli

WEB = Answer(name="web.", type="A", ttl=5, data="10.1.0.5")


def test_dns_shows_what_a_name_stands_for(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.answers = (WEB,)
    result = netagent_cli("dns", "web")
    assert (result.exit_code, result.output.split()) == (
        0,
        ["NAME", "TTL", "TYPE", "DATA", "web.", "5", "A", "10.1.0.5"],
    )
    assert agent.fake.asked == [("resolve", "web", (), "")]


def test_dns_asks_as_a_container_for_other_types_and_prints_json(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.answers = (WEB,)
    result = netagent_cli("dns", "--container", "c1", "--type", "a", "--type", "SRV", "--format", "json", "web")
    assert json.loads(result.output) == {"Name": "web.", "TTL": 5, "Type": "A", "Data": "10.1.0.5"}
    assert agent.fake.asked == [("resolve", "web", ("a", "SRV"), "c1")]


def test_a_name_that_nobody_has_and_one_without_such_records_are_one_line(
    agent: ServedAgent, netagent_cli: Cli
) -> None:
    result = netagent_cli("dns", "web")
    assert (result.exit_code, result.output) == (1, "netagent: name web has no such records (try another --type)\n")
    agent.fake.refusals["resolve"] = NotFound("name web not found")
    result = netagent_cli("dns", "web")
    assert (result.exit_code, result.output) == (1, "netagent: name web not found\n")
