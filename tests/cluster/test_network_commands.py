"""The network commands on a real host, as a user of Docker types them."""

import json

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import (
    address,
    dump,
    fetches,
    inside,
    inspect,
    netagent,
    pings,
    refusal,
    run,
    same,
    serve_name,
)
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2)
    h1, h2 = lab.hosts
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "staticnet")
    netagent(h1, "network", "create", "--subnet", "10.20.0.0/24", "app")
    eventually(lambda: "staticnet" in netagent(h2, "network", "ls").stdout)
    serve_name(h1, "web", "--network", "app")
    run(h1, "plain", "--network", "app")
    run(h1, "keeper", "--network", "staticnet")
    run(h2, "remote", "--network", "staticnet", "--ip", "192.168.0.9")
    return lab


def _routes(lab: Lab, name: str) -> str:
    return inside(lab.host("h1"), name, "ip", "route", "show", "default", check=True).stdout


def test_a_running_container_is_connected_and_disconnected_live(lab: Lab) -> None:
    h1, _ = lab.hosts
    route = _routes(lab, "plain")
    assert not pings(h1, "plain", "192.168.0.9")
    assert netagent(h1, "network", "connect", "--ip", "192.168.0.7", "--alias", "x", "staticnet", "plain").stdout == ""
    eventually(lambda: pings(h1, "plain", "192.168.0.9"))
    settings = inspect(h1, "plain")["NetworkSettings"]["Networks"]
    assert (settings["staticnet"]["IPAddress"], settings["staticnet"]["Interface"]) == ("192.168.0.7", "eth1")
    assert _routes(lab, "plain") == route
    netagent(h1, "restart", "-t", "0", "plain")
    assert inspect(h1, "plain")["NetworkSettings"]["Networks"]["staticnet"]["IPAddress"] == "192.168.0.7"
    eventually(lambda: pings(h1, "plain", "192.168.0.9"))
    assert netagent(h1, "network", "disconnect", "staticnet", "plain").stdout == ""
    assert not pings(h1, "plain", "192.168.0.9")
    assert list(inspect(h1, "plain")["NetworkSettings"]["Networks"]) == ["app"]


def test_connecting_and_disconnecting_leaves_no_trace(lab: Lab) -> None:
    h1, _ = lab.hosts
    netagent(h1, "network", "connect", "staticnet", "plain")
    netagent(h1, "network", "disconnect", "staticnet", "plain")
    before = dump(h1)
    netagent(h1, "network", "connect", "--ip", "192.168.0.8", "staticnet", "plain")
    netagent(h1, "network", "disconnect", "staticnet", "plain")
    eventually(lambda: same(h1, before))


def test_the_default_route_goes_over_to_the_network_that_is_left(lab: Lab) -> None:
    h1, _ = lab.hosts
    netagent(h1, "network", "connect", "staticnet", "plain")
    netagent(h1, "network", "disconnect", "app", "plain")
    assert "dev eth1" in _routes(lab, "plain")
    netagent(h1, "network", "disconnect", "staticnet", "plain")
    netagent(h1, "network", "connect", "app", "plain")
    assert "dev eth0" in _routes(lab, "plain")


def test_a_namespace_is_connected_too(lab: Lab) -> None:
    h1, _ = lab.hosts
    h1.run("ip", "netns", "add", "guest")
    netagent(h1, "attach", "--netns", "/run/netns/guest", "--name", "guest", "--network", "app")
    netagent(h1, "network", "connect", "staticnet", "guest")
    links = json.loads(h1.run("nsenter", "--net=/run/netns/guest", "ip", "-j", "link").stdout)
    assert {"eth0", "eth1"} <= {link["ifname"] for link in links}
    netagent(h1, "detach", "guest")
    h1.run("ip", "netns", "del", "guest")


def test_prune_takes_only_what_no_container_uses(lab: Lab) -> None:
    h1, h2 = lab.hosts
    netagent(h1, "network", "create", "--label", "old", "spare")
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "10.77.0.0/16", "remote-only")
    eventually(lambda: "remote-only" in netagent(h2, "network", "ls").stdout)
    run(h2, "far", "--network", "remote-only")
    unused = ("network", "ls", "--filter", "dangling=true", "--format", "{{.Name}}")
    eventually(lambda: netagent(h1, *unused).stdout.split() == ["spare"])
    assert netagent(h1, "network", "prune", "-f", "--filter", "label=new").stdout == ""
    assert netagent(h1, "network", "prune", "-f").stdout == "Deleted Networks:\nspare\n\n"
    names = netagent(h1, "network", "ls", "--filter", "type=custom", "--format", "{{.Name}}").stdout.split()
    assert names == ["app", "remote-only", "staticnet"]
    netagent(h2, "rm", "-f", "far")
    eventually(lambda: "remote-only" in netagent(h1, *unused).stdout)
    netagent(h1, "network", "rm", "remote-only")


