"""What the network commands refuse: the whole line, the exit status, and that nothing has changed.

The texts are Docker's where it has one (network errors of its daemon and command line); after them, in parentheses,
the way out.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import dump, netagent, refusal, run, same
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

OWN_STORE = """
import pathlib, shutil, sqlite3, tempfile
with tempfile.TemporaryDirectory(dir="/run") as copy:
    for file in pathlib.Path("/var/lib/netagent").glob("store.db*"):
        shutil.copy(file, copy)
    print("\\n".join(sqlite3.connect(copy + "/store.db").iterdump()))
"""
"""Prints what the host's own store holds; of a copy, for the agent holds the lock."""


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=1)
    (h1,) = lab.hosts
    create = ("network", "create", "--subnet")
    netagent(h1, *create, "10.81.0.0/24", "--subnet", "fd81::/64", "--label", "tier=db", "app")
    netagent(h1, *create, "10.82.0.0/16", "--driver", "vxlan", "wide")
    for name in ("web", "db2", "db10"):
        run(h1, name, "--network", "app")
    run(h1, "far", "--network", "wide")
    # Told to both stores after the answer.
    eventually(lambda: _stores(lab).count("/netagent/v1/endpoints/") == 4)
    return lab


@pytest.fixture
def h1(lab: Lab) -> Host:
    return lab.host("h1")


def _stores(lab: Lab) -> str:
    """Return what etcd and the host's own store hold, without what lives by a lease."""
    etcd = lab.etcd[0]
    lines = etcd.run("etcdctl", "--endpoints", etcd.url, "get", "--prefix", "/netagent/v1/").stdout.splitlines()
    shared = [f"{key} {value}" for key, value in zip(lines[::2], lines[1::2], strict=True) if "/live/" not in key]
    return "\n".join((*shared, lab.host("h1").run(sys.executable, "-c", OWN_STORE).stdout))


