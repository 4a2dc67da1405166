"""From a plugin's environment and configuration to what the services are asked for."""

import json
from typing import Any

import pytest

from netagent.api.cni_connection import container_name, parse_arguments
from netagent.api.cni_error import CniError
from netagent.api.cni_request import Add, Delete, Request, parse_request
from netagent.model.container import ContainerKind
from netagent.model.port_grammar import parse_published

ENVIRONMENT: dict[str, str | None] = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}


def encode(variables: dict[str, str | None], configuration: dict[str, Any] | bytes) -> bytes:
    text = configuration if isinstance(configuration, bytes) else json.dumps(configuration).encode()
    pairs = "".join(f"{key}={value}\0" for key, value in variables.items() if value is not None)
    return pairs.encode() + b"\0" + text


def configured(**keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": "app", **keys}


def parse(variables: dict[str, str | None] | None = None, **keys: Any) -> Request:
    return parse_request(encode(ENVIRONMENT | (variables or {}), configured(**keys)))


def parse_add(variables: dict[str, str | None] | None = None, **keys: Any) -> Add:
    add = parse(variables, **keys)
    assert isinstance(add, Add)
    return add


def refusal_of(variables: dict[str, str | None] | None = None, **keys: Any) -> CniError:
    with pytest.raises(CniError) as refusal:
        parse(variables, **keys)
    return refusal.value


def test_add_becomes_an_attachment() -> None:
    add = parse_add()
    assert (add.version, add.network, add.previous) == ("1.0.0", "app", None)
    assert add.attachment.kind is ContainerKind.CNI
    assert add.attachment.container_id == add.attachment.name == "c1"
    assert add.attachment.netns == "/run/netns/c1"
    assert add.attachment.interface == "eth0"
    assert add.attachment.connection.networks == ("app",)


@pytest.mark.parametrize("command", ["FOO", "add", "", "VERSION", None])
def test_other_verbs_are_refused_by_name(command: str | None) -> None:
    refusal = refusal_of({"CNI_COMMAND": command})
    assert refusal.code == 4
    assert "CNI_COMMAND" in refusal.msg


@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
@pytest.mark.parametrize("key", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"])
def test_add_names_the_variable_it_misses(key: str, value: str | None) -> None:
    refusal = refusal_of({key: value})
    assert refusal.code == 4
    assert key in refusal.msg


def test_add_names_all_variables_it_misses() -> None:
    refusal = refusal_of({"CNI_CONTAINERID": None, "CNI_NETNS": None, "CNI_IFNAME": None})
    assert refusal.code == 4
    assert all(key in refusal.msg for key in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"))


@pytest.mark.parametrize("container_id", ["../../etc", "-a", ".a", "a b", "x" * 300, "a\n", "ä", "a/b"])
def test_a_hostile_container_id_is_refused(container_id: str) -> None:
    refusal = refusal_of({"CNI_CONTAINERID": container_id})
    assert refusal.code == 4
    assert "CNI_CONTAINERID" in refusal.msg


@pytest.mark.parametrize(
    "name", ["x" * 16, ".", "..", "a/b", "a:b", "a b", "a\tb", "a\u00a0b", "ä" * 8, "eth0\n", "\udcff"]
)
def test_an_interface_name_that_the_kernel_refuses_is_refused(name: str) -> None:
    variables = ENVIRONMENT | {"CNI_IFNAME": name}
    pairs = b"".join(f"{key}={value}\0".encode(errors="surrogateescape") for key, value in variables.items())
    with pytest.raises(CniError) as refusal:
        parse_request(pairs + b"\0" + json.dumps(configured()).encode())
    assert refusal.value.code == 4
    assert "CNI_IFNAME" in refusal.value.msg


@pytest.mark.parametrize("name", ["x" * 15, "ä" * 7 + "x", "net1"])
def test_an_interface_name_of_15_bytes_is_taken(name: str) -> None:
    assert parse_add({"CNI_IFNAME": name}).attachment.interface == name


@pytest.mark.parametrize("netns", ["run/netns/c1", "4711", "/run/netns/a\nb", "/" + "x" * 5000])
def test_a_netns_that_is_no_absolute_path_is_refused(netns: str) -> None:
    assert refusal_of({"CNI_NETNS": netns}).code == 4


@pytest.mark.parametrize("request_bytes", [b"", b"CNI_COMMAND=ADD", b"CNI_COMMAND=ADD\0"])
def test_a_request_that_is_cut_short_is_refused(request_bytes: bytes) -> None:
    with pytest.raises(CniError) as refusal:
        parse_request(request_bytes)
    assert refusal.value.code == 5


@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_delete_needs_no_namespace(value: str | None) -> None:
    delete = parse({"CNI_COMMAND": "DEL", "CNI_NETNS": value}, netagent={"network": "other"})
    assert delete == Delete(container_id="c1", interface="eth0", name="app", network="other")


@pytest.mark.parametrize("key", ["CNI_CONTAINERID", "CNI_IFNAME"])
def test_delete_needs_to_know_what(key: str) -> None:
    refusal = refusal_of({"CNI_COMMAND": "DEL", key: None})
    assert refusal.code == 4
    assert key in refusal.msg


def test_delete_takes_a_configuration_that_add_refuses() -> None:
    delete = parse(
        {"CNI_COMMAND": "DEL", "CNI_ARGS": "FOO"},
        netagent={"netwrok": 1},
        runtimeConfig={"portMappings": [{"hostPort": "x"}]},
        prevResult=[],
    )
    assert delete == Delete(container_id="c1", interface="eth0", name="app", network="app")


# Ports


def port(host_port: int = 8080, container_port: int = 80, **more: Any) -> dict[str, Any]:
    return {"hostPort": host_port, "containerPort": container_port, **more}


@pytest.mark.parametrize(
    ("mapping", "text"),
    [
        (port(), "8080:80/tcp"),
        (port(protocol="UDP"), "8080:80/udp"),
        (port(protocol=""), "8080:80/tcp"),
        (port(protocol="sctp", hostIP=""), "8080:80/sctp"),
        (port(hostIP="0.0.0.0"), "8080:80/tcp"),
        (port(hostIP="::"), "8080:80/tcp"),
        (port(hostIP="127.0.0.1"), "127.0.0.1:8080:80/tcp"),
        (port(hostIP="2001:DB8::1"), "[2001:db8::1]:8080:80/tcp"),
    ],
)
def test_a_port_mapping_is_published(mapping: dict[str, Any], text: str) -> None:
    add = parse_add(runtimeConfig={"portMappings": [mapping]})
    assert add.attachment.connection.publish == (text,)
    assert len(parse_published(add.attachment.connection.publish)) == 1


@pytest.mark.parametrize(
    "mapping",
    [
        port(0),
        port(-1),
        port(65536),
        port(container_port=0),
        port(container_port=70000),
        port(protocol="icmp"),
        port(hostIP="example.org"),
        port(hostIP="1.2.3"),
        port(hostIP="fe80::1%eth0"),
    ],
)
def test_a_port_mapping_that_cannot_be_is_invalid(mapping: dict[str, Any]) -> None:
    assert refusal_of(runtimeConfig={"portMappings": [mapping]}).code == 7


@pytest.mark.parametrize("second", [port(), port(container_port=81), port(hostIP="127.0.0.1")])
def test_a_host_port_mapped_twice_is_invalid(second: dict[str, Any]) -> None:
    assert refusal_of(runtimeConfig={"portMappings": [port(), second]}).code == 7


def test_one_host_port_may_serve_two_protocols_and_two_addresses() -> None:
    mappings = [port(), port(protocol="udp"), port(81, hostIP="127.0.0.1"), port(81, hostIP="127.0.0.2")]
    assert len(parse_add(runtimeConfig={"portMappings": mappings}).attachment.connection.publish) == 4


# Addresses, MAC, names

RUNTIME = {"runtimeConfig": {"ips": ["10.0.0.1/24"], "mac": "02:00:00:00:00:01"}}
CONVENTION = {"args": {"cni": {"ips": ["10.0.0.2"], "mac": "02:00:00:00:00:02"}}}
PAIRS = {"CNI_ARGS": "IgnoreUnknown=1;IP=10.0.0.3;MAC=02:00:00:00:00:03;K8S_POD_UID=7"}


@pytest.mark.parametrize(
    ("keys", "digit"),
    [({}, 3), (CONVENTION, 2), (RUNTIME, 1), (RUNTIME | CONVENTION, 1)],
    ids=["cni-args", "args-over-cni-args", "runtime-over-cni-args", "runtime-over-all"],
)
def test_the_runtime_goes_before_args_and_args_before_cni_args(keys: dict[str, Any], digit: int) -> None:
    connection = parse_add(dict(PAIRS), **keys).attachment.connection
    assert connection.addresses == (f"10.0.0.{digit}",)
    assert connection.mac == f"02:00:00:00:00:0{digit}"


def test_one_address_a_family_may_be_asked_for() -> None:
    add = parse_add(runtimeConfig={"ips": ["10.10.0.1/24", "3FFE::1/64"]})
    assert add.attachment.connection.addresses == ("10.10.0.1", "3ffe::1")


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.1/33", "10.0.0.1/", "10.0.0.01", "x", "::ffff:1.2.3.4"])
def test_an_address_that_is_none_is_invalid(text: str) -> None:
    assert refusal_of(runtimeConfig={"ips": [text]}).code == 7


@pytest.mark.parametrize("mac", ["x", "01:00:00:00:00:01", "00:00:00:00:00:00", "02:00:00:00:00"])
def test_a_mac_that_no_container_can_have_is_invalid(mac: str) -> None:
    assert refusal_of(runtimeConfig={"mac": mac}).code == 7


@pytest.mark.parametrize("aliases", [["web", "www"], {"app": ["web", "www"], "other": ["x"]}], ids=["list", "podman"])
def test_aliases_come_as_a_list_or_by_network(aliases: Any) -> None:
    assert parse_add(runtimeConfig={"aliases": aliases}).attachment.connection.aliases == ("web", "www")


def test_an_alias_that_is_no_name_is_invalid() -> None:
    assert refusal_of(runtimeConfig={"aliases": ["a b"]}).code == 7


@pytest.mark.parametrize("text", ["FOO", "A=B=C", "A=1;;B=2", "A=1;", "=;="])
def test_malformed_pairs_are_refused(text: str) -> None:
    if text == "=;=":
        assert parse_arguments(text) == {"": ""}
        return
    refusal = refusal_of({"CNI_ARGS": text})
    assert refusal.code == 4
    assert "CNI_ARGS" in refusal.msg


def test_unknown_pairs_are_accepted() -> None:
    assert parse_add({"CNI_ARGS": "FOO=BAR"}).attachment.name == "c1"
    assert parse_add({"CNI_ARGS": ""}).attachment.name == "c1"


HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("container_id", "arguments", "name"),
    [
        (HEX, {}, HEX),
        ("cnitool-0123", {}, "cnitool-0123"),
        (HEX, {"K8S_POD_NAME": "web-1", "K8S_POD_NAMESPACE": "default"}, "web-1_default_0123456789ab"),
        (HEX, {"K8S_POD_NAME": "web-1"}, "web-1_0123456789ab"),
        (HEX, {"K8S_POD_NAMESPACE": "default"}, HEX),
        (HEX, {"K8S_POD_NAME": "../../etc"}, HEX),
    ],
)
def test_a_container_is_named_by_its_pod_or_its_id(container_id: str, arguments: dict[str, str], name: str) -> None:
    assert container_name(container_id, arguments) == name


@pytest.mark.parametrize(
    ("container_id", "arguments", "names"),
    [
        (HEX, {"K8S_POD_NAME": "web"}, ("web", "0123456789ab")),
        (HEX, {"K8S_POD_NAME": "web", "K8S_POD_NAMESPACE": "shop"}, ("web.shop", "0123456789ab")),
        (f"default-{HEX}", {"NERDCTL_CNI_DHCP_HOSTNAME": "front"}, ("front", "0123456789ab")),
        (HEX, {"NERDCTL_CNI_DHCP_HOSTNAME": "0123456789ab"}, ("0123456789ab",)),
        ("default-web", {}, ()),
        (HEX, {"K8S_POD_NAME": "../../etc"}, ("0123456789ab",)),
    ],
    ids=["podman", "pod", "nerdctl", "nerdctl-without-hostname", "ctr", "hostile"],
)
def test_a_container_has_the_names_that_its_runtime_tells(
    container_id: str, arguments: dict[str, str], names: tuple[str, ...]
) -> None:
    given = ";".join(f"{key}={value}" for key, value in arguments.items())
    attachment = parse_add({"CNI_CONTAINERID": container_id, "CNI_ARGS": given}).attachment
    assert attachment.names == names


def test_names_stay_apart_and_short_enough() -> None:
    long = {"K8S_POD_NAME": "p" * 253, "K8S_POD_NAMESPACE": "n" * 63}
    ids = ["x" * 256, "x" * 255 + "y", HEX, "ab", "abc"]
    for arguments in ({}, {"K8S_POD_NAME": "web"}, long):
        names = {container_name(container_id, arguments) for container_id in ids}
        assert len(names) == len(ids)
        assert all(len(name) <= 128 for name in names)
