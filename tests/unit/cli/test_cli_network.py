import json
from dataclasses import replace
from textwrap import dedent
from types import MappingProxyType

import pytest

from netagent.errors import AlreadyExists, Unavailable
from netagent.model.block import BlockState
from netagent.model.ids import ContainerId, NetworkId
from netagent.model.network import Network, Scope
from netagent.services.requests import NetworkView, NewNetwork
from tests.support.fake_agent import CREATED, ServedAgent
from tests.support.world import H1, H2, a_block, a_host, a_local_network, an_endpoint, an_overlay
from tests.unit.cli.conftest import Cli


def _without_interface(name: str, digit: str) -> Network:
    return Network(id=NetworkId(digit * 64), name=name, driver=name, scope=Scope.LOCAL, created=CREATED)


def _known() -> list[NetworkView]:
    bridge = replace(a_local_network("172.17.0.0/24", "fd00:17::/64", name="bridge"), created=CREATED)
    overlay = replace(an_overlay(), created=CREATED, labels=MappingProxyType({"tier": "db", "env": "test"}))
    return [
        NetworkView(network=network)
        for network in (bridge, _without_interface("host", "1"), _without_interface("none", "2"), overlay)
    ]


def test_ls_has_dockers_columns_and_the_subnets(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.networks_known = _known()
    assert netagent_cli("network", "ls").stdout == dedent(
        """\
        NETWORK ID     NAME        DRIVER    SCOPE     SUBNET
        bbbbbbbbbbbb   bridge      bridge    local     172.17.0.0/24,fd00:17::/64
        111111111111   host        host      local
        222222222222   none        null      local
        aaaaaaaaaaaa   staticnet   vxlan     global    192.168.0.0/16
        """
    )


def test_list_is_ls(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.networks_known = _known()
    assert netagent_cli("network", "list").stdout == netagent_cli("network", "ls").stdout


def test_ls_can_show_whole_ids_or_nothing_else(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.networks_known = _known()
    assert netagent_cli("network", "ls", "-q").stdout.split() == [d * 12 for d in "b12a"]
    assert netagent_cli("network", "ls", "-q", "--no-trunc").stdout.split() == [d * 64 for d in "b12a"]


def test_ls_as_json_has_dockers_keys_one_object_a_line(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.networks_known = _known()
    lines = netagent_cli("network", "ls", "--format", "json").stdout.splitlines()
    assert lines[3] == (
        '{"CreatedAt":"2026-01-02 03:04:05.000006 +0000 UTC","Driver":"vxlan","ID":"aaaaaaaaaaaa","IPv4":"true",'
        '"IPv6":"false","Internal":"false","Labels":"env=test,tier=db","Name":"staticnet","Scope":"global",'
        '"Subnet":"192.168.0.0/16"}'
    )
    assert [json.loads(line)["Name"] for line in lines] == ["bridge", "host", "none", "staticnet"]


def test_create_prints_the_id_and_nothing_else(agent: ServedAgent, netagent_cli: Cli) -> None:
    result = netagent_cli(
        *("network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "--subnet", "fd00::/48"),
        *("--gateway", "192.168.0.1", "--host-prefix", "24", "--internal", "--ipv6", "-o", "vni=5000", "-o", "flag"),
        *("--ip-range", "192.168.4.0/24", "--aux-address", "router=192.168.0.9"),
        *("--label", "env=a=b", "staticnet"),
    )
    assert (result.exit_code, result.stdout, result.stderr) == (0, "9c" * 32 + "\n", "")
    assert agent.fake.asked == [
        (
            "network create",
            NewNetwork(
                name="staticnet",
                driver="vxlan",
                subnets=("192.168.0.0/16", "fd00::/48"),
                gateways=("192.168.0.1",),
                ip_ranges=("192.168.4.0/24",),
                aux_addresses={"router": "192.168.0.9"},
                host_prefix=24,
                internal=True,
                ipv6=True,
                options={"vni": "5000", "flag": ""},
                labels={"env": "a=b"},
            ),
        )
    ]


def test_create_without_options_leaves_the_choice_to_the_agent(agent: ServedAgent, netagent_cli: Cli) -> None:
    netagent_cli("network", "create", "app")
    assert agent.fake.asked == [("network create", NewNetwork(name="app", aux_addresses={}, options={}, labels={}))]


def test_a_refusal_is_one_line_with_the_way_out(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.refusals["network create"] = AlreadyExists("network with name app already exists", hint="choose another")
    result = netagent_cli("network", "create", "app")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "netagent: network with name app already exists (choose another)\n"


def _detailed() -> NetworkView:
    local = an_endpoint("192.168.1.2", digit="d", fixed=True)
    remote = replace(an_endpoint("192.168.2.7", digit="e"), container_id=ContainerId("f" * 64), container_name="db")
    return NetworkView(
        network=replace(an_overlay(), created=CREATED),
        endpoints=((local, a_host(1)), (remote, a_host(2))),
        blocks=(
            (a_block("192.168.1.0/24", H1), a_host(1), 1),
            (replace(a_block("192.168.2.0/24", H2, own=False), state=BlockState.DRAINING, epoch=3), None, 0),
        ),
        effective_mtu=1450,
    )


def test_inspect_has_dockers_shape_and_our_blocks(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.networks_known = [_detailed()]
    (shown,) = json.loads(netagent_cli("network", "inspect", "staticnet").stdout)
    mac = {e.id: e.mac for e, _ in _detailed().endpoints}
    assert shown == {
        "Name": "staticnet",
        "Id": "a" * 64,
        "Created": CREATED,
        "Scope": "global",
        "Driver": "vxlan",
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {
            "Driver": "default",
            "Options": {},
            "Config": [{"Subnet": "192.168.0.0/16", "Gateway": "192.168.0.1"}],
        },
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Options": {},
        "Labels": {},
        "Containers": {
            "c" * 64: {
                "Name": "web",
                "EndpointID": "d" * 64,
                "MacAddress": mac["d" * 64],
                "IPv4Address": "192.168.1.2/16",
                "IPv6Address": "",
                "Host": "h1",
            },
            "ep-" + "e" * 64: {
                "Name": "db",
                "EndpointID": "e" * 64,
                "MacAddress": mac["e" * 64],
                "IPv4Address": "192.168.2.7/16",
                "IPv6Address": "",
                "Host": "h2",
            },
        },
        "Peers": [{"Name": "h1", "IP": "198.18.0.1"}, {"Name": "h2", "IP": "198.18.0.2"}],
        "VNI": 4097,
        "MTU": 1450,
        "State": "active",
        "Blocks": [
            {
                "Prefix": "192.168.1.0/24",
                "Host": "h1",
                "HostId": H1,
                "OwnAddress": "192.168.1.0",
                "State": "confirmed",
                "Epoch": 1,
                "IPsInUse": 1,
            },
            {
                "Prefix": "192.168.2.0/24",
                "Host": "",
                "HostId": H2,
                "OwnAddress": "",
                "State": "draining",
                "Epoch": 3,
                "IPsInUse": 0,
            },
        ],
    }
    assert list(shown)[:4] == ["Name", "Id", "Created", "Scope"]


def test_a_local_network_has_no_peers(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.networks_known = [NetworkView(network=a_local_network(), endpoints=((an_endpoint(), a_host(1)),))]
    (shown,) = json.loads(netagent_cli("network", "inspect", "app").stdout)
    assert "Peers" not in shown
    assert "VNI" not in shown


def test_inspect_shows_what_it_finds_and_names_the_rest(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.networks_known = [_detailed()]
    result = netagent_cli("network", "inspect", "gone", "staticnet")
    assert [network["Name"] for network in json.loads(result.stdout)] == ["staticnet"]
    assert (result.exit_code, result.stderr) == (1, "netagent: network gone not found\n")


def test_rm_prints_names_and_goes_on_after_an_error(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.networks_known = _known()
    result = netagent_cli("network", "rm", "bridge", "gone", "staticnet")
    assert (result.exit_code, result.stdout) == (1, "bridge\nstaticnet\n")
    assert result.stderr == "netagent: network gone not found\n"


def test_rm_tells_whom_it_waits_for_once_each(
    agent: ServedAgent, netagent_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netagent.cli.network.PATIENCE_S", 0.0)
    agent.fake.networks_known = [_detailed()]
    agent.fake.removal_waits = [("h2", "h3"), ("h2", "h3"), ("h3",)]
    result = netagent_cli("network", "rm", "staticnet")
    assert (result.exit_code, result.stdout) == (0, "staticnet\n")
    assert result.stderr == "staticnet: waiting for h2, h3\nstaticnet: waiting for h3\n"


def test_rm_says_nothing_of_a_moments_wait(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.networks_known = [_detailed()]
    agent.fake.removal_waits = [("h1",)]
    assert netagent_cli("network", "rm", "staticnet").stderr == ""


def test_rm_names_the_hosts_from_which_it_was_taken(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.networks_known = [_detailed()]
    agent.fake.removal_waits = [("h9",)]
    result = netagent_cli("network", "rm", "-f", "staticnet")
    assert (result.exit_code, result.stdout) == (0, "staticnet\n")
    assert result.stderr == "staticnet: taken from h9, which did not answer\n"


def test_rm_with_force_does_not_mind_what_is_not_there(agent: ServedAgent, netagent_cli: Cli) -> None:
    result = netagent_cli("network", "rm", "-f", "gone")
    assert (result.exit_code, result.output) == (0, "")
    assert ("network remove", "gone", True) in agent.fake.asked


@pytest.mark.parametrize("verb", ["rm", "remove"])
def test_a_removal_that_fails_half_way_says_so(agent: ServedAgent, netagent_cli: Cli, verb: str) -> None:
    agent.fake.refusals["network remove"] = Unavailable("h2 did not give its blocks back", hint="use -f")
    result = netagent_cli("network", verb, "staticnet")
    assert (result.exit_code, result.stderr) == (1, "netagent: h2 did not give its blocks back (use -f)\n")


@pytest.mark.parametrize("words", [("network", "create"), ("network", "create", "--host-prefix", "0", "x"), ("x",)])
def test_wrong_usage_ends_with_two(netagent_cli: Cli, words: tuple[str, ...]) -> None:
    assert netagent_cli(*words).exit_code == 2


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["driver=vxlan"], ["staticnet"]),
        (["driver=vxlan", "driver=host"], ["host", "staticnet"]),
        (["name=at"], ["staticnet"]),
        (["name=^stat$"], []),
        (["id=^a"], ["staticnet"]),
        (["label=env"], ["staticnet"]),
        (["label=env=test", "label=tier"], ["staticnet"]),
        (["label=env=test", "label=tier=web"], []),
        (["scope=local", "driver=bridge"], ["bridge"]),
        (["type=custom"], ["staticnet"]),
        (["type=builtin"], ["bridge", "host", "none"]),
        (["dangling=true"], ["staticnet"]),
        (["dangling=0"], ["bridge", "host", "none"]),
    ],
)
def test_ls_filters_as_docker_does(agent: ServedAgent, netagent_cli: Cli, filters: list[str], names: list[str]) -> None:
    agent.fake.networks_known = _known()
    words = [word for text in filters for word in ("--filter", text)]
    assert netagent_cli("network", "ls", *words, "--format", "{{.Name}}").stdout.split() == names


@pytest.mark.parametrize("text", ["colour=red", "driver", "type=odd", "scope=moon", "dangling=maybe", "name=("])
def test_a_filter_that_means_nothing_is_refused(netagent_cli: Cli, text: str) -> None:
    result = netagent_cli("network", "ls", "-f", text)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("netagent: invalid filter")


def test_ls_takes_templates_also_as_a_table(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.networks_known = _known()
    assert netagent_cli("network", "ls", "--format", "{{.ID}}: {{.Driver}}").stdout.splitlines()[3] == (
        "aaaaaaaaaaaa: vxlan"
    )
    assert netagent_cli(
        "network", "ls", "--format", 'table {{.Name}}\\t{{.Label "com.a.ti-er"}}{{.Label "tier"}}'
    ).stdout == (
        dedent(
            """\
            NAME        ti ertier
            bridge
            host
            none
            staticnet   db
            """
        )
    )
    assert (
        json.loads(netagent_cli("network", "ls", "--format", "{{json .}}").stdout.splitlines()[3])["Name"]
        == "staticnet"
    )


def test_ls_raw_has_dockers_lines(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.networks_known = _known()[3:]
    assert netagent_cli("network", "ls", "--format", "raw").stdout == (
        "network_id: aaaaaaaaaaaa\nname: staticnet\ndriver: vxlan\nscope: global\n\n"
    )


def test_a_template_that_is_wrong_is_refused_before_anything_is_asked(agent: ServedAgent, netagent_cli: Cli) -> None:
    result = netagent_cli("network", "ls", "--format", "{{.Name")
    assert (result.exit_code, result.stderr.partition(" (")[0]) == (
        1,
        "netagent: invalid --format at 1:1: this {{ has no }}",
    )
    assert agent.fake.asked == []
    assert netagent_cli("network", "ls", "--format", "yaml").exit_code == 2


def test_inspect_takes_templates(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.networks_known = [_detailed()]
    asked = "{{range .IPAM.Config}}{{.Subnet}}{{end}} {{range .Containers}}{{.Name}} {{end}}"
    assert netagent_cli("network", "inspect", "-f", asked, "staticnet").stdout == "192.168.0.0/16 web db \n"


def test_prune_removes_what_is_not_used_and_tells(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.networks_known = _known()
    result = netagent_cli("network", "prune", "-f")
    assert (result.exit_code, result.stdout) == (0, "Deleted Networks:\nstaticnet\n\n")
    assert [asked for asked in agent.fake.asked if asked[0] == "network remove"] == [
        ("network remove", "a" * 64, False)
    ]


def test_prune_asks_first(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.networks_known = _known()
    question = (
        "WARNING! This will remove all custom networks not used by at least one container.\n"
        "Are you sure you want to continue? [y/N] "
    )
    refused = netagent_cli("network", "prune", input="n\n")
    assert (refused.exit_code, refused.stdout) == (1, question)
    assert refused.stderr == "netagent: network prune has been cancelled\n"
    assert agent.fake.asked == []
    assert netagent_cli("network", "prune", input="y\n").stdout == f"{question}Deleted Networks:\nstaticnet\n\n"


def test_prune_leaves_networks_with_containers_and_says_nothing_then(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.networks_known = [*_known()[:3], _detailed()]
    assert netagent_cli("network", "prune", "-f").output == ""


@pytest.mark.parametrize(
    ("text", "is_removed"),
    [
        ("label=env", True),
        ("label!=env", False),
        ("label!=other", True),
        ("until=2026-01-02T03:04:06Z", True),
        ("until=2026-01-02T03:04:05Z", False),
        ("until=1h30m", True),
        ("until=1767323046", True),
    ],
)
def test_prune_filters(agent: ServedAgent, netagent_cli: Cli, text: str, is_removed: bool) -> None:
    agent.fake.networks_known = _known()
    shown = netagent_cli("network", "prune", "-f", "--filter", text, "--format", "json").stdout
    assert json.loads(shown) == {"NetworksDeleted": ["staticnet"] if is_removed else []}
