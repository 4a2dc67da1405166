"""What a ``run`` container finds in its files and its environment: hosts, links, and how they follow what changes."""

import json

import pytest

from netagent.lab.host import Host
from tests.support.dns import ask, data, resolve
from tests.support.hosts import address, inside, inspect, netagent, refusal, run
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

APP = ("--network", "app")


@pytest.fixture(scope="module")
def host(make_lab: MakeLab) -> Host:
    (host,) = make_lab(hosts=1).hosts
    netagent(host, "network", "create", "--subnet", "10.71.0.0/24", "app")
    netagent(host, "network", "create", "--subnet", "10.72.0.0/24", "back")
    run(host, "db", *APP, "-e", "PGUSER=me", "--expose", "5432", "-p", "4080:80", "--alias", "*.store")
    run(host, "old")
    return host


def hosts_file(host: Host, name: str) -> list[str]:
    return inside(host, name, "cat", "/etc/hosts", check=True).stdout.splitlines()


def test_a_containers_files_name_itself(host: Host) -> None:
    run(host, "self", *APP, "--hostname", "me")
    assert f"{address(host, 'self')}\tme self" in hosts_file(host, "self")
    assert inside(host, "self", "cat", "/etc/hostname").stdout == "me\n"
    netagent(host, "rm", "-f", "self")


def test_hosts_and_nameservers_follow_connect_and_disconnect(host: Host) -> None:
    run(host, "mover", *APP)
    inside(host, "mover", "sh", "-c", "echo 192.0.2.1 mine >> /etc/hosts", check=True)
    before = hosts_file(host, "mover")
    netagent(host, "network", "connect", "--ip", "10.72.0.9", "back", "mover")
    assert any(line.startswith("10.72.0.9\t") for line in hosts_file(host, "mover"))
    assert "nameserver 10.72.0.1" in inside(host, "mover", "cat", "/etc/resolv.conf").stdout
    netagent(host, "network", "disconnect", "back", "mover")
    assert sorted(hosts_file(host, "mover")) == sorted(before)
    assert "192.0.2.1 mine" in hosts_file(host, "mover")
    assert "10.72.0.1" not in inside(host, "mover", "cat", "/etc/resolv.conf").stdout
    netagent(host, "rm", "-f", "mover")


def test_add_host_adds_names_and_knows_the_host(host: Host) -> None:
    extra = ("--add-host", "store:192.0.2.7", "--add-host", "gw:host-gateway", "--add-host", "six=[2001:db8::1]")
    run(host, "extra", *APP, *extra)
    assert {"192.0.2.7\tstore", "10.71.0.1\tgw", "2001:db8::1\tsix"} <= set(hosts_file(host, "extra"))
    assert inside(host, "extra", "ping", "-c", "1", "-W", "2", "gw").returncode == 0
    run(host, "sharer", "--network", "container:extra")
    assert hosts_file(host, "sharer") == hosts_file(host, "extra")
    netagent(host, "rm", "-f", "sharer", "extra")


def test_a_link_is_a_name_and_variables_for_one_container_alone(host: Host) -> None:
    run(host, "linker", *APP, "--link", "db:store-1")
    db = address(host, "db")
    eventually(lambda: resolve(host, "linker", "store-1") == [db])
    assert resolve(host, "db", "store-1") == []
    shown = inspect(host, "linker")
    assert shown["HostConfig"]["Links"] == ["/db:/linker/store-1"]
    assert shown["NetworkSettings"]["Networks"]["app"]["DNSNames"] == ["linker", shown["Id"][:12]]
    variables = dict(line.split("=", 1) for line in inside(host, "linker", "env").stdout.splitlines() if "=" in line)
    assert {name: value for name, value in variables.items() if name.startswith("STORE_1_")} == {
        "STORE_1_NAME": "/linker/store-1",
        "STORE_1_ENV_PGUSER": "me",
        "STORE_1_PORT": f"tcp://{db}:80",
        "STORE_1_PORT_80_TCP": f"tcp://{db}:80",
        "STORE_1_PORT_80_TCP_ADDR": db,
        "STORE_1_PORT_80_TCP_PORT": "80",
        "STORE_1_PORT_80_TCP_PROTO": "tcp",
        "STORE_1_PORT_5432_TCP": f"tcp://{db}:5432",
        "STORE_1_PORT_5432_TCP_ADDR": db,
        "STORE_1_PORT_5432_TCP_PORT": "5432",
        "STORE_1_PORT_5432_TCP_PROTO": "tcp",
    }
    netagent(host, "rm", "-f", "linker")


