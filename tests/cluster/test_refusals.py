"""What is refused is refused before anything changes, in one line that names the thing and the way out."""

import pytest

from netagent.lab.lab import Lab
from tests.support.hosts import dump, netagent, refusal, run, same, telling_client_addresses
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

STATIC = ("--network", "staticnet")


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2)
    h1, h2 = lab.hosts
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "staticnet")
    eventually(lambda: "staticnet" in netagent(h2, "network", "ls").stdout)
    run(h1, "web", *STATIC, "--ip", "192.168.0.2", "-p", "4000:80")
    run(h1, "other", *STATIC)
    run(h2, "remote", *STATIC)
    run(h1, "plain")
    run(h1, "side", "--network", "container:web")
    eventually(lambda: _store(lab).count("/netagent/v1/endpoints/") == 3)
    return lab


def _store(lab: Lab) -> str:
    """Return what etcd holds, without what lives by a lease."""
    etcd = lab.etcd[0]
    lines = etcd.run("etcdctl", "--endpoints", etcd.url, "get", "--prefix", "/netagent/v1/").stdout.splitlines()
    return "\n".join(f"{k} {v}" for k, v in zip(lines[::2], lines[1::2], strict=True) if "/live/" not in k)


RUN = {
    "unknown-network": (["--network", "nope"], "network nope not found (netagent network ls shows those there are)"),
    "name-taken": (["--name", "web"], 'Conflict. The container name "web" is already in use by container "'),
    "bad-name": (["--name", "-x"], "invalid container name '-x'"),
    "address-on-default-bridge": (
        ["--ip", "172.16.0.9"],
        "user specified IP address is supported on user defined networks only",
    ),
    "address-outside": ([*STATIC, "--ip", "10.9.9.9"], "no configured subnet contains IP address 10.9.9.9"),
    "address-taken": ([*STATIC, "--ip", "192.168.0.2"], "Address already in use: 192.168.0.2 in network staticnet"),
    "address-of-gateway": ([*STATIC, "--ip", "192.168.0.1"], "Address already in use: 192.168.0.1 is the gateway"),
    "address-in-a-block-of-another-host": ([*STATIC, "--ip", "192.168.2.77"], "address 192.168.2.77 lies in block"),
    "address-malformed": ([*STATIC, "--ip", "192.168.0.300"], "invalid IP address: 192.168.0.300"),
    "mac-malformed": ([*STATIC, "--mac-address", "zz"], "invalid MAC address 'zz'"),
    "alias-on-default-bridge": (
        ["--alias", "x"],
        "network-scoped aliases are only supported for user-defined networks",
    ),
    "port-of-a-container": (
        ["-p", "4000:80"],
        "Bind for 0.0.0.0:4000 failed: port is already allocated (container web",
    ),
    "port-text": (["-p", "x:80"], "invalid hostPort: x"),
    "port-empty": (["-p", "80:"], "no port specified: 80:<empty>"),
    "port-protocol": (["-p", "80:80/icmp"], "invalid proto: icmp"),
    "port-ranges": (["-p", "80-90:80-81"], "invalid ranges specified for container and host Ports: 80-81 and 80-90"),
    "port-address-not-here": (["-p", "203.0.113.1:80:80"], "failed to bind host port 203.0.113.1:80/tcp"),
    "modes-mixed": (
        ["--network", "host", *STATIC],
        "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
    ),
    "none-with-another": (
        ["--network", "none", *STATIC],
        "container cannot be connected to multiple networks with one of the networks in private (none) mode",
    ),
    "container-unknown": (["--network", "container:nope"], "No such container: nope"),
    "ports-of-a-shared-namespace": (
        ["--network", "container:web", "-p", "1:1"],
        "conflicting options: port publishing and the container type network mode",
    ),
    "hostname-of-a-shared-namespace": (
        ["--network", "container:web", "--hostname", "x"],
        "conflicting options: hostname and the network mode",
    ),
    "network-twice": ([*STATIC, *STATIC], "the same network is given twice"),
    "publish-all-of-a-shared-namespace": (
        ["--network", "container:web", "-P"],
        "conflicting options: port publishing and the container type network mode",
    ),
    "hostname-with-a-space": (["--hostname", "a b"], "invalid hostname format: 'a b' ("),
    "hostname-with-a-line-feed": (["--hostname", "a\n10.0.0.1 b"], "invalid hostname format: 'a\\n10.0.0.1 b' ("),
    "hostname-too-long": (["--hostname", "h" * 65], "invalid hostname format: 'hhh"),
    "label-nameless": (["--label", "=x"], "invalid label '=x': empty name ("),
    "no-text": (["--label", "k=\udcff"], "'\\udcff' is not valid UTF-8 ("),
    "directory": (["-w", "here"], "the working directory 'here' is invalid, it needs to be an absolute path"),
    "rootfs": (["--rootfs", "/nowhere"], "--rootfs /nowhere is not a directory"),
    "volume": (["-v", "relative:/x"], "'relative' is not the absolute path of a host directory"),
}

