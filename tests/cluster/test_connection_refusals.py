"""What ``run``, ``connect``, ``disconnect`` and ``attach`` refuse: in Docker's words, and nothing has changed."""

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from netagent.store import keys
from tests.support.hosts import dump, inspect, netagent, refusal, run, same
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

MAC = "02:00:00:00:00:07"


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=1)
    (host,) = lab.hosts
    create = ("network", "create", "--subnet")
    netagent(host, *create, "10.71.0.0/24", "--subnet", "fd71::/64", "--aux-address", "router=10.71.0.9", "app")
    netagent(host, *create, "10.72.0.0/30", "full")
    netagent(host, *create, "192.168.0.0/16", "--driver", "vxlan", "wide")
    run(host, "web", "--network", "app", "--ip", "10.71.0.5", "--ip6", "fd71::5", "--mac-address", MAC)
    run(host, "only", "--network", "full")
    run(host, "plain", "--network", "wide")
    for mode in ("host", "none", "container:web"):
        run(host, f"in-{mode.partition(':')[0]}", "--network", mode)
    run(host, "asleep", "--network", "wide")
    netagent(host, "stop", "-t", "0", "asleep")
    host.run("ip", "netns", "add", "guest")
    # Told after the answer; those in networks on this host alone are in the agent's own store.
    eventually(lambda: _store(lab).count(keys.ENDPOINTS) == 1)
    return lab


CONNECT = {
    "network-unknown": (["nope", "plain"], "network nope not found (netagent network ls shows those there are)"),
    "container-unknown": (["app", "nope"], "No such container: nope (netagent ps -a shows those there are)"),
    "twice": (["app", "web"], "endpoint with name web already exists in network app (netagent network disconnect"),
    "to-host": (
        ["host", "plain"],
        "cannot connect container to host network - container must be created in host network mode (",
    ),
    "to-none": (
        ["none", "plain"],
        "container cannot be connected to multiple networks with one of the networks in private (none) mode (",
    ),
    "of-none": (
        ["app", "in-none"],
        "container cannot be connected to multiple networks with one of the networks in private (none) mode (",
    ),
    "of-host": (
        ["app", "in-host"],
        "container sharing network namespace with another container or host cannot be connected to any other network (",
    ),
    "of-shared": (
        ["app", "in-container"],
        "container sharing network namespace with another container or host cannot be connected to any other network (",
    ),
    "address-on-bridge": (
        ["--ip", "172.16.0.9", "bridge", "plain"],
        "user specified IP address is supported on user defined networks only (",
    ),
    "alias-on-bridge": (
        ["--alias", "db", "bridge", "plain"],
        "network-scoped aliases are only supported for user-defined networks (",
    ),
    "address-outside": (["--ip", "10.9.9.9", "app", "plain"], "no configured subnet contains IP address 10.9.9.9 ("),
    "address6-outside": (["--ip6", "fd99::9", "app", "plain"], "no configured subnet contains IP address fd99::9 ("),
    "family-missing": (["--ip6", "fd71::9", "full", "plain"], "no configured subnet contains IP address fd71::9 ("),
    "address-taken": (["--ip", "10.71.0.5", "app", "plain"], "Address already in use: 10.71.0.5 in network app ("),
    "address6-taken": (["--ip6", "fd71::5", "app", "plain"], "Address already in use: fd71::5 in network app ("),
    "gateway": (
        ["--ip", "10.71.0.1", "app", "plain"],
        "Address already in use: 10.71.0.1 is the gateway of network app",
    ),
    "gateway6": (["--ip6", "fd71::1", "app", "plain"], "Address already in use: fd71::1 is the gateway of network app"),
    "auxiliary": (
        ["--ip", "10.71.0.9", "app", "plain"],
        "Address already in use: 10.71.0.9 is auxiliary in network app",
    ),
    "broadcast": (["--ip", "10.71.0.255", "app", "plain"], "requested address is out of range: 10.71.0.255 cannot be"),
    "anycast6": (["--ip6", "fd71::", "app", "plain"], "requested address is out of range: fd71:: cannot be given"),
    "malformed": (["--ip", "10.71.0.05", "app", "plain"], "invalid IP address: 10.71.0.05"),
    "zone": (["--ip6", "fd71::9%eth0", "app", "plain"], "invalid IP address: fd71::9%eth0 ("),
    "mapped": (["--ip6", "::ffff:10.71.0.9", "app", "plain"], "invalid IP address: ::ffff:10.71.0.9 ("),
    "two-of-a-family": (
        ["--ip", "10.71.0.6", "--ip", "10.71.0.7", "app", "plain"],
        "more than one --ip of the same family (give one IPv4 and one IPv6 address at most)",
    ),
    "pool-empty": (["full", "plain"], "no available addresses on this pool: network full on this host (remove"),
    "mac-malformed": (["--mac-address", "02:00", "app", "plain"], "invalid MAC address '02:00' ("),
    "mac-multicast": (
        ["--mac-address", "01:00:00:00:00:01", "app", "plain"],
        "invalid MAC address '01:00:00:00:00:01' (",
    ),
    "mac-taken": (["--mac-address", MAC, "app", "plain"], f"MAC address {MAC} is already in use in network app by"),
    "stopped-address-taken": (
        ["--ip", "10.71.0.5", "app", "asleep"],
        "Address already in use: 10.71.0.5 in network app",
    ),
    "stopped-twice": (["wide", "asleep"], "endpoint with name asleep already exists in network wide ("),
}