def test_templates_read_what_is_there(lab: Lab) -> None:
    h1, _ = lab.hosts
    ip = netagent(h1, "inspect", "-f", "{{.NetworkSettings.Networks.app.IPAddress}}", "web").stdout.strip()
    assert ip.startswith("10.20.0.")
    assert netagent(h1, "ps", "--format", "{{.Names}} {{.State}}").stdout.split("\n")[0].endswith(" running")
    run(h1, "labelled", "--label", "tier=db", "--label", "com.example.x")
    netagent(h1, "restart", "-t", "0", "labelled")
    assert netagent(h1, "inspect", "-f", "{{json .Config.Labels}}", "labelled").stdout == (
        '{"com.example.x":"","tier":"db"}\n'
    )
    assert netagent(h1, "ps", "-qf", "label=tier=db").stdout == inspect(h1, "labelled")["Id"][:12] + "\n"
    netagent(h1, "stop", "-t", "0", "labelled")
    assert netagent(h1, "ps", "-q", "--filter", "label=tier").stdout == ""
    assert (
        netagent(h1, "ps", "-f", "status=exited", "--format", '{{.Names}} {{.Label "tier"}}').stdout == "labelled db\n"
    )
    netagent(h1, "rm", "labelled")
    assert "there is no field 'Nope'" in refusal(h1, "inspect", "-f", "{{.Nope}}", "web")


def test_interfaces_settings_and_capabilities_are_as_asked_for(lab: Lab) -> None:
    h1, _ = lab.hosts
    before = dump(h1)
    prefix = "com.docker.network.container_iface_prefix=net"
    ifname = "com.docker.network.endpoint.ifname"
    netagent(h1, "network", "create", "--subnet", "10.22.0.0/24", "-o", prefix, "named")
    settings = ("--sysctl", "net.ipv4.ip_forward=0", "--sysctl", "net.ipv4.conf.net0.log_martians=1")
    networks = ("--network", f"name=app,driver-opt={ifname}=front", "--network", "named")
    run(h1, "odd", *networks, *settings, "--cap-add", "net_admin", "--cap-drop", "chown")
    netagent(h1, "network", "connect", "--driver-opt", f"{ifname}=back", "staticnet", "odd")
    for _ in range(2):
        links = json.loads(inside(h1, "odd", "ip", "-j", "link", check=True).stdout)
        assert {link["ifname"] for link in links} == {"lo", "front", "net0", "back"}
        shown = inside(h1, "odd", "cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf/net0/log_martians")
        assert shown.stdout.split() == ["0", "1"]
        netagent(h1, "restart", "-t", "0", "odd")
    assert inside(h1, "odd", "ip", "link", "set", "front", "mtu", "1400").returncode == 0
    assert inside(h1, "odd", "chown", "1", "/tmp").returncode != 0
    assert (inspect(h1, "odd")["HostConfig"]["CapAdd"]) == ["CAP_NET_ADMIN"]
    netagent(h1, "rm", "-f", "odd")
    netagent(h1, "network", "rm", "named")
    for options, said in (
        (["--sysctl", "kernel.panic=1"], "sysctl 'kernel.panic=1' is not allowed ("),
        (["--sysctl", "net.no.such=1"], "the OCI runtime refused to create container "),
        (
            ["--sysctl", "net.ipv4.ip_forward=1", "--network", "host"],
            "sysctl 'net.ipv4.ip_forward' not allowed in host",
        ),
        (["--cap-add", "nope"], "invalid CapAdd: unknown capability: 'nope' ("),
        (["--network", "name=app,interface=lo"], "interface lo is there already ("),
        (["--network", "name=app,driver-opt=a=b"], "unknown driver option a ("),
    ):
        assert refusal(h1, "run", "-d", *options, "--", "true", status=125).startswith(said)
    eventually(lambda: same(h1, before))