CREATE = {
    "name-taken": (["staticnet"], "network with name staticnet already exists"),
    "predefined": (["bridge"], "operation is not permitted on predefined bridge network"),
    "bad-name": (["a/b"], "invalid network name 'a/b'"),
    "driver": (["--driver", "magic", "x"], 'plugin "magic" not found'),
    "host-bits": (["--subnet", "192.168.1.5/24", "x"], "invalid subnet 192.168.1.5/24: it should be 192.168.1.0/24"),
    "not-a-prefix": (["--subnet", "banana", "x"], "invalid subnet banana"),
    "overlaps-a-network": (["--subnet", "192.168.7.0/24", "x"], "subnet 192.168.7.0/24 overlaps with 192.168.0.0/16"),
    "overlaps-the-underlay": (
        ["--subnet", "198.18.0.0/16", "x"],
        "subnet 198.18.0.0/16 overlaps with the host's route",
    ),
    "overlaps-itself": (
        ["--subnet", "10.1.0.0/16", "--subnet", "10.1.1.0/24", "x"],
        "multiple overlapping subnet configuration is not supported",
    ),
    "loopback": (["--subnet", "127.0.0.0/16", "x"], "invalid subnet 127.0.0.0/16: 127.0.0.0/8 is not for containers"),
    "gateway-outside": (
        ["--subnet", "10.1.0.0/16", "--gateway", "10.2.0.1", "x"],
        "invalid gateway 10.2.0.1: parent subnet 10.1.0.0/16 doesn't contain this address",
    ),
    "gateway-alone": (["--gateway", "10.2.0.1", "x"], "every ip-range or gateway must have a corresponding subnet"),
    "mtu": (["--opt", "mtu=-1", "x"], "invalid MTU number: -1"),
    "option": (["--opt", "colour=red", "x"], "unknown option colour"),
}

OTHER = {
    "network-in-use": (
        ["network", "rm", "staticnet"],
        "error while removing network: network staticnet has active endpoints (",
    ),
    "network-predefined": (["network", "rm", "bridge"], "bridge is a pre-defined network and cannot be removed"),
    "network-unknown": (["network", "rm", "nope"], "network nope not found"),
    "inspect-unknown": (["network", "inspect", "nope"], "network nope not found"),
    "container-unknown": (["stop", "nope"], "No such container: nope"),
    "container-nameless": (["stop", ""], "invalid container name or ID: value is empty ("),
    "ports-nobody": (["port", "nope"], "No such container: nope"),
    "port-text": (["port", "web", "99999"], "invalid port: 99999 ("),
    "filter": (["ps", "--filter", "colour=red"], "invalid filter 'colour' (filters are id, name, label, "),
    "publish-shared": (
        ["publish", "side", "81:81"],
        "conflicting options: port publishing and the container type netw",
    ),
    "name-nobody": (["dns", ""], "invalid name '' ("),
    "remove-running": (["rm", "web"], "cannot remove container web: container is running (stop it before removing"),
    "detach-ours": (["detach", "web"], "container web was started by netagent (netagent rm web)"),
    "attach-no-namespace": (["attach", "--netns", "/nowhere", "--name", "x"], "network namespace /nowhere"),
    "attach-the-hosts-own": (["attach", "--netns", "/proc/1/ns/net", "--name", "x"], "/proc/1/ns/net"),
    "attach-a-file": (["attach", "--netns", "/etc/passwd", "--name", "x"], "/etc/passwd"),
    "port-unpublished": (["port", "other", "80"], "no public port '80/tcp' published for other"),
}