DISCONNECT = {
    "network-unknown": (["nope", "plain"], "network nope not found ("),
    "container-unknown": (["app", "nope"], "No such container: nope ("),
    "from-host": (
        ["host", "in-host"],
        "cannot disconnect container from host network - container was created in host network mode (",
    ),
}

RUN = {
    "address-with-host": (["--network", "host", "--ip", "10.1.1.1"], "user specified IP address is supported on user"),
    "address-with-none": (["--network", "none", "--ip", "10.1.1.1"], "user specified IP address is supported on user"),
    "alias-with-none": (["--network", "none", "--alias", "db"], "network-scoped aliases are only supported for user-"),
    "mac-with-shared": (
        ["--network", "container:web", "--mac-address", MAC],
        "conflicting options: mac-address and the network mode",
    ),
    "expose-with-shared": (
        ["--network", "container:web", "--expose", "80"],
        "conflicting options: port exposing and the container type network mode",
    ),
    "shared-nobody": (["--network", "container:"], "--network container: needs a name ("),
    "shared-asleep": (
        ["--network", "container:asleep"],
        "cannot join network of a non running container: asleep (netagent start asleep)",
    ),
    "host-and-another": (
        ["--network", "app", "--network", "host"],
        "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
    ),
    "none-and-another": (
        ["--network", "app", "--network", "none"],
        "container cannot be connected to multiple networks with one of the networks in private (none) mode",
    ),
    "twice": (
        ["--network", "app", "--network", "name=app"],
        "the same network is given twice (name each --network once)",
    ),
    "second-unknown": (["--network", "app", "--network", "nope"], "network nope not found ("),
    "second-address-taken": (
        ["--network", "wide", "--network", "name=app,ip=10.71.0.5"],
        "Address already in use: 10.71.0.5 in network app (",
    ),
    "second-pool-empty": (
        ["--network", "app", "--network", "full"],
        "no available addresses on this pool: network full",
    ),
    "long-form-key": (["--network", "name=app,colour=red"], "invalid field key colour ("),
    "long-form-nameless": (["--network", "ip=10.71.0.6"], "network name/id is not specified: ip=10.71.0.6 ("),
    "address-twice": (
        ["--network", "name=app,ip=10.71.0.6", "--ip", "10.71.0.7"],
        "conflicting options: cannot specify both --ip and per-network IP address (leave out --ip)",
    ),
    "priority-text": (["--network", "name=app,gw-priority=x"], "invalid gw-priority (x): it should be a whole number"),
}