def test_a_network_gives_its_containers_routes_and_may_be_nobodys_way_out(lab: Lab) -> None:
    h1, _ = lab.hosts
    create = ("network", "create", "--subnet")
    netagent(h1, *create, "10.23.0.0/24", "--route", "10.99.0.0/16,10.23.0.9", "-o", "no_default_route=true", "side")
    netagent(h1, *create, "10.24.0.0/24", "--route", "10.98.0.0/16,10.24.0.9", "beside")
    netagent(h1, *create, "10.25.0.0/24", "--route", "10.99.0.0/16,10.25.0.9", "rival")
    run(h1, "routed", "--network", "name=side,gw-priority=9", "--network", "beside")
    for _ in range(2):
        routes = inside(h1, "routed", "ip", "route", check=True).stdout
        assert "10.99.0.0/16 via 10.23.0.9 dev eth0" in routes
        assert "10.98.0.0/16 via 10.24.0.9 dev eth1" in routes
        assert "default via 10.24.0.1 dev eth1" in routes
        assert "default via 10.23.0.1" not in routes
        netagent(h1, "restart", "-t", "0", "routed")
    assert inspect(h1, "routed")["NetworkSettings"]["Networks"]["side"]["Gateway"] == ""
    said = "networks side and rival both have a route to 10.99.0.0/16 ("
    assert refusal(h1, "network", "connect", "rival", "routed").startswith(said)
    both = ("--network", "side", "--network", "rival")
    assert refusal(h1, "run", "-d", *both, "--", "true", status=125).startswith(said)
    for options, said in (
        (["--route", "10.99.0.0/16,10.9.9.9"], "gateway 10.9.9.9 of the route to 10.99.0.0/16 is not in network x ("),
        (["--route", "10.99.0.0/16"], "invalid route '10.99.0.0/16' ("),
        (
            ["--route", "10.99.0.1/16,10.26.0.9"],
            "invalid destination of a route 10.99.0.1/16: it should be 10.99.0.0/16",
        ),
        (["--route", "fd99::/64,fd26::9"], "invalid route to fd99::/64 ("),
        (["--dns", "x"], "--dns x: IP address is not correctly formatted ("),
    ):
        assert refusal(h1, *create, "10.26.0.0/24", *options, "x").startswith(said), options
    netagent(h1, "rm", "-f", "routed")
    netagent(h1, "network", "rm", "side", "beside", "rival")


def test_a_network_with_ranges_and_options_is_made_as_asked_and_shown_so(lab: Lab) -> None:
    h1, _ = lab.hosts
    netagent(
        h1,
        *(
            "network",
            "create",
            "--subnet",
            "10.21.0.0/24",
            "--ip-range",
            "10.21.0.64/26",
            "--aux-address",
            "r=10.21.0.64",
        ),
        *("--ipv6", "--label", "tier=db", "-o", "mtu=1400", "ranged"),
    )
    run(h1, "ranged1", "--network", "ranged")
    assert inspect(h1, "ranged1")["NetworkSettings"]["IPAddress"] == "10.21.0.65"
    (shown,) = json.loads(netagent(h1, "network", "inspect", "ranged").stdout)
    four, six = shown["IPAM"]["Config"]
    assert four == {
        "Subnet": "10.21.0.0/24",
        "IPRange": "10.21.0.64/26",
        "Gateway": "10.21.0.1",
        "AuxiliaryAddresses": {"r": "10.21.0.64"},
    }
    assert six["Subnet"].startswith("fd")
    assert (shown["Labels"], shown["Options"], shown["EnableIPv6"]) == ({"tier": "db"}, {"mtu": "1400"}, True)
    assert pings(h1, "ranged1", six["Gateway"])
    netagent(h1, "rm", "-f", "ranged1")
    netagent(h1, "network", "rm", "ranged")


def test_ports_are_published_and_taken_back_live(lab: Lab) -> None:
    h1, h2 = lab.hosts
    url = f"http://{h1.ip}:4800/hostname"
    before = dump(h1)
    assert not fetches(h2, url, "web")
    assert netagent(h1, "publish", "web", "4800:80").stdout == "80/tcp -> 0.0.0.0:4800\n"
    assert fetches(h2, url, "web")
    assert netagent(h1, "port", "web").stdout == "80/tcp -> 0.0.0.0:4800\n"
    assert "port is already allocated" in refusal(h1, "publish", "web", "4800:81")
    assert netagent(h1, "unpublish", "web", "80").stdout == ""
    assert not fetches(h2, url, "web")
    assert refusal(h1, "unpublish", "web", "80").startswith("no public port '80/tcp' published for web")
    eventually(lambda: same(h1, before))