FREE = "choose another --subnet, or leave it out to get a free one"
CREATE = {
    "name-taken": ("app", "network with name app already exists (netagent network inspect app)"),
    "bridge": ("bridge", "operation is not permitted on predefined bridge network (choose another name)"),
    "host": ("host", "operation is not permitted on predefined host network (choose another name)"),
    "none": ("none", "operation is not permitted on predefined none network (choose another name)"),
    "driver": ("-d magic x", 'plugin "magic" not found (drivers are '),
    "host-bits": ("--subnet 192.168.1.5/24 x", "invalid subnet 192.168.1.5/24: it should be 192.168.1.0/24"),
    "not-a-subnet": ("--subnet banana x", "invalid subnet banana: not a CIDR prefix (for example 192.168.0.0/16)"),
    "no-length": (
        "--subnet 10.5.0.0 x",
        "invalid subnet 10.5.0.0: the prefix length is missing (for example 10.5.0.0/24)",
    ),
    "tiny": ("--subnet 10.5.0.0/31 x", "invalid subnet 10.5.0.0/31: too small (the smallest is a /30 or /126)"),
    "multicast": ("--subnet 224.0.0.0/24 x", "invalid subnet 224.0.0.0/24: 224.0.0.0/3 is not for containers (use a"),
    "overlap": ("--subnet 10.81.0.0/25 x", f"subnet 10.81.0.0/25 overlaps with 10.81.0.0/24 of network app ({FREE})"),
    "overlap-around": ("--subnet 10.80.0.0/14 x", "subnet 10.80.0.0/14 overlaps with 10.8"),
    "overlap-six": ("--subnet fd81::/48 x", f"subnet fd81::/48 overlaps with fd81::/64 of network app ({FREE})"),
    "overlap-host": ("--subnet 198.18.0.0/30 x", "subnet 198.18.0.0/30 overlaps with the host's route 198.18.0.0/"),
    "overlap-itself": (
        "--subnet 10.5.0.0/16 --subnet 10.5.1.0/24 x",
        "multiple overlapping subnet configuration is not supported",
    ),
    "range-larger": (
        "--subnet 10.5.0.0/24 --ip-range 10.5.0.0/16 x",
        "invalid ip-range 10.5.0.0/16: CIDR block is bigger than its parent subnet 10.5.0.0/24",
    ),
    "range-host-bits": (
        "--subnet 10.5.0.0/24 --ip-range 10.5.0.9/28 x",
        "invalid ip-range 10.5.0.9/28: it should be 10.5.0.0/28",
    ),
    "range-elsewhere": (
        "--subnet 10.5.0.0/24 --ip-range 10.6.0.0/28 x",
        "no matching subnet for range 10.6.0.0/28 (give the --subnet it lies in)",
    ),
    "ranges": (
        "--subnet 10.5.0.0/24 --subnet fd05::/64 --ip-range 10.5.0.0/28 --ip-range 10.5.0.16/28 x",
        "cannot configure multiple ranges (10.5.0.0/28, 10.5.0.16/28) on the same subnet (10.5.0.0/24)",
    ),
    "gateway-outside": (
        "--subnet 10.5.0.0/24 --gateway 10.6.0.1 x",
        "invalid gateway 10.6.0.1: parent subnet 10.5.0.0/24 doesn't contain this address",
    ),
    "gateway-family": (
        "--subnet 10.5.0.0/24 --gateway fd05::1 x",
        "no matching subnet for gateway fd05::1 (give a --subnet of its family)",
    ),
    "gateways": (
        "--subnet 10.5.0.0/24 --subnet fd05::/64 --gateway 10.5.0.1 --gateway 10.5.0.2 x",
        "cannot configure multiple gateways (10.5.0.1, 10.5.0.2) for the same subnet (10.5.0.0/24)",
    ),
    "gateway-text": ("--subnet 10.5.0.0/24 --gateway x y", "invalid gateway address: x"),
    "gateway-broadcast": (
        "--subnet 10.5.0.0/24 --gateway 10.5.0.255 x",
        "invalid gateway 10.5.0.255: not an address for an interface in 10.5.0.0/24",
    ),
    "gateway-alone": (
        "--gateway 10.5.0.1 x",
        "every ip-range or gateway must have a corresponding subnet (add --subnet)",
    ),
    "range-alone": (
        "--ip-range 10.5.0.0/28 x",
        "every ip-range or gateway must have a corresponding subnet (add --subnet)",
    ),
    "aux-elsewhere": (
        "--subnet 10.5.0.0/24 --aux-address r=10.6.0.1 x",
        "no matching subnet for aux-address 10.6.0.1 (give the --subnet it lies in)",
    ),
    "aux-gateway": (
        "--subnet 10.5.0.0/24 --aux-address r=10.5.0.1 x",
        "invalid auxiliary address 10.5.0.1: it is the gateway of 10.5.0.0/24",
    ),
    "aux-text": ("--subnet 10.5.0.0/24 --aux-address r=x y", "invalid aux-address 'x' (NAME=IP)"),
    "aux-long": (
        f"--subnet 10.5.0.0/24 --aux-address {'r' * 5000}=10.5.0.9 y",
        "network y cannot be kept in the store",
    ),
    "label-nameless": ("--label =x y", "invalid label '=x': empty name (--label KEY=VALUE)"),
    "label-long": (f"--label k={'v' * 5000} y", "label 'k' is too long (at most 4096 characters"),
    "label-no-text": ("--label k=\udcff y", "'\\udcff' is not valid UTF-8 (write names"),
    "no-family": ("--ipv4=false x", "IPv4 or IPv6 must be enabled (add --ipv6, or leave out --ipv4=false)"),
    "mtu-negative": ("--opt com.docker.network.driver.mtu=-1 x", "invalid MTU number: -1"),
    "mtu-text": ("--opt mtu=big x", "invalid MTU number: big"),
    "mtu-large": ("--opt mtu=70000 x", "invalid MTU number: 70000"),
    "boolean": ("--opt com.docker.network.bridge.enable_icc=maybe x", "invalid value for option icc: 'maybe' (true or"),
    "option": ("--opt colour=red x", "unknown option colour (options are "),
    "option-twice": (
        "--opt mtu=1400 --opt com.docker.network.driver.mtu=1300 x",
        "option mtu is given twice: 1300 and 1400 (",
    ),
    "option-driver": (
        "-d vxlan --opt icc=false x",
        "option icc does not work with the driver vxlan (use the driver bridge)",
    ),
    "host-prefix-local": (
        "--host-prefix 26 x",
        "invalid host prefix /26: the network lives on one host (leave it out)",
    ),
    "host-prefix": (
        "-d vxlan --subnet 10.5.0.0/24 --host-prefix 24 x",
        "invalid host prefix /24 for subnet 10.5.0.0/24: a block must be smaller than the subnet (between /25 and /31)",
    ),
    "name": ("a/b", "invalid network name 'a/b'"),
    "name-empty": ("", "invalid network name ''"),
}

