from dataclasses import replace
from typing import Any

from netagent.model.ids import ContainerId
from netagent.runtime.bundle import DEFAULT_CAPABILITIES as CAPABILITIES
from netagent.runtime.bundle import render_config
from netagent.runtime.spec import BindMount, ContainerSpec

SPEC = ContainerSpec(id=ContainerId("ab" * 32), name="web", command=("nginx", "-g"), hostname="box")


def config(**changes: Any) -> dict[str, Any]:
    return render_config(replace(SPEC, **changes), root="/root/merged")


def places(rendered: dict[str, Any]) -> list[str]:
    return [mount["destination"] for mount in rendered["mounts"]]


def test_the_command_gets_dockers_environment() -> None:
    process = config()["process"]
    assert process["args"] == ["nginx", "-g"]
    assert process["env"] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=box"]


def test_the_users_variables_overrule_the_defaults() -> None:
    assert config(terminal=True, environment=(("TERM", "vt100"), ("PATH", "/bin")))["process"]["env"] == [
        "PATH=/bin",
        "HOSTNAME=box",
        "TERM=vt100",
    ]


def test_no_container_may_administer_the_network() -> None:
    capabilities = config()["process"]["capabilities"]
    assert len(CAPABILITIES) == 14
    assert not any("NET_ADMIN" in names or "SYS_ADMIN" in names for names in capabilities.values())
    assert "inheritable" not in capabilities
    assert "ambient" not in capabilities


def test_the_sandbox_is_joined_by_its_path() -> None:
    namespaces = config(sandbox="/run/netns/x")["linux"]["namespaces"]
    assert {"type": "network", "path": "/run/netns/x"} in namespaces


def test_the_hosts_network_is_no_namespace_at_all() -> None:
    assert {n["type"] for n in config()["linux"]["namespaces"]} == {"pid", "mount", "ipc", "uts"}


def test_devices_are_denied_because_mknod_is_allowed() -> None:
    assert "CAP_MKNOD" in CAPABILITIES
    assert config()["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]


def test_capabilities_are_added_and_taken_away() -> None:
    def capabilities(**changes: object) -> list[str]:
        return list(config(**changes)["process"]["capabilities"]["bounding"])

    assert set(capabilities(cap_add=("CAP_NET_ADMIN",), cap_drop=("CAP_CHOWN",))) == (
        {*CAPABILITIES, "CAP_NET_ADMIN"} - {"CAP_CHOWN"}
    )
    assert capabilities(cap_drop=("ALL",)) == []
    assert capabilities(cap_drop=("ALL",), cap_add=("CAP_NET_RAW",)) == ["CAP_NET_RAW"]
    assert len(capabilities(cap_add=("ALL",), cap_drop=("CAP_BPF",))) == 40


def test_sysctls_are_asked_of_the_runtime() -> None:
    assert config(sysctls=(("net.ipv4.ip_forward", "0"),))["linux"]["sysctl"] == {"net.ipv4.ip_forward": "0"}


def test_no_sysctl_of_the_sandbox_is_touched() -> None:
    assert "sysctl" not in config(sandbox="/run/netns/x")["linux"]


def test_a_mount_covers_our_own_file_at_its_place() -> None:
    mine = BindMount(source="/mine", destination="/etc/hosts")
    rendered = render_config(
        replace(SPEC, mounts=(mine,)), root="/r", files=(BindMount(source="/ours", destination="/etc/hosts"),)
    )
    assert [m["source"] for m in rendered["mounts"] if m["destination"] == "/etc/hosts"] == ["/mine"]


def test_parents_are_mounted_before_what_lies_in_them() -> None:
    inner, outer = BindMount(source="/a", destination="/x/y"), BindMount(source="/b", destination="/x")
    assert places(config(mounts=(inner, outer)))[-2:] == ["/x", "/x/y"]


def test_a_read_only_mount_says_so() -> None:
    mount = config(mounts=(BindMount(source="/a", destination="/x", read_only=True),))["mounts"][-1]
    assert mount["options"] == ["rbind", "rprivate", "ro"]