def test_publish_all_publishes_what_is_exposed(lab: Lab) -> None:
    h1, h2 = lab.hosts
    serve_name(h1, "served", "--network", "app", "-P", "--expose", "80")
    (port,) = netagent(h1, "port", "served", "80").stdout.split()
    assert fetches(h2, f"http://{h1.ip}:{port.rpartition(':')[2]}/hostname", "served")
    netagent(h1, "rm", "-f", "served")


def test_a_network_is_changed_while_it_is_in_use(lab: Lab) -> None:
    h1, h2 = lab.hosts

    def mtu(host: Host, name: str) -> str:
        return inside(host, name, "cat", "/sys/class/net/eth0/mtu", check=True).stdout.strip()

    assert mtu(h1, "keeper") == "1450"
    assert netagent(h1, "network", "update", "-o", "mtu=1300", "--label", "a=b", "staticnet").stdout == "staticnet\n"
    assert mtu(h1, "keeper") == "1300"
    eventually(lambda: mtu(h2, "remote") == "1300")
    shown = netagent(h2, "network", "inspect", "-f", "{{.Labels.a}} {{.Options.mtu}}", "staticnet").stdout
    assert shown == "b 1300\n"
    netagent(h1, "network", "update", "-o", "mtu=", "--label-rm", "a", "staticnet")
    assert mtu(h1, "keeper") == "1450"


REFUSED = {
    "twice": (["connect", "app", "web"], "endpoint with name web already exists in network app"),
    "host": (
        ["connect", "host", "web"],
        "cannot connect container to host network - container must be created in host network mode",
    ),
    "none": (
        ["connect", "none", "web"],
        "container cannot be connected to multiple networks with one of the networks in private (none) mode",
    ),
    "no-container": (["connect", "app", "nope"], "No such container: nope"),
    "no-network": (["connect", "nope", "web"], "network nope not found"),
    "address-outside": (
        ["connect", "--ip", "10.9.9.9", "staticnet", "web"],
        "no configured subnet contains IP address 10.9.9.9",
    ),
    "address-taken": (
        ["connect", "--ip", "192.168.0.9", "staticnet", "web"],
        "Address already in use: 192.168.0.9 in network staticnet",
    ),
    "alias-on-bridge": (
        ["connect", "--alias", "x", "bridge", "web"],
        "network-scoped aliases are only supported for user-defined networks",
    ),
    "not-connected": (["disconnect", "staticnet", "web"], "is not connected to network staticnet"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_changes_nothing(lab: Lab, case: str) -> None:
    h1, _ = lab.hosts
    before = dump(h1)
    assert REFUSED[case][1] in refusal(h1, "network", *REFUSED[case][0])
    assert same(h1, before)


def test_a_network_in_use_gets_a_further_subnet_and_gives_it_back(lab: Lab) -> None:
    h1, _ = lab.hosts
    before = dump(h1)
    assert netagent(h1, "network", "update", "--subnet", "fd00:20::/64", "app").stdout == "app\n"
    run(h1, "six", "--network", "app")
    assert inspect(h1, "six")["NetworkSettings"]["GlobalIPv6Address"].startswith("fd00:20::")
    assert pings(h1, "six", "fd00:20::1")
    assert pings(h1, "six", address(h1, "web"))
    said = refusal(h1, "network", "update", "--subnet-rm", "fd00:20::/64", "app")
    assert said.startswith("a subnet of network app cannot be removed: six has an address in it")
    said = refusal(h1, "network", "update", "--subnet", "192.168.4.0/24", "app")
    assert said.startswith("subnet 192.168.4.0/24 overlaps with 192.168.0.0/16 of network staticnet")
    netagent(h1, "network", "disconnect", "app", "web")
    netagent(h1, "network", "connect", "app", "web")
    assert pings(h1, "six", address(h1, "web", 6))
    netagent(h1, "rm", "-f", "six")
    netagent(h1, "network", "disconnect", "app", "web")
    assert netagent(h1, "network", "update", "--remove-subnet", "fd00:20::/64", "app").stdout == "app\n"
    netagent(h1, "network", "connect", "app", "web")
    after = dump(h1)
    assert "fd00:20" not in str(after)
    assert after["routes"] == before["routes"]
