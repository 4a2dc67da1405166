"""What the configuration on a plugin's standard input may look like, and with which code it is refused."""

import json
from typing import Any

import pytest

from netagent.api.cni_config import VERSIONS, Bandwidth, IpRange, PortMap, parse_configuration
from netagent.api.cni_error import CniError


def code_for(text: bytes | dict[str, Any]) -> int:
    with pytest.raises(CniError) as refusal:
        parse_configuration(text if isinstance(text, bytes) else json.dumps(text).encode())
    assert refusal.value.msg
    return int(refusal.value.code)


def configured(**keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "app", "type": "netagent", **keys}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut-short"),
        pytest.param(b"[]", id="an-array"),
        pytest.param(b'"app"', id="a-string"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"name":"app"}x', id="trailing-garbage"),
        pytest.param(b'\xef\xbb\xbf{"name":"app"}', id="byte-order-mark"),
        pytest.param(b'{"name":"\xff"}', id="invalid-utf-8"),
        pytest.param('{"name":"app"}'.encode("utf-16"), id="utf-16"),
        pytest.param(b'{"name":"\\ud800"}', id="half-a-surrogate-pair"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="nested-too-deep"),
        pytest.param(b'{"name":"app","x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, id="objects-nested-too-deep"),
        pytest.param(b'{"name":"app","x":' + b"9" * 10_000 + b"}", id="number-of-10000-digits"),
        pytest.param(b'{"name":"app","x":NaN}', id="not-a-number"),
        pytest.param(b'{"name":"app","x":-Infinity}', id="infinity"),
        pytest.param(b'{"name":"app","name":"other"}', id="key-given-twice"),
        pytest.param(b'{"name":"app","x":{"y":1,"y":1}}', id="inner-key-given-twice"),
    ],
)
def test_what_is_no_json_object_cannot_be_decoded(text: bytes) -> None:
    assert code_for(text) == 6


@pytest.mark.timeout(20)
def test_ten_megabytes_are_read_as_any_other() -> None:
    text = json.dumps(configured(padding=["x" * 1000] * 10_000)).encode()
    assert len(text) > 10 << 20 >> 1
    assert parse_configuration(text).name == "app"


def test_capabilities_may_be_spelled_as_containerd_does() -> None:
    given = configured(
        runtimeConfig={
            "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}],
            "bandwidth": {"IngressRate": 1000, "IngressBurst": 2000, "EgressRate": 0, "EgressBurst": 0},
            "dns": {"Servers": ["192.0.2.1"], "Searches": None, "Options": None},
            "ipRanges": [[{"Subnet": "10.0.0.0/8", "RangeStart": "10.0.0.1", "RangeEnd": "", "Gateway": ""}]],
        }
    )
    runtime = parse_configuration(json.dumps(given).encode()).runtime_config
    assert runtime is not None
    assert runtime.port_mappings == [PortMap(host_port=8080, container_port=80, protocol="tcp", host_ip="")]
    assert runtime.bandwidth == Bandwidth(ingress_rate=1000, ingress_burst=2000)
    assert runtime.dns is not None
    assert runtime.dns.servers == ["192.0.2.1"]
    assert runtime.ip_ranges == [[IpRange(subnet="10.0.0.0/8", range_start="10.0.0.1")]]


def test_a_key_in_two_spellings_is_refused() -> None:
    mapping = {"hostPort": 80, "HostPort": 81, "containerPort": 80}
    assert code_for(configured(runtimeConfig={"portMappings": [mapping]})) == 7


@pytest.mark.parametrize("version", ["2.0.0", "1.2.0", "0.5.0", "1.0", "01.0.0"])
def test_a_version_that_is_not_ours_is_incompatible(version: str) -> None:
    assert code_for(configured(cniVersion=version)) == 1


@pytest.mark.parametrize("version", ["abc", "1.1.0.0", "1.1.x", "1.1.0\n", "v1.0.0", 1, 1.1, True, [], {"a": 1}])
def test_a_version_that_is_none_cannot_be_decoded(version: Any) -> None:
    assert code_for(configured(cniVersion=version)) == 6


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_of_the_specification_is_taken(version: str) -> None:
    assert parse_configuration(json.dumps(configured(cniVersion=version)).encode()).cni_version == version


@pytest.mark.parametrize("text", [b'{"name":"app"}', b'{"name":"app","cniVersion":""}'])
def test_no_version_is_the_first_one(text: bytes) -> None:
    assert parse_configuration(text).cni_version == "0.1.0"


@pytest.mark.parametrize(
    "name", [None, "", "a/b", "../x", "-a", ".a", "a b", "a\n", "näm", 5, ["app"]], ids=lambda name: repr(name)
)
def test_a_name_that_no_network_can_have_is_invalid(name: Any) -> None:
    assert code_for(configured(name=name)) == 7


def test_a_missing_name_is_invalid() -> None:
    assert code_for({"cniVersion": "1.0.0"}) == 7


def test_unknown_keys_of_runtimes_are_accepted() -> None:
    given = configured(capabilities={"portMappings": True}, bridge="cni0", ipam={"type": "host-local"}, type="other")
    given["cni.dev/valid-attachments"] = None
    given["runtimeConfig"] = {"bandwidth": {}, "dns": {"servers": []}}
    assert parse_configuration(json.dumps(given).encode()).network == "app"


def test_the_own_object_names_the_network() -> None:
    given = configured(netagent={"network": "staticnet"})
    assert parse_configuration(json.dumps(given).encode()).network == "staticnet"


def test_an_unknown_key_of_the_own_object_is_unsupported_and_named_with_its_value() -> None:
    with pytest.raises(CniError) as refusal:
        parse_configuration(json.dumps(configured(netagent={"netwrok": "x", "network": "app"})).encode())
    assert refusal.value.code == 2
    assert "netwrok" in refusal.value.msg
    assert '"x"' in refusal.value.msg


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"netagent": []}, id="own-object-is-a-list"),
        pytest.param({"netagent": {"network": 7}}, id="network-is-a-number"),
        pytest.param({"runtimeConfig": "x"}, id="runtime-config-is-text"),
        pytest.param({"runtimeConfig": {"ips": "10.0.0.1"}}, id="ips-is-text"),
        pytest.param({"runtimeConfig": {"mac": 5}}, id="mac-is-a-number"),
        pytest.param({"runtimeConfig": {"portMappings": {}}}, id="port-mappings-is-an-object"),
        pytest.param({"runtimeConfig": {"portMappings": [{"hostPort": 1}]}}, id="container-port-missing"),
        pytest.param(
            {"runtimeConfig": {"portMappings": [{"hostPort": "80", "containerPort": 80}]}}, id="host-port-is-text"
        ),
        pytest.param({"prevResult": []}, id="prev-result-is-a-list"),
        pytest.param({"args": {"cni": {"ips": 1}}}, id="args-ips-is-a-number"),
    ],
)
def test_a_value_of_the_wrong_type_is_invalid(keys: dict[str, Any]) -> None:
    assert code_for(configured(**keys)) == 7


def test_null_is_the_same_as_nothing() -> None:
    given = configured(netagent=None, runtimeConfig=None, args=None, prevResult=None)
    assert parse_configuration(json.dumps(given).encode()).network == "app"
    nulls = configured(runtimeConfig={"portMappings": None, "ips": None, "mac": None, "aliases": None})
    assert parse_configuration(json.dumps(nulls).encode()).runtime_config is not None