OTHER = {
    "rm-unknown": ("rm nope", "network nope not found (netagent network ls shows those there are)"),
    "rm-nameless": ("rm ", "invalid network name or ID: value is empty (netagent network ls shows those there are)"),
    "connect-nameless": ("connect app ", "invalid container name or ID: value is empty (netagent ps -a shows those"),
    "rm-predefined": ("rm bridge", "bridge is a pre-defined network and cannot be removed"),
    "rm-predefined-force": ("rm -f none", "none is a pre-defined network and cannot be removed"),
    "inspect-unknown": ("inspect nope", "network nope not found (netagent network ls shows those there are)"),
    "inspect-template": (
        "inspect --format {{.Nope}} app",
        "invalid --format at 1:3: there is no field 'Nope'; there are ",
    ),
    "inspect-open": ("inspect --format {{.Name app", "invalid --format at 1:1: this {{ has no }}"),
    "ls-filter": (
        "ls --filter colour=red",
        "invalid filter 'colour' (filters are driver, id, label, name, scope, type",
    ),
    "ls-filter-text": ("ls --filter driver", "invalid filter 'driver' (a filter is KEY=VALUE)"),
    "ls-filter-dangling": ("ls --filter dangling=maybe", "invalid filter 'dangling=maybe' (true or false)"),
    "ls-filter-type": ("ls --filter type=x", "invalid filter: 'type'='x' (custom or builtin)"),
    "ls-filter-scope": ("ls --filter scope=x", "invalid filter 'scope=x' (local or global)"),
    "ls-filter-regex": ("ls --filter name=(", "invalid filter '('"),
    "prune-filter": ("prune -f --filter name=x", "invalid filter 'name' (filters are label, label!, until)"),
    "prune-until": ("prune -f --filter until=x", "invalid filter 'until=x' (for example 24h, 1h30m"),
    "update-unknown": ("update --label a=b nope", "network nope not found (netagent network ls shows those there are)"),
    "update-predefined": ("update --label a=b host", "operation is not permitted on predefined host network"),
    "update-option": ("update --opt colour=red app", "unknown option colour (options are "),
    "update-mtu": ("update --opt mtu=1000 app", "invalid MTU number: 1000"),
    "update-bridge": (
        "update --opt bridge=kbr0 app",
        "the bridge of a network cannot be changed (create another network",
    ),
    "update-overlap": (
        "update --subnet 10.82.4.0/24 app",
        f"subnet 10.82.4.0/24 overlaps with 10.82.0.0/16 of network wide ({FREE})",
    ),
    "update-removed": (
        "update --subnet-rm 10.9.0.0/24 app",
        "network app has no subnet 10.9.0.0/24 (it has 10.81.0.0/24, fd81::/64)",
    ),
    "update-shared": (
        "update --subnet-rm 10.82.0.0/16 wide",
        "a subnet of network wide cannot be removed: other hosts may use it (only a network on one host gives subnets",
    ),
}


@pytest.fixture
def unchanged(lab: Lab, h1: Host) -> Iterator[None]:
    """Compare kernel, journal, files and both stores before and after the test."""
    before, stored = dump(h1), _stores(lab)
    yield
    assert same(h1, before)
    assert _stores(lab) == stored