def test_in_the_hosts_network_names_are_the_hosts(host: Host) -> None:
    show = ("netagent", "run", "--rm", "--network", "host", "--add-host", "x:192.0.2.7", "--", "cat")
    assert host.run(*show, "/etc/resolv.conf").stdout.split() == host.run("cat", "/etc/resolv.conf").stdout.split()
    assert "192.0.2.7\tx" in host.run(*show, "/etc/hosts").stdout


def test_a_link_works_on_the_default_network_where_nothing_has_a_name_and_follows_a_restart(host: Host) -> None:
    run(host, "linker", "--link", "old:db")
    assert resolve(host, "linker", "old") == [address(host, "old")], "by /etc/hosts, as in Docker"
    assert resolve(host, "linker", "db") == [address(host, "old")]
    eventually(lambda: data(ask(host, "linker", "172.16.0.1", "db")) == [address(host, "old")])
    assert resolve(host, "old", "linker") == []
    run(host, "between")
    netagent(host, "restart", "-t", "0", "old")
    eventually(lambda: resolve(host, "linker", "db") == [address(host, "old")])
    netagent(host, "rm", "-f", "linker", "between")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--link", "absent:x"), "could not get container for absent: No such container: absent"),
        (("--link", "old:x", *APP), "Cannot link to /old, as it does not belong to network app"),
        (("--link", ":x"), "bad format for links: :x"),
        (("--link", "db", "--network", "host"), "conflicting options: host type networking can't be used with links"),
        (("--link", "db", "--network", "container:db"), "conflicting options: container type network can't be used"),
        (("--dns", "nowhere"), "--dns nowhere: IP address is not correctly formatted"),
        (("--dns", "192.0.2.1", "--network", "container:db"), "conflicting options: dns and the network mode"),
        (("--add-host", "x"), 'bad format for add-host: "x"'),
        (("--add-host", "x:y"), 'invalid IP address in add-host: "y"'),
        (("--add-host", "x:10.0.0.1", "--network", "container:db"), "conflicting options: custom host-to-IP mapping"),
        (("--dns-search", "a b"), "--dns-search 'a b' is not a valid domain"),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(host: Host, options: tuple[str, ...], words: str) -> None:
    before = netagent(host, "ps", "-aq").stdout
    assert words in refusal(host, "run", "-d", "--name", "refused", *options, "--", "sleep", "1", status=125)
    assert netagent(host, "ps", "-aq").stdout == before


def test_names_of_all_kinds_are_answered(host: Host) -> None:
    run(host, "asker", *APP)
    server, db = "10.71.0.1", address(host, "db")
    eventually(lambda: resolve(host, "asker", "one.store") == [db])
    assert data(ask(host, "asker", server, "_80._tcp.db", "SRV")) == ["b'db.'"]
    assert data(ask(host, "asker", server, f"{'.'.join(reversed(db.split('.')))}.in-addr.arpa", "PTR")) == ["b'db.'"]
    for number in range(3):
        run(host, f"pool{number}", *APP, "--alias", "pool")
    pool = {address(host, f"pool{number}") for number in range(3)}
    eventually(lambda: set(resolve(host, "asker", "pool")) == pool)
    first: set[str] = set()

    def has_been_first_once() -> bool:
        first.add(data(ask(host, "asker", server, "pool"))[0])
        return first == pool

    eventually(has_been_first_once, within=200)
    netagent(host, "rm", "-f", "asker", *(f"pool{number}" for number in range(3)))


def test_dns_looks_up_as_the_host_and_as_a_container(host: Host) -> None:
    db = address(host, "db")
    (found,) = map(json.loads, netagent(host, "dns", "db", "--format", "json").stdout.splitlines())
    assert found == {"Name": "db.", "Type": "A", "TTL": 5, "Data": db}
    assert netagent(host, "dns", db).stdout.split()[-2:] == ["PTR", "db."]
    assert "0 0 80 db." in netagent(host, "dns", "_80._tcp.db").stdout
    assert (
        refusal(host, "dns", "absent") == "name absent not found (netagent network inspect shows who is in a network)"
    )
    assert refusal(host, "dns", "--container", "old", "db").startswith("name db not found")
    assert refusal(host, "dns", "--type", "X", "db").startswith("unknown record type X")
    assert refusal(host, "dns", "--type", "AAAA", "db").startswith("name db has no such records")