@pytest.mark.parametrize("case", RUN)
def test_run_refuses(lab: Lab, case: str) -> None:
    _expect(lab, ["run", "-d", *RUN[case][0], "--", "sleep", "1"], RUN[case][1], status=125)


@pytest.mark.parametrize("case", CREATE)
def test_network_create_refuses(lab: Lab, case: str) -> None:
    driver = [] if "--driver" in CREATE[case][0] else ["--driver", "vxlan"]
    _expect(lab, ["network", "create", *driver, *CREATE[case][0]], CREATE[case][1])


@pytest.mark.parametrize("case", OTHER)
def test_other_commands_refuse(lab: Lab, case: str) -> None:
    _expect(lab, OTHER[case][0], OTHER[case][1])


def _expect(lab: Lab, arguments: list[str], words: str, *, status: int = 1) -> None:
    h1 = lab.host("h1")
    before, stored = dump(h1), _store(lab)
    said = refusal(h1, *arguments, status=status, output="[]\n" if "inspect" in arguments else "")
    assert words in said
    assert same(h1, before)
    assert _store(lab) == stored


def test_a_port_of_a_host_process_is_refused_before_a_block_is_claimed(lab: Lab) -> None:
    h2 = lab.host("h2")
    netagent(h2, "network", "create", "--driver", "vxlan", "--subnet", "10.44.0.0/16", "fresh")
    stored = _store(lab)
    with telling_client_addresses(h2, 4600):
        said = refusal(h2, "run", "-d", "--network", "fresh", "-p", "4600:80", "--", "sleep", "1", status=125)
    assert said.startswith("failed to bind host port 0.0.0.0:4600/tcp: address already in use")
    assert _store(lab) == stored
    netagent(h2, "network", "rm", "fresh")


def test_a_missing_command_and_one_that_cannot_run_end_as_in_docker_and_leave_nothing(lab: Lab) -> None:
    h1 = lab.host("h1")
    before = dump(h1)
    assert netagent(h1, "run", "--rm", "--", "no-such-command", check=False).returncode == 127
    assert netagent(h1, "run", "--rm", "--", "/etc/passwd", check=False).returncode == 126
    assert netagent(h1, "run", "--rm", "--", "sh", "-c", "exit 9", check=False).returncode == 9
    eventually(lambda: same(h1, before))


def test_a_second_agent_on_the_same_state_is_refused(lab: Lab) -> None:
    said = refusal(lab.host("h1"), "agent", "--host-ip", "198.18.0.1")
    assert said.startswith("another agent is running with the state directory /var/lib/netagent")


def test_a_second_agent_in_the_same_network_namespace_is_refused(lab: Lab) -> None:
    said = refusal(lab.host("h1"), "agent", "--state-dir", "/run/x", "--run-dir", "/run/y")
    assert said == "another agent serves this network namespace (stop it first)"


def test_without_an_agent_commands_say_so_and_a_bad_start_says_why(lab: Lab) -> None:
    h2 = lab.host("h2")
    h2.agent.stop()
    try:
        said = refusal(h2, "network", "ls")
        assert "cannot reach the agent at /run/netagent/agent.sock" in said
        assert "netagent agent" in said
        said = refusal(h2, "agent", "--host-ip", "203.0.113.9")
        assert said.startswith("no interface of this host has the address 203.0.113.9")
        h2.path("/run/bad.toml").write_text('store = "etcd://198.18.0.201"\netcd.password_file = "/none"\n')
        said = refusal(h2, "agent", "--config", "/run/bad.toml")
        assert said.startswith("cannot read /none: No such file or directory (see etcd.password_file")
    finally:
        h2.agent.start()


def test_an_agent_without_privileges_says_which_are_missing(lab: Lab) -> None:
    drop = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "netagent", "agent")
    done = lab.host("h1").run(*drop, "--state-dir", "/run/x", "--run-dir", "/run/y", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("netagent: the agent lacks CAP_NET_ADMIN: it changes network devices")
    assert "as root" in done.stderr
