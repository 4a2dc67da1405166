"""The plugin as a file that a runtime executes, against the agent's CNI server with services that only remember."""

import asyncio
import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from netagent.api.cni import CniServer
from netagent.errors import Conflict, KernelRejected, NetagentError, NotFound, Unavailable
from netagent.model.container import Container
from netagent.model.endpoint import Endpoint
from netagent.model.ids import ContainerId
from netagent.model.network import Network
from netagent.services.all import Services
from netagent.services.requests import Attachment, ContainerView
from tests.support.cni import PLUGIN, Outcome, Plugin, a_configuration
from tests.support.eventually import eventually
from tests.support.world import LOCALNET, a_host, a_local_network, an_endpoint

pytestmark = pytest.mark.kernel

SUPPORTED = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


class RememberingServices:
    """Attachments as a list of calls; ``failure`` is raised by the next ones, ``gate`` holds ADD up."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str]] = []
        self.networks_asked: list[str | None] = []
        self.failure: BaseException | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    def bundle(self) -> Services:
        info = SimpleNamespace(info=lambda: SimpleNamespace(host=a_host(1)))
        return cast(Services, SimpleNamespace(networks=self, attachments=self, info=info))

    def find(self, name: str) -> Network:
        if name not in ("app", LOCALNET[:4]):
            raise NotFound(f"network {name} not found")
        return a_local_network()

    async def attach(self, request: Attachment) -> ContainerView:
        self.calls.append(("attach-begins", request.container_id, request.interface))
        await self.gate.wait()
        if self.failure:
            raise self.failure
        self.calls.append(("attach", request.container_id, request.interface))
        endpoint: Endpoint = replace(an_endpoint("172.16.0.7", network=LOCALNET), interface=request.interface)
        container = Container(id=ContainerId("c" * 64), name=request.name, kind=request.kind)
        return ContainerView(container=container, endpoints=((endpoint, a_local_network()),))

    async def detach_interface(
        self, container_id: str, interface: str, network_id: str | None, *, configuration: str
    ) -> None:
        if self.failure:
            raise self.failure
        self.calls.append(("detach", container_id, interface))
        self.networks_asked.append(network_id)


@pytest.fixture
def services() -> RememberingServices:
    return RememberingServices()


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    return Plugin(socket=tmp_path / "run" / "cni.sock", queue=tmp_path / "state" / "cni-queue")


@pytest.fixture
async def server(services: RememberingServices, plugin: Plugin) -> AsyncIterator[CniServer]:
    running = CniServer(services.bundle(), plugin.socket, plugin.queue)
    await running.start()
    yield running
    await running.close()


async def call(plugin: Plugin, verb: str, *arguments: str, **more: Any) -> Outcome:
    return await asyncio.to_thread(plugin.call, verb, *arguments, **more)


def queued(plugin: Plugin) -> list[Path]:
    return sorted(path for path in plugin.queue.glob("*") if not path.name.startswith("."))


# Without the agent: VERSION, and a call by hand


@pytest.mark.parametrize("version", SUPPORTED)
def test_version_lists_all_and_answers_in_the_callers(plugin: Plugin, version: str) -> None:
    configuration = json.dumps({"cniVersion": version}, indent=2)
    outcome = plugin.call("VERSION", "", "dummy", "dummy", configuration=configuration, CNI_PATH="dummy")
    assert outcome == Outcome(status=0, stdout=outcome.stdout, stderr="")
    assert outcome.json == {"cniVersion": version, "supportedVersions": SUPPORTED}


@pytest.mark.parametrize("text", ["", "not json", '{"cniVersion": "9.9.9"}', '{"cniVersion": 1}', '{"cniVersion"'])
def test_version_answers_in_the_newest_where_the_caller_names_none_of_ours(plugin: Plugin, text: str) -> None:
    outcome = plugin.call("VERSION", configuration=text)
    assert outcome.json == {"cniVersion": "1.1.0", "supportedVersions": SUPPORTED}


def test_version_does_not_wait_for_a_standard_input_that_never_ends() -> None:
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            [PLUGIN], env={"CNI_COMMAND": "VERSION"}, stdin=reading, capture_output=True, timeout=10, check=True
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert json.loads(done.stdout)["cniVersion"] == "1.1.0"


def test_version_needs_no_standard_input_at_all() -> None:
    done = subprocess.run(
        ["sh", "-c", f"exec {PLUGIN} <&-"], env={"CNI_COMMAND": "VERSION"}, capture_output=True, timeout=10, check=True
    )
    assert json.loads(done.stdout)["supportedVersions"] == SUPPORTED


@pytest.mark.parametrize("environment", [{}, {"CNI_COMMAND": ""}])
def test_without_a_command_it_says_what_it_is_and_succeeds(environment: dict[str, str]) -> None:
    done = subprocess.run([PLUGIN], env=environment, capture_output=True, timeout=10, check=True)
    assert done.stdout == b""
    assert b"netagent" in done.stderr
    assert b"1.1.0" in done.stderr


# ADD and DEL through the agent


async def test_add_prints_the_result(server: CniServer, plugin: Plugin, services: RememberingServices) -> None:
    outcome = await call(plugin, "ADD", "c1", "/run/netns/c1", "net1")
    assert outcome.status == 0
    assert outcome.stderr == ""
    assert outcome.json["cniVersion"] == "1.0.0"
    assert outcome.address == "172.16.0.7"
    assert outcome.json["interfaces"][2] == {
        "name": "net1",
        "mac": an_endpoint("172.16.0.7", network=LOCALNET).mac,
        "sandbox": "/run/netns/c1",
    }
    assert services.calls[-1] == ("attach", "c1", "net1")


async def test_delete_prints_nothing(server: CniServer, plugin: Plugin, services: RememberingServices) -> None:
    for _ in range(3):
        assert await call(plugin, "DEL", "c1") == Outcome(status=0, stdout="", stderr="")
    assert services.calls == [("detach", "c1", "eth0")] * 3
    assert services.networks_asked == [LOCALNET] * 3


async def test_delete_of_a_network_that_is_gone_frees_the_interface_anyhow(
    server: CniServer, plugin: Plugin, services: RememberingServices
) -> None:
    assert (await call(plugin, "DEL", "c1", configuration=a_configuration("gone"))).status == 0
    assert services.calls == [("detach", "c1", "eth0")]
    assert services.networks_asked == [None]


@pytest.mark.parametrize("name", ["nosuch", LOCALNET[:4]], ids=["unknown", "beginning-of-an-id"])
async def test_add_to_a_network_that_is_not_there_says_how_to_make_it(
    server: CniServer, plugin: Plugin, services: RememberingServices, name: str
) -> None:
    outcome = await call(plugin, "ADD", configuration=a_configuration(name))
    assert outcome.code == 7
    assert name in outcome.json["msg"]
    assert f"netagent network create {name}" in outcome.json["details"]
    assert services.calls == []


@pytest.mark.parametrize("verb", ["FOO", "add"])
async def test_other_verbs_are_refused(server: CniServer, plugin: Plugin, verb: str) -> None:
    outcome = await call(plugin, verb)
    assert outcome.code == 4
    assert verb in outcome.json["msg"]


@pytest.mark.parametrize("version", ["0.1.0", "0.3.1", "1.1.0"])
async def test_an_error_is_told_in_the_version_of_the_configuration(
    server: CniServer, plugin: Plugin, services: RememberingServices, version: str
) -> None:
    services.failure = Conflict("port 80 is taken", hint="choose another", port=80)
    outcome = await call(plugin, "ADD", configuration=a_configuration(version=version))
    assert outcome.code == 101
    assert outcome.json["cniVersion"] == version


async def test_our_own_bug_is_told_without_a_traceback(
    server: CniServer, plugin: Plugin, services: RememberingServices
) -> None:
    services.failure = RuntimeError("secret detail")
    outcome = await call(plugin, "ADD")
    assert outcome.code == 199
    assert "secret" not in outcome.stdout + outcome.stderr
    services.failure = None
    assert (await call(plugin, "ADD")).status == 0


@pytest.mark.parametrize(
    "failure",
    [
        Unavailable("device not found in the store"),
        KernelRejected("link del nae1", 2, "No such file or directory", hint="link not found"),
    ],
)
async def test_a_failed_delete_never_says_what_runtimes_take_for_success(
    server: CniServer, plugin: Plugin, services: RememberingServices, failure: NetagentError
) -> None:
    services.failure = failure
    outcome = await call(plugin, "DEL")
    assert outcome.status == 1
    assert "not found" not in outcome.stdout.lower()
    assert "no such file" not in outcome.stdout.lower()


async def test_delete_of_what_is_gone_succeeds(
    server: CniServer, plugin: Plugin, services: RememberingServices
) -> None:
    services.failure = NotFound("container c1 not found")
    assert await call(plugin, "DEL") == Outcome(status=0, stdout="", stderr="")


# Hostile surroundings


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONPATH": "/tmp/evil", "PYTHONHOME": "/tmp/evil", "PYTHONSTARTUP": "/tmp/evil.py"},
        {"PYTHONWARNINGS": "always", "PYTHONVERBOSE": "1", "PYTHONDEVMODE": "1", "PYTHONINSPECT": "1"},
        {"LANG": "C", "LC_ALL": "POSIX", "HOME": "", "TMPDIR": "/nonexistent"},
        {"LC_ALL": "de_DE.ISO-8859-1", "PYTHONIOENCODING": "utf-16", "CNI_ARGS": "A=ä"},
    ],
    ids=["python-path", "python-debugging", "no-locale", "other-encoding"],
)
async def test_the_environment_does_not_reach_the_interpreter(
    server: CniServer, plugin: Plugin, environment: dict[str, str]
) -> None:
    outcome = await call(plugin, "ADD", **environment)
    assert (outcome.status, outcome.stderr) == (0, "")


async def test_modules_beside_the_caller_are_not_imported(server: CniServer, plugin: Plugin, tmp_path: Path) -> None:
    for module in ("fcntl", "posix", "_socket", "sys", "encodings", "sitecustomize", "codecs"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit(77)")
    command = ["sh", "-c", f"cd {tmp_path} && exec {PLUGIN}"]
    environment = plugin.variables("ADD", "c1", "/run/netns/c1", "eth0") | {"PYTHONPATH": str(tmp_path)}
    done = await asyncio.to_thread(
        subprocess.run, command, input=json.dumps(a_configuration()).encode(), env=environment, capture_output=True
    )
    assert done.returncode == 0


async def test_a_deleted_working_directory_does_not_matter(server: CniServer, plugin: Plugin, tmp_path: Path) -> None:
    command = ["sh", "-c", f"mkdir {tmp_path}/gone && cd {tmp_path}/gone && rmdir {tmp_path}/gone && exec {PLUGIN}"]
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        input=json.dumps(a_configuration()).encode(),
        env=plugin.variables("ADD", "c1", "/run/netns/c1", "eth0"),
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")


async def test_a_closed_standard_input_is_an_error_of_input(server: CniServer, plugin: Plugin) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        ["sh", "-c", f"exec {PLUGIN} <&-"],
        env=plugin.variables("ADD", "c1", "/run/netns/c1", "eth0"),
        capture_output=True,
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 5


@pytest.mark.parametrize("descriptors", [">&-", "<&- >&- 2>&-"])
async def test_closed_descriptors_are_not_mistaken_for_the_agents_connection(
    server: CniServer, plugin: Plugin, services: RememberingServices, descriptors: str
) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        ["sh", "-c", f"exec {PLUGIN} {descriptors}"],
        input=json.dumps(a_configuration()).encode(),
        env=plugin.variables("ADD", "c1", "/run/netns/c1", "eth0"),
    )
    assert done.returncode == 1


async def test_too_large_a_configuration_is_refused(server: CniServer, plugin: Plugin) -> None:
    text = json.dumps(a_configuration(padding="x" * (17 << 20)))
    assert (await call(plugin, "ADD", configuration=text)).code == 6


# The server's side of the socket


async def test_only_root_may_connect(server: CniServer, plugin: Plugin) -> None:
    assert stat.S_IMODE(plugin.socket.stat().st_mode) == 0o600


async def test_a_stale_socket_is_replaced(services: RememberingServices, plugin: Plugin) -> None:
    plugin.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(plugin.socket))
    server = CniServer(services.bundle(), plugin.socket, plugin.queue)
    await server.start()
    assert (await call(plugin, "ADD")).status == 0
    await server.close()
    assert not plugin.socket.exists()


@pytest.mark.parametrize(
    "sent",
    [b"", b"\0\0", b"\0\0\0\x05abc", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x03\xff\xff\xff"],
    ids=["nothing", "half-a-length", "cut-short", "too-long", "empty", "no-text"],
)
async def test_garbage_on_the_socket_harms_nobody(server: CniServer, plugin: Plugin, sent: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(str(plugin.socket))
    writer.write(sent)
    writer.write_eof()
    answer = await reader.read()
    assert b"Traceback" not in answer
    if answer:
        assert json.loads(answer[8:])["code"] in (4, 5, 6)
    writer.close()
    await writer.wait_closed()
    assert (await call(plugin, "ADD")).status == 0


async def test_an_add_whose_caller_was_killed_is_taken_back(
    server: CniServer, plugin: Plugin, services: RememberingServices
) -> None:
    services.gate.clear()
    process = plugin.start("ADD")
    assert process.stdin is not None
    process.stdin.write(json.dumps(a_configuration()))
    process.stdin.close()
    await eventually(lambda: _soon(services.calls))
    process.send_signal(signal.SIGKILL)
    process.wait()
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    services.gate.set()
    await eventually(lambda: _soon(("detach", "c1", "eth0") in services.calls))
    assert services.calls == [("attach-begins", "c1", "eth0"), ("attach", "c1", "eth0"), ("detach", "c1", "eth0")]


async def _soon(value: Any) -> Any:
    return value


async def test_closing_lets_a_request_end(services: RememberingServices, plugin: Plugin) -> None:
    server = CniServer(services.bundle(), plugin.socket, plugin.queue)
    await server.start()
    services.gate.clear()
    adding = asyncio.create_task(call(plugin, "ADD"))
    await eventually(lambda: _soon(services.calls))
    closing = asyncio.create_task(server.close())
    await eventually(lambda: _soon(not plugin.socket.exists()))
    services.gate.set()
    await closing
    assert (await adding).status == 0


async def test_two_hundred_plugins_at_once_are_all_served(
    server: CniServer, plugin: Plugin, services: RememberingServices
) -> None:
    services.gate.clear()

    async def one(number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(str(plugin.socket))
        variables = plugin.variables("ADD", f"c{number}", "/run/netns/x", "eth0")
        text = "".join(f"{key}={value}\0" for key, value in variables.items()) + "\0" + json.dumps(a_configuration())
        writer.write(len(text).to_bytes(4, "big") + text.encode())
        return reader, writer

    open_ones = await asyncio.gather(*(one(number) for number in range(200)))
    await eventually(lambda: _soon(len(services.calls) == 200))
    services.gate.set()
    for reader, writer in open_ones:
        answer = await reader.read()
        assert answer[4:8] == b"\0\0\0\0"
        writer.close()
        await writer.wait_closed()


# While the agent is away


async def test_add_without_an_agent_says_try_again_later(plugin: Plugin) -> None:
    outcome = await call(plugin, "ADD")
    assert outcome.code == 11
    assert str(plugin.socket) in outcome.json["msg"]
    assert queued(plugin) == []


async def test_add_waits_for_an_agent_that_is_about_to_start(services: RememberingServices, plugin: Plugin) -> None:
    adding = asyncio.create_task(call(plugin, "ADD"))
    await asyncio.sleep(0.5)  # The plugin must have found nobody: there is no sign of it from outside.
    server = CniServer(services.bundle(), plugin.socket, plugin.queue)
    await server.start()
    assert (await adding).status == 0
    await server.close()


async def test_a_delete_without_an_agent_is_carried_out_when_it_starts(
    services: RememberingServices, plugin: Plugin
) -> None:
    for container in ("c1", "c2"):
        assert await call(plugin, "DEL", container) == Outcome(status=0, stdout="", stderr="")
    assert [stat.S_IMODE(path.stat().st_mode) for path in queued(plugin)] == [0o600, 0o600]
    server = CniServer(services.bundle(), plugin.socket, plugin.queue)
    await server.start()
    assert sorted(services.calls) == [("detach", "c1", "eth0"), ("detach", "c2", "eth0")]
    assert queued(plugin) == []
    await server.close()


async def test_the_agent_tells_the_plugin_where_its_queue_is(services: RememberingServices, plugin: Plugin) -> None:
    """Also after it was started with another state directory: what waits in the former one is not forgotten."""
    untold = replace(plugin, queue=None)
    former = CniServer(services.bundle(), plugin.socket, plugin.queue)
    await former.start()
    await former.close()
    assert untold.delete("c1").status == 0
    assert len(queued(plugin)) == 1
    moved = plugin.queue.with_name("moved")
    server = CniServer(services.bundle(), plugin.socket, moved)
    await server.start()
    await server.close()
    assert services.calls == [("detach", "c1", "eth0")]
    assert untold.delete("c2").status == 0
    assert len(queued(replace(plugin, queue=moved))) == 1


async def test_a_link_that_cannot_be_placed_does_not_stop_the_agent(
    services: RememberingServices, plugin: Plugin
) -> None:
    (plugin.socket.with_name("cni-queue") / "in-the-way").mkdir(parents=True)
    server = CniServer(services.bundle(), plugin.socket, plugin.queue)
    await server.start()
    assert (await call(plugin, "DEL")).status == 0
    await server.close()


def test_the_queue_is_private_whatever_the_umask(plugin: Plugin) -> None:
    before = os.umask(0)
    try:
        assert plugin.delete().status == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(plugin.queue.stat().st_mode) == 0o700
    assert stat.S_IMODE(queued(plugin)[0].stat().st_mode) == 0o600


@pytest.mark.parametrize(("container", "interface"), [("", "eth0"), ("c1", "")])
def test_a_delete_that_names_nothing_is_not_queued(plugin: Plugin, container: str, interface: str) -> None:
    assert plugin.delete(container, interface=interface).code == 4
    assert queued(plugin) == []


def test_a_full_queue_is_said(plugin: Plugin) -> None:
    plugin.queue.mkdir(parents=True)
    for number in range(256):
        (plugin.queue / f"{number}").touch()
    assert plugin.delete().code == 11
    assert len(queued(plugin)) == 256


def test_a_queue_that_cannot_be_written_is_said(plugin: Plugin) -> None:
    plugin.queue.parent.mkdir(parents=True)
    plugin.queue.touch()
    outcome = plugin.delete()
    assert outcome.code == 11
    assert "no such file" not in outcome.stdout.lower()
    missing = replace(plugin, queue=plugin.queue.parent / "a" / "b" / "c")
    outcome = missing.delete()
    assert outcome.code == 11
    assert "no such file" not in outcome.stdout.lower()


async def test_a_delete_that_fails_stays_queued_for_the_next_start(
    services: RememberingServices, plugin: Plugin
) -> None:
    assert plugin.delete().status == 0
    services.failure = Unavailable("not now")
    server = CniServer(services.bundle(), plugin.socket, plugin.queue)
    await server.start()
    await server.close()
    assert len(queued(plugin)) == 1
    services.failure = None
    server = CniServer(services.bundle(), plugin.socket, plugin.queue)
    await server.start()
    await server.close()
    assert queued(plugin) == []
    assert services.calls == [("detach", "c1", "eth0")]


async def test_strange_files_in_the_queue_do_not_stop_the_agent(services: RememberingServices, plugin: Plugin) -> None:
    assert plugin.delete().status == 0
    (plugin.queue / "garbage").write_bytes(b"\xff" * 100)
    (plugin.queue / ".aside").write_bytes(b"half a request")
    os.mkfifo(plugin.queue / "fifo")
    (plugin.queue / "directory").mkdir()
    (plugin.queue / "link").symlink_to("/etc/passwd")
    add = "".join(f"{key}={value}\0" for key, value in plugin.variables("ADD", "c9", "/run/netns/x", "eth0").items())
    (plugin.queue / "add").write_text(add + "\0" + json.dumps(a_configuration()))
    server = CniServer(services.bundle(), plugin.socket, plugin.queue)
    await server.start()
    await server.close()
    assert services.calls == [("detach", "c1", "eth0")]
    assert sorted(path.name for path in plugin.queue.iterdir()) == [".lock", "directory"]


async def test_a_delete_waits_for_an_agent_that_reads_the_queue(services: RememberingServices, plugin: Plugin) -> None:
    """Else its file would be left for some later start, and hit whatever has that container's id by then."""
    plugin.queue.mkdir(parents=True)
    with (plugin.queue / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        deleting = asyncio.create_task(call(plugin, "DEL"))
        await asyncio.sleep(0.3)  # Time to write a file, were it not for the lock.
        assert not deleting.done()
        assert queued(plugin) == []
        listener = socket.socket(socket.AF_UNIX)
        plugin.socket.parent.mkdir()
        listener.bind(str(plugin.socket))
        listener.listen()
        answering = threading.Thread(target=_answer_once, args=(listener,))
        answering.start()
    assert (await deleting).status == 0
    answering.join()
    listener.close()
    assert queued(plugin) == []


def _answer_once(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(1 << 16)
        connection.sendall(bytes(8))


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_an_agent_that_dies_before_it_answers(plugin: Plugin, verb: str) -> None:
    plugin.socket.parent.mkdir(parents=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(plugin.socket))
    listener.listen()

    def die() -> None:
        connection, _ = listener.accept()
        plugin.socket.unlink()
        listener.close()
        connection.recv(1 << 16)
        connection.sendall(bytes(5))
        connection.close()

    dying = threading.Thread(target=die)
    dying.start()
    outcome = plugin.call(verb)
    dying.join()
    if verb == "ADD":
        assert outcome.code == 5
    else:
        assert outcome == Outcome(status=0, stdout="", stderr="")
        assert len(queued(plugin)) == 1
