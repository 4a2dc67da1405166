import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent

import pytest

from netagent.cli.output import human_duration
from netagent.errors import Conflict
from netagent.model.container import Container, ContainerKind, ContainerState, NetworkMode
from netagent.model.ids import ContainerId, EndpointId
from netagent.services.requests import Attachment, Connection, ContainerView
from tests.support.fake_agent import CREATED, ServedAgent
from tests.support.world import STATICNET, a_local_network, an_endpoint, an_overlay
from tests.unit.cli.conftest import Cli


def _ago(**times: float) -> str:
    return (datetime.now(UTC) - timedelta(**times)).isoformat().replace("+00:00", "Z")


def _container(name: str, digit: str, **values: object) -> Container:
    fields: dict[str, object] = {
        "id": ContainerId(digit * 64),
        "name": name,
        "kind": ContainerKind.RUN,
        "state": ContainerState.RUNNING,
        "sandbox": f"/run/netagent/netns/{name}",
        "command": ("sleep", "1"),
        "hostname": name,
        "created": CREATED,
        "started": CREATED,
    }
    return Container(**{**fields, **values})  # type: ignore[arg-type]


def _web(**values: object) -> ContainerView:
    first = an_endpoint("192.168.1.2", digit="d", publish=("4000:80", "127.0.0.1:5353:53/udp"), fixed=True)
    second = replace(
        an_endpoint("172.16.0.2", "fd00::2", digit="e", publish=("7000-7002:7000-7002",)),
        network_id=a_local_network().id,
        interface="eth1",
        aliases=("db",),
    )
    container = _container("web", "c", command=("nginx", "-g", "daemon off;", "--long"), **values)
    return ContainerView(
        container=container,
        endpoints=((first, an_overlay()), (second, a_local_network("172.16.0.0/24", "fd00::/64"))),
        pid=4242,
    )


def _all_states() -> list[ContainerView]:
    return [
        ContainerView(container=_container("made", "1", state=ContainerState.CREATED, created="2026-01-01T00:00:01Z")),
        ContainerView(
            container=_container(
                "done",
                "2",
                state=ContainerState.EXITED,
                exit_code=137,
                finished=_ago(hours=3),
                created="2026-01-01T00:00:02Z",
            ),
            endpoints=((an_endpoint(), an_overlay()),),
        ),
        ContainerView(
            container=_container("pod", "3", kind=ContainerKind.CNI, command=(), created=_ago(minutes=5), started=""),
            endpoints=((an_endpoint("192.168.1.9"), None),),
        ),
        ContainerView(
            container=_container(
                "sees", "4", mode=NetworkMode.HOST, started=_ago(days=3), created="2026-01-01T00:00:04Z"
            )
        ),
        ContainerView(
            container=_container(
                "side",
                "5",
                mode=NetworkMode.CONTAINER,
                shares=ContainerId("4" * 64),
                started=_ago(seconds=90),
                created="2026-01-01T00:00:05Z",
            )
        ),
    ]


