"""``host``, ``info`` and ``events``."""

import json
import signal
from textwrap import dedent

from netagent.services.requests import HostView
from tests.support.fake_agent import CREATED, ServedAgent
from tests.support.world import H1, H2, a_block, a_host, an_overlay
from tests.unit.cli.conftest import Cli, Start


def _hosts() -> list[HostView]:
    return [
        HostView(host=a_host(1), live=True, is_self=True, blocks=((an_overlay(), a_block("192.168.1.0/24", H1)),)),
        HostView(host=a_host(2), live=False, is_self=False),
    ]


def test_host_ls_marks_the_one_that_answers(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.hosts_known = _hosts()
    assert netagent_cli("host", "ls").stdout == dedent(
        """\
        HOST ID                                  NAME      STATUS    ADDRESS      MTU       BLOCKS
        00000000-0000-0000-0000-000000000001 *   h1        Ready     198.18.0.1   1500      1
        00000000-0000-0000-0000-000000000002     h2        Away      198.18.0.2   1500      0
        """
    )


def test_host_ls_as_json_has_the_blocks(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.hosts_known = _hosts()
    first, second = map(json.loads, netagent_cli("host", "ls", "--format", "json").stdout.splitlines())
    assert (first["ID"], first["Self"], first["Blocks"]) == (
        H1,
        True,
        [{"Network": "staticnet", "Prefix": "192.168.1.0/24"}],
    )
    assert (second["ID"], second["Status"], second["Blocks"]) == (H2, "Away", [])


def test_info_says_who_answers_and_what_is_wrong(agent: ServedAgent, netagent_cli: Cli) -> None:
    assert netagent_cli("info").stdout == dedent(
        f"""\
        Version: 0.1.0
        Host: h1
        Host ID: {H1}
        Addresses: 198.18.0.1
        Store: etcd://198.18.0.100:2379 (connected)
        Store revision: 77, heard 4.2 s ago
        Store listed: 1 (compacted), 1 (start)
        Store calls: 3 repeated, 2 replies lost (1 of unknown outcome), 0 changes missed
        Lease: 14.2 s
        Kernel: as it should be
        Run directory: {agent.run_dir}
        Refused records: 1
         networks/odd: unknown feature 'x'
        """
    )
    agent.fake.kernel_error = "kernel refused 'link add'"
    assert json.loads(netagent_cli("info", "--format", "json").stdout)["KernelError"] == "kernel refused 'link add'"
    agent.fake.store_error = "etcd denies it"
    said = "connected, but without this host's latest records: etcd denies it"
    assert f"Store: etcd://198.18.0.100:2379 ({said})\n" in netagent_cli("info").stdout
    agent.fake.store_connected = False
    assert "Store: etcd://198.18.0.100:2379 (not reachable: etcd denies it)\n" in netagent_cli("info").stdout
    assert json.loads(netagent_cli("info", "--format", "json").stdout)["StoreError"] == "etcd denies it"


def test_events_are_printed_as_docker_does(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.events.publish("network", "create", "9c" * 32, name="staticnet", driver="vxlan")
    agent.fake.events.publish("store", "connect", "")
    assert netagent_cli("events").stdout == (
        f"{CREATED} network create {'9c' * 32} (driver=vxlan, name=staticnet)\n{CREATED} store connect\n"
    )


def test_events_as_json_have_dockers_keys(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.events.publish("network", "create", "9c" * 32, name="staticnet")
    (line,) = netagent_cli("events", "--format", "json").stdout.splitlines()
    assert json.loads(line) == {
        "Type": "network",
        "Action": "create",
        "Actor": {"ID": "9c" * 32, "Attributes": {"name": "staticnet"}},
        "scope": "local",
        "time": 1767323045,
        "timeNano": 1767323045000006000,
    }


def test_followed_events_come_as_they_happen(agent: ServedAgent, netagent_start: Start) -> None:
    agent.fake.events.publish("host", "join", "h1")
    with netagent_start("events", "--follow") as following:
        assert following.stdout is not None
        assert following.stdout.readline() == f"{CREATED} host join h1\n"
        agent.call(lambda: agent.fake.events.publish("host", "leave", "h1"))
        assert following.stdout.readline() == f"{CREATED} host leave h1\n"
        following.send_signal(signal.SIGINT)
        assert following.wait(30) == 130
        assert following.stderr is not None
        assert following.stderr.read() == ""