ATTACH = {
    "to-host": (["--network", "host"], "network host gives no interface"),
    "address-taken": (["--network", "app", "--ip", "10.71.0.5"], "Address already in use: 10.71.0.5 in network app ("),
    "pool-empty": (["--network", "full"], "no available addresses on this pool: network full on this host ("),
    "mac-taken": (["--network", "app", "--mac-address", MAC], f"MAC address {MAC} is already in use in network app by"),
}


@pytest.mark.parametrize("case", CONNECT)
def test_connect_refuses(lab: Lab, case: str) -> None:
    _expect(lab, ["network", "connect", *CONNECT[case][0]], CONNECT[case][1])


@pytest.mark.parametrize("case", DISCONNECT)
def test_disconnect_refuses(lab: Lab, case: str) -> None:
    _expect(lab, ["network", "disconnect", *DISCONNECT[case][0]], DISCONNECT[case][1])


@pytest.mark.parametrize("case", RUN)
def test_run_refuses(lab: Lab, case: str) -> None:
    _expect(lab, ["run", "-d", *RUN[case][0], "--", "sleep", "1"], RUN[case][1], status=125)


@pytest.mark.parametrize("case", ATTACH)
def test_attach_refuses(lab: Lab, case: str) -> None:
    netns = ["--netns", "/run/netns/guest", "--name", "guest"]
    _expect(lab, ["attach", *netns, *ATTACH[case][0]], ATTACH[case][1])


def test_disconnect_of_what_is_not_connected_is_refused_unless_forced(lab: Lab) -> None:
    (host,) = lab.hosts
    identity = inspect(host, "plain")["Id"]
    _expect(
        lab,
        ["network", "disconnect", "app", "plain"],
        f"container {identity} is not connected to network app (netagent inspect plain shows its networks)",
    )
    before, stored = dump(host), _store(lab)
    for container in ("plain", "nope"):
        assert netagent(host, "network", "disconnect", "-f", "app", container).stdout == ""
    assert same(host, before)
    assert _store(lab) == stored


def test_published_ports_are_discarded_with_a_warning_in_host_mode(lab: Lab) -> None:
    (host,) = lab.hosts
    before = dump(host)
    result = netagent(host, "run", "--rm", "--network", "host", "-p", "80:80", "--", "true")
    assert result.stderr == "WARNING: Published ports are discarded when using host network mode\n"
    eventually(lambda: same(host, before))


def test_a_usage_that_is_none_ends_with_its_own_status(lab: Lab) -> None:
    (host,) = lab.hosts
    before = dump(host)
    for arguments, status in (
        (["network", "connect", "app"], 2),
        (["network", "connect", "--gw-priority", "x", "app", "plain"], 2),
        (["run", "-d", "--gw-priority", "99999999999", "--", "true"], 125),
    ):
        result = netagent(host, *arguments, check=False)
        assert (result.returncode, result.stdout) == (status, "")
        assert result.stderr
    assert same(host, before)


def _expect(lab: Lab, arguments: list[str], words: str, *, status: int = 1) -> None:
    host: Host = lab.hosts[0]
    before, stored = dump(host), _store(lab)
    said = refusal(host, *arguments, status=status)
    assert said.startswith(words)
    assert same(host, before)
    assert _store(lab) == stored


def _store(lab: Lab) -> str:
    """Return what the cluster's store holds for good."""
    etcd = lab.etcd[0]
    lines = etcd.run("etcdctl", "--endpoints", etcd.url, "get", "--prefix", keys.ROOT).stdout.splitlines()
    pairs = zip(lines[::2], lines[1::2], strict=True)
    return "\n".join(f"{key} {value}" for key, value in pairs if not key.startswith(keys.LIVE))