def test_ps_shows_the_running_with_addresses_and_ports(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.containers_known = [_web(started=_ago(minutes=2, seconds=3))]
    header, row = netagent_cli("ps").stdout.splitlines()
    assert header == (
        "CONTAINER ID   NAME      COMMAND                  STATUS         "
        "NETWORKS                                        PORTS"
    )
    assert row == (
        'cccccccccccc   web       "nginx -g daemon off…"   Up 2 minutes   '
        "staticnet=192.168.1.2, app=172.16.0.2,fd00::2   "
        "0.0.0.0:7000-7002->7000-7002/tcp, [::]:7000-7002->7000-7002/tcp, "
        "127.0.0.1:5353->53/udp, 0.0.0.0:4000->80/tcp"
    )


def test_ps_all_shows_every_state_the_latest_first(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.containers_known = _all_states()
    assert netagent_cli("ps", "-a").stdout == dedent(
        """\
        CONTAINER ID   NAME      COMMAND     STATUS                     NETWORKS                   PORTS
        333333333333   pod       ""          Attached 5 minutes ago     aaaaaaaaaaaa=192.168.1.9
        555555555555   side      "sleep 1"   Up About a minute          container:sees
        444444444444   sees      "sleep 1"   Up 3 days                  host
        222222222222   done      "sleep 1"   Exited (137) 3 hours ago   staticnet
        111111111111   made      "sleep 1"   Created
        """
    )


def test_ps_can_show_ids_only_or_everything_in_full(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.containers_known = [_web()]
    assert netagent_cli("ps", "-q").stdout == "c" * 12 + "\n"
    assert netagent_cli("ps", "-aq", "--no-trunc").stdout == "c" * 64 + "\n"
    assert '"nginx -g daemon off; --long"' in netagent_cli("ps", "--no-trunc").stdout


def test_ps_as_json_has_dockers_keys(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.containers_known = [_web(created=_ago(hours=1), started=_ago(seconds=1.5))]
    (line,) = netagent_cli("ps", "--format", "json").stdout.splitlines()
    shown = json.loads(line)
    assert (shown["ID"], shown["Names"], shown["State"], shown["Status"], shown["RunningFor"]) == (
        "c" * 12,
        "web",
        "running",
        "Up 1 second",
        "About an hour ago",
    )
    assert all(isinstance(value, str) for value in shown.values())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "Less than a second"),
        (59, "59 seconds"),
        (119, "About a minute"),
        (3599, "59 minutes"),
        (3600 * 1.4, "About an hour"),
        (3600 * 47, "47 hours"),
        (86400 * 13, "13 days"),
        (86400 * 20, "2 weeks"),
        (86400 * 70, "2 months"),
        (86400 * 800, "2 years"),
    ],
)
def test_durations_are_in_dockers_words(seconds: float, words: str) -> None:
    assert human_duration(seconds) == words


def test_port_lists_all_in_dockers_form(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.containers_known = [_web()]
    assert netagent_cli("port", "web").stdout == dedent(
        """\
        53/udp -> 127.0.0.1:5353
        80/tcp -> 0.0.0.0:4000
        7000/tcp -> 0.0.0.0:7000
        7000/tcp -> [::]:7000
        7001/tcp -> 0.0.0.0:7001
        7001/tcp -> [::]:7001
        7002/tcp -> 0.0.0.0:7002
        7002/tcp -> [::]:7002
        """
    )


def test_port_of_one_port_is_bare(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.containers_known = [_web()]
    assert netagent_cli("port", "web", "80").stdout == "0.0.0.0:4000\n"
    assert netagent_cli("port", "web", "53/udp").stdout == "127.0.0.1:5353\n"
    assert netagent_cli("port", "web", "80", "--format", "json").stdout == (
        '{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"4000"}]}\n'
    )


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("web", "7890/udp"), "no public port '7890/udp' published for web (netagent port web shows what is)"),
        (("web", "http"), "invalid port: http (for example 80, 80/tcp or 53/udp)"),
        (("gone",), "No such container: gone"),
    ],
)
def test_port_says_what_is_not_there(
    agent: ServedAgent, netagent_cli: Cli, words: tuple[str, ...], complaint: str
) -> None:
    agent.fake.containers_known = [_web()]
    result = netagent_cli("port", *words)
    assert (result.exit_code, result.stderr) == (1, f"netagent: {complaint}\n")