@pytest.mark.usefixtures("unchanged")
def test_network_create_refuses_and_changes_nothing(h1: Host) -> None:
    wrong = {}
    for case, (arguments, words) in CREATE.items():
        done = netagent(h1, "network", "create", *(arguments.split() or [""]), check=False)
        said = done.stderr.removeprefix("netagent: ")
        if (done.returncode, done.stdout, said.count("\n")) != (1, "", 1) or not said.startswith(words):
            wrong[case] = (done.returncode, done.stdout, said)
    assert not wrong


@pytest.mark.usefixtures("unchanged")
def test_the_other_network_commands_refuse_and_change_nothing(h1: Host) -> None:
    wrong = {}
    for case, (arguments, words) in OTHER.items():
        output = "[]\n" if arguments.startswith("inspect nope") else ""
        said = refusal(h1, "network", *arguments.split(" "), output=output)
        if not said.startswith(words):
            wrong[case] = said
    assert not wrong


@pytest.mark.usefixtures("unchanged")
def test_a_network_in_use_names_its_containers_in_dockers_words(h1: Host) -> None:
    (shown,) = json.loads(netagent(h1, "network", "inspect", "app").stdout)
    ids = {endpoint["Name"]: key[:12] for key, endpoint in shown["Containers"].items()}
    users = ", ".join(f'name:"{name}" id:"{ids[name]}"' for name in ("db2", "db10", "web"))
    words = f"error while removing network: network app has active endpoints ({users})"
    for arguments in (["rm", "app"], ["rm", "-f", "app"]):
        assert refusal(h1, "network", *arguments) == f"{words} (remove or detach these containers first)"


def test_removing_goes_on_after_a_refusal_and_force_ignores_what_is_missing(h1: Host) -> None:
    before = dump(h1)
    netagent(h1, "network", "create", "--subnet", "10.83.0.0/24", "brief")
    done = netagent(h1, "network", "rm", "nope", "brief", "bridge", check=False)
    assert (done.returncode, done.stdout) == (1, "brief\n")
    assert [line.split(" ")[1:3] for line in done.stderr.splitlines()] == [["network", "nope"], ["bridge", "is"]]
    done = netagent(h1, "network", "rm", "-f", "nope", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert same(h1, before)


def test_what_begins_several_ids_is_ambiguous(h1: Host) -> None:
    before = dump(h1)
    ids = netagent(h1, "network", "ls", "-q", "--no-trunc").stdout.split()
    made: list[str] = []
    while len({identity[0] for identity in ids}) == len(ids):
        made.append(f"one{len(made)}")
        subnet = f"10.90.{len(made)}.0/24"
        ids.append(netagent(h1, "network", "create", "--subnet", subnet, made[-1]).stdout.strip())
    digit, count = Counter(identity[0] for identity in ids).most_common(1)[0]
    for verb in ("inspect", "rm"):
        done = netagent(h1, "network", verb, digit, check=False)
        said = f"netagent: network {digit} is ambiguous ({count} matches found based on ID prefix) ("
        assert done.returncode == 1
        assert done.stderr.startswith(said)
    for name in made:
        netagent(h1, "network", "rm", name)
    assert same(h1, before)


def test_a_host_whose_pools_are_used_up_says_so(h1: Host) -> None:
    configuration = h1.path("/etc/netagent/agent.toml")
    configuration.write_text('default_address_pools = [{ base = "10.91.0.0/24", size = 24 }]\n')
    try:
        h1.agent.restart()
        netagent(h1, "network", "create", "last")
        before = dump(h1)
        said = refusal(h1, "network", "create", "more")
        assert said.startswith("all predefined address pools have been fully subnetted (")
        assert same(h1, before)
        netagent(h1, "network", "rm", "last")
    finally:
        configuration.unlink()
        h1.agent.restart()


@pytest.mark.usefixtures("unchanged")
def test_wrong_usage_ends_with_two(h1: Host) -> None:
    for arguments in ("create", "rm", "inspect", "update app", "create --nope x", "connect app", "ls --format nope"):
        assert netagent(h1, "network", *arguments.split(), check=False).returncode == 2, arguments
