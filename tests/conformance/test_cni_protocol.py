"""CNI: what the plugin makes of its environment and its standard input (C01 to C30, C103)."""

import json
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import Machine, Make
from tests.support.cni import PLUGIN, Plugin, a_configuration

pytestmark = pytest.mark.cluster

VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
CONFIGURATION = a_configuration(version="1.1.0")


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left(started_machine: Machine) -> Iterator[None]:
    """Whatever was refused here has changed nothing, and what was made is gone."""
    started_machine.make_netns("warm")
    for network in ("app", "dual"):
        assert started_machine.plugin.add("warm", "/run/netns/warm", configuration=a_configuration(network)).status == 0
        assert started_machine.plugin.delete("warm", configuration=a_configuration(network)).status == 0
    before = started_machine.dump()
    yield
    started_machine.settles(before)
    started_machine.remove_netns("warm")


def test_c01_version_lists_all_in_order(plugin: Plugin) -> None:
    outcome = plugin.call("VERSION", "", "", "", configuration={"cniVersion": "1.1.0"})
    assert outcome.json == {"cniVersion": "1.1.0", "supportedVersions": VERSIONS}


@pytest.mark.parametrize("shell", ["exec {} <&-", "exec {} </dev/null", "sleep 3 | exec {}"])
def test_c02_version_does_not_need_its_input(shell: str) -> None:
    begun = time.monotonic()
    process = subprocess.Popen(
        ["sh", "-c", shell.format(PLUGIN)],
        env={"CNI_COMMAND": "VERSION", "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        process_group=0,
    )
    assert process.stdout is not None
    with process.stdout as output:
        assert json.loads(output.readline())["supportedVersions"] == VERSIONS
    took = time.monotonic() - begun
    os.killpg(process.pid, 9)
    process.wait()
    assert took < 1


def test_c03_version_takes_no_heed_of_dummies(plugin: Plugin) -> None:
    outcome = plugin.call("VERSION", "", "dummy", "dummy", configuration={"cniVersion": "1.1.0"}, CNI_PATH="dummy")
    assert outcome.json == {"cniVersion": "1.1.0", "supportedVersions": VERSIONS}


def test_c04_version_answers_in_the_version_asked_for(plugin: Plugin) -> None:
    assert plugin.call("VERSION", configuration={"cniVersion": "0.4.0"}).json["cniVersion"] == "0.4.0"


def test_c05_without_a_command_it_says_what_it_is(plugin: Plugin) -> None:
    outcome = plugin.call("")
    assert (outcome.status, outcome.stdout) == (0, "")
    assert "1.1.0" in outcome.stderr


@pytest.mark.parametrize("command", ["FOO", "add"], ids=["C06", "C07"])
def test_an_unknown_command_is_refused_by_name(plugin: Plugin, command: str) -> None:
    outcome = plugin.call(command)
    assert outcome.code == 4
    assert "CNI_COMMAND" in outcome.json["msg"]


MISSING = {
    "C08-all": ("ADD", ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")),
    "C09-container-id": ("ADD", ("CNI_CONTAINERID",)),
    "C10-netns": ("ADD", ("CNI_NETNS",)),
    "C11-interface": ("ADD", ("CNI_IFNAME",)),
    "C13-del-interface": ("DEL", ("CNI_IFNAME",)),
    "C13-del-container-id": ("DEL", ("CNI_CONTAINERID",)),
    "C08-check": ("CHECK", ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")),
}


@pytest.mark.parametrize("case", MISSING.values(), ids=MISSING)
def test_all_missing_variables_are_named(plugin: Plugin, case: tuple[str, tuple[str, ...]]) -> None:
    verb, missing = case
    outcome = plugin.call(verb, configuration=CONFIGURATION, **dict.fromkeys(missing, ""))
    assert outcome.code == 4
    assert all(key in outcome.json["msg"] for key in missing)


def test_c12_delete_needs_no_namespace(plugin: Plugin) -> None:
    assert plugin.delete("c12", "").status == 0


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK"])
@pytest.mark.parametrize("container", ["../../etc", "-a", ".a", "a b", "a" * 300, "a\n", "a/b", "é"])
def test_c14_a_hostile_container_id_is_refused(machine: Machine, plugin: Plugin, container: str, verb: str) -> None:
    files = machine.run("find", "/run", "/var/lib", "-newer", "/proc/self", "-name", "*etc*")
    outcome = plugin.call(verb, container, configuration=CONFIGURATION)
    assert outcome.code == 4
    assert "CNI_CONTAINERID" in outcome.json["msg"]
    assert machine.run("find", "/run", "/var/lib", "-newer", "/proc/self", "-name", "*etc*") == files


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
@pytest.mark.parametrize("name", ["a" * 16, ".", "..", "a/b", "a:b", "a b", "a\t", "a\u00a0b", "\u00e9" * 8])
def test_c15_a_bad_interface_name_is_refused(plugin: Plugin, name: str, verb: str) -> None:
    outcome = plugin.call(verb, "c15", "/run/netns/c15", name)
    assert outcome.code == 4
    assert "CNI_IFNAME" in outcome.json["msg"]


def test_c16_an_interface_name_may_have_fifteen_bytes(machine: Machine, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    longest = "\u00e9" * 7 + "x"
    assert plugin.add(name, path, longest).json["interfaces"][2]["name"] == longest
    assert plugin.delete(name, path, longest).status == 0


UNREADABLE = {
    "empty": "",
    "not-json": "cniVersion",
    "array": "[]",
    "trailing-garbage": '{"name":"app"} x',
    "byte-order-mark": '\ufeff{"name":"app"}',
    "two-objects": "{}{}",
    "half-a-surrogate": '{"name":"\\ud800"}',
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("verb", ["ADD", "DEL", "GC"])
def test_c17_what_is_no_json_object_is_refused(plugin: Plugin, verb: str, text: str) -> None:
    assert plugin.call(verb, configuration=text).code == 6


def test_c17_invalid_utf8_is_refused(machine: Machine, plugin: Plugin) -> None:
    done = subprocess.run(
        [*machine.prefix, PLUGIN],
        input=b'{"cniVersion":"1.1.0","name":"\xff"}',
        env=plugin.variables("ADD", "c1", "/run/netns/c1", "eth0"),
        capture_output=True,
    )
    assert json.loads(done.stdout)["code"] == 6


EXCESSIVE = {
    "nested": '{"name":"app","x":' + "[" * 100_000 + "]" * 100_000 + "}",
    "ten-mebibytes": json.dumps({"name": 7, "x": "y" * (10 << 20)}),
    "endless-number": '{"name":7,"x":' + "9" * 10_000 + "}",
    "duplicate-keys": '{"name":"app","name":"dual"}',
    "nan": '{"name":"app","x":NaN}',
}


@pytest.mark.parametrize("text", EXCESSIVE.values(), ids=EXCESSIVE)
def test_c18_excessive_json_is_refused_quickly(machine: Machine, plugin: Plugin, text: str) -> None:
    def memory() -> int:
        status = Path(f"/proc/{machine.agent_pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    begun, before = time.monotonic(), memory()
    assert plugin.call("ADD", configuration=text).code in (6, 7)
    assert time.monotonic() - begun < 1
    assert memory() - before < 128 << 20
    assert plugin.call("DEL", configuration=CONFIGURATION).status == 0, "the agent goes on"


@pytest.mark.parametrize("name", [None, "", "a/b", "../x", "néon", 7, "a\n"])
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_c19_a_bad_network_name_is_refused(plugin: Plugin, verb: str, name: Any) -> None:
    configuration = {"cniVersion": "1.1.0", "type": "netagent", "name": name}
    assert plugin.call(verb, configuration=configuration).code == 7


@pytest.mark.parametrize(
    ("version", "code"), [("2.0.0", 1), ("1.2.0", 1), ("abc", 6), ("1.1.0.0", 6), (1, 6), ("1.1.0\n", 6)]
)
def test_c20_a_version_that_is_not_ours_is_refused(plugin: Plugin, version: Any, code: int) -> None:
    outcome = plugin.call("ADD", configuration={**CONFIGURATION, "cniVersion": version})
    assert outcome.code == code
    if code == 1:
        assert "0.1.0" in outcome.json["details"]


def test_c21_without_a_version_the_first_one_is_meant(plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    result = plugin.add(name, path, configuration={"name": "app", "type": "netagent"}).json
    assert result["cniVersion"] == "0.1.0"
    assert result["ip4"]["ip"].startswith("10.20.")


def test_c23_unknown_keys_are_accepted(plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    configuration = CONFIGURATION | {"vendor": {"x": 1}, "cni.dev/new": [], "capabilities": {"mac": True}}
    assert plugin.add(name, path, configuration=configuration).status == 0


def test_c24_unknown_keys_of_our_own_object_are_refused_by_key_and_value(plugin: Plugin, netns: Make) -> None:
    outcome = plugin.add(*netns(), configuration=CONFIGURATION | {"netagent": {"netwrok": "dual"}})
    assert outcome.code == 2
    assert "netwrok" in outcome.json["msg"]
    assert "dual" in outcome.json["msg"]


def test_c25_the_type_is_the_runtimes_business(plugin: Plugin, netns: Make) -> None:
    assert plugin.add(*netns(), configuration=CONFIGURATION | {"type": "other/name"}).status == 0


@pytest.mark.parametrize("kind", ["../{}", "/{}", ".", "..", "a/../{}", 7, ["x"]])
def test_c25_an_ipam_plugin_is_a_name_and_no_path(plugin: Plugin, netns: Make, tmp_path: Path, kind: Any) -> None:
    program = tmp_path / "outside"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/executed\n")
    program.chmod(0o755)
    (tmp_path / "bin").mkdir()
    given = (
        kind.format(str(program).lstrip("/") if kind.startswith("/") else "outside") if isinstance(kind, str) else kind
    )
    outcome = plugin.add(
        *netns(), configuration=CONFIGURATION | {"ipam": {"type": given}}, CNI_PATH=str(tmp_path / "bin")
    )
    assert outcome.code == 7
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("away", [False, True], ids=["agent", "no-agent"])
def test_c26_an_error_is_one_object_and_nothing_else(plugin: Plugin, away: bool) -> None:
    more = {"NETAGENT_CNI_SOCKET": "/run/nothing"} if away else {}
    verb = "STATUS" if away else "ADD"
    outcome = plugin.call(
        verb,
        "c26",
        "/run/netns/nosuch",
        configuration=CONFIGURATION | {"name": "nosuch"},
        PYTHONWARNINGS="always",
        PYTHONVERBOSE="1",
        PYTHONDEVMODE="1",
        **more,
    )
    assert outcome.code == (50 if away else 7)
    assert outcome.json["cniVersion"] == "1.1.0"
    assert outcome.stdout.count("\n") <= 1
    assert outcome.stderr == ""


def test_c27_what_nobody_reads_is_cleaned_up_by_delete(machine: Machine, plugin: Plugin, netns: Make) -> None:
    plugin.add(*netns())
    name, path = netns()
    before = machine.dump()
    process = plugin.start("ADD", name, path)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.close()
    process.stdin.write(json.dumps(CONFIGURATION))
    process.stdin.close()
    assert process.wait() == 1
    assert process.stderr is not None
    process.stderr.close()
    assert plugin.delete(name, path, configuration=CONFIGURATION).status == 0
    machine.settles(before)


NAMESPACES = {
    "C28-own": ("/proc/{agent}/ns/net", 8),
    "C28-self": ("/proc/self/ns/net", 8),
    "C29-missing": ("/run/netns/nosuch", 3),
    "C29-dangling": ("/run/cni-test/dangling", 3),
    "C29-file": ("/run/cni-test/file", 8),
    "C28-link-to-own": ("/run/cni-test/own", 8),
    "C29-link-to-fifo": ("/run/cni-test/piped", 8),
    "C29-loop-of-links": ("/run/cni-test/loop", 8),
    "C29-socket": ("/run/netagent/cni.sock", 8),
    "C29-too-long": ("/run/" + "a/" * 2048, 4),
    "C29-directory": ("/run/cni-test", 8),
    "C29-fifo": ("/run/cni-test/fifo", 8),
    "C29-block-device": ("/dev/loop0", 8),
    "C29-endless-device": ("/dev/zero", 8),
    "C29-relative": ("netns/c1", 4),
    "C30-pid": ("/proc/self/ns/pid", 8),
    "C30-user": ("/proc/self/ns/user", 8),
    "C30-mnt": ("/proc/self/ns/mnt", 8),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("case", NAMESPACES.values(), ids=NAMESPACES)
def test_what_is_no_containers_namespace_is_refused(machine: Machine, plugin: Plugin, case: tuple[str, int]) -> None:
    path, code = case
    machine.run(
        "sh",
        "-c",
        "mkdir -p /run/cni-test; cd /run/cni-test; touch file; ln -sfn /nothing dangling; test -p fifo || mkfifo fifo;"
        f"ln -sfn fifo piped; ln -sfn loop loop; ln -sfn /proc/{machine.agent_pid}/ns/net own",
    )
    before = machine.dump()
    outcome = plugin.add("c28", path.format(agent=machine.agent_pid), configuration=CONFIGURATION)
    assert outcome.code == code
    machine.settles(before)


def test_c28_a_symbolic_link_to_a_containers_namespace_is_one(machine: Machine, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    machine.run("ln", "-sfn", path, f"/run/{name}-link")
    assert plugin.add(name, f"/run/{name}-link").status == 0


def test_c103_nothing_of_the_callers_environment_is_loaded(
    machine: Machine, plugin: Plugin, netns: Make, tmp_path: Path
) -> None:
    name, path = netns()
    gone = tmp_path / "gone"
    gone.mkdir()
    (tmp_path / "libc.so.6").write_bytes(b"no library")
    variables = plugin.variables("ADD", name, path, "eth0", LANG="C")
    shell = f"umask 000; cd {gone}; rmdir {gone}; LD_LIBRARY_PATH={tmp_path} LD_PRELOAD=nosuch.so exec {PLUGIN}"
    done = subprocess.run(
        [*machine.prefix, "sh", "-c", shell],
        input=json.dumps(CONFIGURATION).encode(),
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **variables},
        capture_output=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16)),
    )
    assert (done.returncode, done.stderr) == (0, b""), done