def test_inspect_has_dockers_shape(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.containers_known = [_web(labels=(("tier", "web"),))]
    (shown,) = json.loads(netagent_cli("inspect", "web").stdout)
    settings = shown.pop("NetworkSettings")
    assert shown == {
        "Id": "c" * 64,
        "Created": CREATED,
        "Path": "nginx",
        "Args": ["-g", "daemon off;", "--long"],
        "State": {
            "Status": "running",
            "Running": True,
            "Pid": 4242,
            "ExitCode": 0,
            "StartedAt": CREATED,
            "FinishedAt": "0001-01-01T00:00:00Z",
        },
        "Name": "/web",
        "Kind": "run",
        "RuntimeId": "",
        "HostConfig": {
            "NetworkMode": "staticnet",
            "PortBindings": {
                "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}],
                "80/tcp": [{"HostIp": "", "HostPort": "4000"}],
                **{f"{number}/tcp": [{"HostIp": "", "HostPort": str(number)}] for number in (7000, 7001, 7002)},
            },
            "AutoRemove": False,
            "Links": None,
            "ExtraHosts": None,
            "Dns": [],
            "DnsSearch": [],
            "DnsOptions": [],
            "Sysctls": {},
            "CapAdd": None,
            "CapDrop": None,
        },
        "Config": {
            "Hostname": "web",
            "Tty": False,
            "Cmd": ["nginx", "-g", "daemon off;", "--long"],
            "ExposedPorts": None,
            "Labels": {"tier": "web"},
        },
    }
    networks = settings.pop("Networks")
    assert settings == {
        "SandboxKey": "/run/netagent/netns/web",
        "Ports": {
            "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}],
            "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "4000"}],
            **{
                f"{number}/tcp": [{"HostIp": ip, "HostPort": str(number)} for ip in ("0.0.0.0", "::")]
                for number in (7000, 7001, 7002)
            },
        },
        "Gateway": "192.168.0.1",
        "IPAddress": "192.168.1.2",
        "IPPrefixLen": 16,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "MacAddress": an_endpoint(digit="d").mac,
    }
    assert list(networks) == ["staticnet", "app"]
    assert networks["staticnet"]["IPAMConfig"] == {"IPv4Address": "192.168.1.2"}
    assert networks["app"] == {
        "IPAMConfig": None,
        "Links": None,
        "Aliases": ["db"],
        "DNSNames": ["web", "db", "cccccccccccc"],
        "DriverOpts": None,
        "GwPriority": 0,
        "NetworkID": a_local_network().id,
        "EndpointID": EndpointId("e" * 64),
        "Interface": "eth1",
        "MacAddress": an_endpoint(digit="e").mac,
        "RateIn": 0,
        "RateOut": 0,
        "Gateway": "172.16.0.1",
        "IPAddress": "172.16.0.2",
        "IPPrefixLen": 24,
        "IPv6Gateway": "fd00::1",
        "GlobalIPv6Address": "fd00::2",
        "GlobalIPv6PrefixLen": 64,
    }


def test_an_internal_network_gives_no_gateway(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.containers_known = [
        replace(_web(), endpoints=((an_endpoint("192.168.1.2"), an_overlay(internal=True)),))
    ]
    (shown,) = json.loads(netagent_cli("inspect", "web").stdout)
    assert shown["NetworkSettings"]["Networks"]["staticnet"]["Gateway"] == ""


def test_inspect_of_a_stopped_container_in_a_mode(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.containers_known = [
        ContainerView(
            container=_container(
                "side",
                "5",
                mode=NetworkMode.CONTAINER,
                shares=ContainerId("4" * 64),
                state=ContainerState.EXITED,
                exit_code=3,
                finished=CREATED,
            )
        )
    ]
    (shown,) = json.loads(netagent_cli("inspect", "side").stdout)
    assert shown["State"]["ExitCode"] == 3
    assert shown["State"]["FinishedAt"] == CREATED
    assert shown["HostConfig"]["NetworkMode"] == "container:" + "4" * 64
    assert shown["NetworkSettings"]["Networks"] == {}
    assert shown["NetworkSettings"]["IPAddress"] == ""


def test_inspect_finds_networks_too_and_names_what_is_neither(agent: ServedAgent, netagent_cli: Cli) -> None:
    from netagent.services.requests import NetworkView

    agent.fake.containers_known = [_web()]
    agent.fake.networks_known = [NetworkView(network=an_overlay())]
    result = netagent_cli("inspect", STATICNET, "gone", "web")
    assert [item["Name"] for item in json.loads(result.stdout)] == ["staticnet", "/web"]
    assert (result.exit_code, result.stderr) == (
        1,
        "netagent: No such object: gone (netagent ps -a and network ls show those there are)\n",
    )


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("stop", "-t", "3", "web"), [("stop", "web", 3)]),
        (("stop", "web"), [("stop", "web", 10)]),
        (("start", "web"), [("start", "web")]),
        (("restart", "-t", "0", "web"), [("stop", "web", 0), ("start", "web")]),
        (("rm", "web"), [("remove", "web", False)]),
        (("rm", "-f", "web"), [("remove", "web", True)]),
        (("detach", "web"), [("detach", "web")]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_verbs_print_the_name_as_it_was_given(
    agent: ServedAgent, netagent_cli: Cli, words: tuple[str, ...], asked: list[tuple[object, ...]]
) -> None:
    agent.fake.containers_known = [_web()]
    result = netagent_cli(*words)
    assert (result.exit_code, result.output) == (0, "web\n")
    assert agent.fake.asked == asked


@pytest.mark.parametrize("verb", ["stop", "start", "restart", "rm"])
def test_verbs_go_on_after_a_name_that_fails(agent: ServedAgent, netagent_cli: Cli, verb: str) -> None:
    agent.fake.containers_known = [_web()]
    result = netagent_cli(verb, "gone", "web")
    assert (result.exit_code, result.stdout) == (1, "web\n")
    assert result.stderr == "netagent: No such container: gone\n"


def test_rm_with_force_does_not_mind_what_is_not_there(netagent_cli: Cli) -> None:
    result = netagent_cli("rm", "-f", "gone")
    assert (result.exit_code, result.output) == (0, "")


def test_verbs_print_json_too(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.containers_known = [_web()]
    assert netagent_cli("stop", "--format", "json", "web").stdout == '{"Name":"web"}\n'


def test_attach_asks_for_what_its_options_say(agent: ServedAgent, netagent_cli: Cli) -> None:
    result = netagent_cli(
        *("attach", "--netns", "1234", "--name", "web", "--network", "a", "--net", "b", "--ip", "10.0.0.2"),
        *("--ip6", "fd00::2", "--mac-address", "02:00:00:00:00:01", "--alias", "x", "--network-alias", "y"),
        *("-p", "80:80", "--publish", "81:81", "--interface", "net1", "--label", "a=b=c", "-l", "d"),
    )
    assert (result.exit_code, result.output) == (0, "a7" * 32 + "\n")
    connection = Connection(
        networks=("a", "b"),
        addresses=("10.0.0.2", "fd00::2"),
        mac="02:00:00:00:00:01",
        aliases=("x", "y"),
        publish=("80:80", "81:81"),
    )
    assert agent.fake.asked == [
        (
            "attach",
            Attachment(name="web", netns="1234", connection=connection, interface="net1", labels={"a": "b=c", "d": ""}),
        )
    ]


def test_attach_makes_a_path_absolute(agent: ServedAgent, netagent_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/proc/self")
    netagent_cli("attach", "--netns", "ns/net", "--name", "web")
    assert agent.fake.asked[0][1].netns.endswith("/ns/net")
    assert agent.fake.asked[0][1].netns.startswith("/proc/")


def test_a_refused_attach_is_said(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.refusals["attach"] = Conflict("Address already in use")
    result = netagent_cli("attach", "--netns", "1", "--name", "web")
    assert (result.exit_code, result.stderr) == (1, "netagent: Address already in use\n")


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["name=i"], ["side"]),
        (["name=^/side$"], ["side"]),
        (["id=^3"], ["pod"]),
        (["label=tier"], ["pod", "side"]),
        (["label=tier=db"], ["pod"]),
        (["label=tier", "label=env=x"], ["side"]),
        (["status=exited"], ["done"]),
        (["status=created", "status=running"], ["pod", "side", "sees", "made"]),
        (["exited=137"], []),
        (["status=exited", "exited=137"], ["done"]),
        (["network=host"], ["sees"]),
        (["network=staticnet", "status=exited"], ["done"]),
        (["before=sees"], ["made"]),
        (["since=sees"], ["pod", "side"]),
        (["since=4444", "name=p"], ["pod"]),
    ],
    ids=" ".join,
)
def test_ps_filters_as_docker_does(agent: ServedAgent, netagent_cli: Cli, filters: list[str], names: list[str]) -> None:
    made, done, pod, sees, side = _all_states()
    pod = replace(pod, container=replace(pod.container, labels=(("tier", "db"),)))
    side = replace(side, container=replace(side.container, labels=(("env", "x"), ("tier", ""))))
    agent.fake.containers_known = [made, done, pod, sees, side]
    words = [word for text in filters for word in ("--filter", text)]
    assert netagent_cli("ps", "--format", "{{.Names}}", *words).stdout.split() == names


@pytest.mark.parametrize("port", ["publish=4000", "publish=5353/udp", "publish=6999-7000", "expose=80", "expose=7002"])
def test_ps_filters_by_port(agent: ServedAgent, netagent_cli: Cli, port: str) -> None:
    agent.fake.containers_known = [_web(), *_all_states()]
    assert netagent_cli("ps", "--format", "{{.Names}}", "-f", port).stdout == "web\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ancestor=x", "invalid filter 'ancestor' (filters are id, name, label, "),
        ("name", "invalid filter 'name' (a filter is KEY=VALUE)"),
        ("name=[", "invalid filter '[': "),
        ("status=odd", "invalid filter 'status=odd' (states are "),
        ("exited=x", "invalid filter 'exited=x' (an exit status"),
        ("publish=x", "invalid filter 'publish=x' (PORT[-END][/PROTO])"),
        ("before=nope", "No such container: nope ("),
    ],
)
def test_a_filter_of_ps_that_means_nothing_is_refused(netagent_cli: Cli, text: str, said: str) -> None:
    result = netagent_cli("ps", "--filter", text)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert result.stderr.startswith(f"netagent: {said}")


def test_ps_shows_labels_and_the_last_few(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.containers_known = [_web(labels=(("com.example.tier", "db"), ("x", ""))), *_all_states()]
    assert netagent_cli("ps", "-n", "2", "--format", "{{.Names}}").stdout.split() == ["pod", "web"]
    assert netagent_cli("ps", "-l", "--format", "{{.Names}}").stdout.split() == ["pod"]
    shown = netagent_cli("ps", "-f", "name=web", "--format", 'table {{.Labels}}\t{{.Label "com.example.tier"}}').stdout
    assert [line.split() for line in shown.splitlines()] == [["LABELS", "tier"], ["com.example.tier=db,x=", "db"]]


def test_labels_come_from_files_too(agent: ServedAgent, netagent_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("# remark\n\n  a=file\nb=file\n")
    netagent_cli("run", "-d", "--label-file", str(tmp_path / "labels"), "--label", "a=option", "true")
    assert agent.fake.asked[0][1].labels == {"a": "option", "b": "file"}
    (tmp_path / "labels").write_bytes(b"\xff")
    result = netagent_cli("run", "-d", "--label-file", str(tmp_path / "labels"), "true")
    assert (result.exit_code, result.stderr.count("\n")) == (125, 1)


@pytest.mark.parametrize(
    ("words", "status"),
    [(("network", "create", "\udcff"), 1), (("run", "-d", "--label", "a=\udcff", "true"), 125), (("rm", "\udcff"), 1)],
)
def test_what_is_no_text_is_refused_in_one_line(netagent_cli: Cli, words: tuple[str, ...], status: int) -> None:
    result = netagent_cli(*words)
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr == "netagent: '\\udcff' is not valid UTF-8 (write names, labels and options in UTF-8)\n"
