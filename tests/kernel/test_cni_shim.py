"""The plugin as a file that a runtime executes, against the agent's CNI server with services that only remember.

It is tried as it is installed, and built with the compiler's checks of memory and undefined behaviour.
"""

import asyncio
import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
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

SOURCE = PLUGIN.with_suffix(".c")
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


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin built so that it ends with a report at the first access it may not make, and soon finds nobody."""
    return _sanitized(tmp_path_factory.mktemp("built"), "-DCONNECT_S=2")


def _sanitized(directory: Path, *times: str) -> Path:
    program = directory / "netagent"
    command = ["cc", "-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", *times]
    made = subprocess.run([*command, *checks, "-o", program, SOURCE], capture_output=True, text=True, check=False)
    if "cannot find" in made.stderr:
        pytest.skip("this compiler has no sanitizers")
    assert made.returncode == 0, made.stderr
    return program


@pytest.fixture(params=["as-installed", "sanitized"])
def program(request: pytest.FixtureRequest) -> Path:
    if request.param == "as-installed":
        return PLUGIN
    built: Path = request.getfixturevalue("sanitized")
    return built


@pytest.fixture
def plugin(tmp_path: Path, program: Path) -> Plugin:
    return Plugin(program=program, socket=tmp_path / "run" / "cni.sock", queue=tmp_path / "state" / "cni-queue")


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


def test_version_does_not_wait_for_a_standard_input_that_never_ends(program: Path) -> None:
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            [program], env={"CNI_COMMAND": "VERSION"}, stdin=reading, capture_output=True, timeout=60, check=True
        )
    finally:
        os.close(reading)
        os.close(writing)
    assert json.loads(done.stdout)["cniVersion"] == "1.1.0"


def test_version_needs_no_standard_input_at_all(program: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"exec {program} <&-"], env={"CNI_COMMAND": "VERSION"}, capture_output=True, timeout=60, check=True
    )
    assert json.loads(done.stdout)["supportedVersions"] == SUPPORTED


@pytest.mark.parametrize("environment", [{}, {"CNI_COMMAND": ""}])
def test_without_a_command_it_says_what_it_is_and_succeeds(program: Path, environment: dict[str, str]) -> None:
    done = subprocess.run([program], env=environment, capture_output=True, timeout=60, check=True)
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


async def test_calls_go_on_while_the_plugin_is_replaced_by_an_installation(
    services: RememberingServices, tmp_path: Path
) -> None:
    """A file that is being executed cannot be written to (ETXTBSY), and half of one must not be executed."""
    source = PLUGIN.parents[1]
    environment = {"PATH": os.environ["PATH"], "DESTDIR": str(tmp_path)}

    def install() -> None:
        subprocess.run([source / "scripts" / "install", "files"], cwd=source, env=environment, check=True)

    install()
    installed = Plugin(
        program=tmp_path / "opt/cni/bin/netagent", socket=tmp_path / "cni.sock", queue=tmp_path / "queue"
    )
    assert installed.queue
    server = CniServer(services.bundle(), installed.socket, installed.queue)
    await server.start()
    is_over = asyncio.Event()

    async def adds(name: str) -> int:
        number = 0
        while not is_over.is_set():
            number += 1
            assert (await call(installed, "ADD", f"{name}{number}")).address == "172.16.0.7"
        return number

    try:
        async with asyncio.TaskGroup() as group:
            loops = [group.create_task(adds(name)) for name in "abcd"]
            for _ in range(5):
                await asyncio.to_thread(install)
            is_over.set()
    finally:
        await server.close()
    assert sum(loop.result() for loop in loops) > 20


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
        {"LANG": "C", "LC_ALL": "POSIX", "HOME": "", "TMPDIR": "/nonexistent"},
        {"LC_ALL": "de_DE.ISO-8859-1", "PYTHONIOENCODING": "utf-16", "CNI_ARGS": "A=ä"},
    ],
    ids=["no-locale", "other-encoding"],
)
async def test_the_callers_settings_do_not_matter(
    server: CniServer, plugin: Plugin, environment: dict[str, str]
) -> None:
    outcome = await call(plugin, "ADD", **environment)
    assert (outcome.status, outcome.stderr) == (0, "")


async def test_nothing_is_loaded_at_its_start(server: CniServer, plugin: Plugin, tmp_path: Path) -> None:
    (tmp_path / "libc.so.6").write_bytes(b"no library")
    installed = replace(plugin, program=PLUGIN)
    outcome = await call(installed, "ADD", LD_LIBRARY_PATH=str(tmp_path), LD_PRELOAD="/nonexistent.so")
    assert (outcome.status, outcome.stderr) == (0, "")


async def test_of_a_variable_that_stands_twice_the_first_counts(
    server: CniServer, plugin: Plugin, services: RememberingServices
) -> None:
    """Python's environments have each once, but execve() takes what it is given."""
    execute = (
        "import ctypes, sys; texts = [t.encode() for t in sys.argv[2:]] + [None];"
        "ctypes.CDLL(None).execve(sys.argv[1].encode(), (ctypes.c_char_p * 2)(b'netagent', None),"
        "(ctypes.c_char_p * len(texts))(*texts))"
    )
    variables = [f"{k}={v}" for k, v in plugin.variables("ADD", "c1", "/run/netns/c1", "eth0").items()]
    more = ["CNI_COMMAND=DEL", "CNI_COMMANDS=x", "CNI_BARE", "CNI_CONTAINERID=c2"]
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", execute, str(plugin.program), *variables, *more],
        input=json.dumps(a_configuration()).encode(),
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert services.calls[-1] == ("attach", "c1", "eth0")


async def test_a_deleted_working_directory_does_not_matter(server: CniServer, plugin: Plugin, tmp_path: Path) -> None:
    command = [
        "sh",
        "-c",
        f"mkdir {tmp_path}/gone && cd {tmp_path}/gone && rmdir {tmp_path}/gone && exec {plugin.program}",
    ]
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
        ["sh", "-c", f"exec {plugin.program} <&-"],
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
        ["sh", "-c", f"exec {plugin.program} {descriptors}"],
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


async def test_an_add_that_is_stopped_and_continued_goes_on(
    server: CniServer, plugin: Plugin, services: RememberingServices
) -> None:
    services.gate.clear()
    process = plugin.start("ADD")
    talking = asyncio.create_task(asyncio.to_thread(process.communicate, json.dumps(a_configuration())))
    await eventually(lambda: _soon(services.calls))
    process.send_signal(signal.SIGSTOP)
    await eventually(lambda: _soon(Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "T"))
    process.send_signal(signal.SIGCONT)
    services.gate.set()
    output, complaint = await talking
    assert (process.returncode, complaint) == (0, "")
    assert json.loads(output)["ips"]


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


async def test_add_waits_for_an_agent_that_is_about_to_start(services: RememberingServices, tmp_path: Path) -> None:
    program = _sanitized(tmp_path, "-DCONNECT_S=60")
    plugin = Plugin(program=program, socket=tmp_path / "cni.sock", queue=tmp_path / "queue")
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
        with an_agent(plugin, bytes(8)):
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert (await deleting).status == 0
    assert queued(plugin) == []


# An agent that is none


@contextmanager
def an_agent(
    plugin: Plugin, answer: bytes, *, repeated: bytes = b"", every_s: float = 0, reads: bool = True
) -> Iterator[None]:
    """Accept one connection and answer it, then go on with ``repeated`` until the other side or the test ends."""
    plugin.socket.parent.mkdir(exist_ok=True)
    over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            if reads:
                connection.recv(1 << 16)
            connection.sendall(answer)
            while repeated and not over.wait(every_s):
                connection.sendall(repeated)
            if not reads:
                over.wait()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(plugin.socket))
        listener.listen()
        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield
        finally:
            over.set()
            serving.join()


def head(output: int, complaint: int = 0, status: int = 0) -> bytes:
    return output.to_bytes(4, "big") + complaint.to_bytes(3, "big") + bytes([status])


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        pytest.param(head(5) + b"{}", 5, id="cut-short"),
        pytest.param(head(32 << 20) + b"{}", 5, id="announces-the-most-and-sends-little"),
        pytest.param(head(2, complaint=0xFFFFFF) + b"{}", 5, id="complaint-cut-short"),
        pytest.param(head((32 << 20) + 1), 199, id="too-long"),
        pytest.param(b"\xff" * 8, 199, id="nothing-but-ones"),
    ],
)
def test_an_answer_that_cannot_be_is_refused(plugin: Plugin, answer: bytes, code: int) -> None:
    with an_agent(plugin, answer):
        assert plugin.call("ADD").code == code


@pytest.mark.parametrize("status", [0, 1, 255])
def test_what_follows_an_answer_is_left_alone(plugin: Plugin, status: int) -> None:
    with an_agent(plugin, head(2, 3, status) + b"{}why", repeated=b"x" * (1 << 16)):
        assert plugin.call("ADD") == Outcome(status=status, stdout="{}", stderr="why")


def test_the_largest_answer_is_printed_whole(plugin: Plugin) -> None:
    text = b"x" * (32 << 20)
    with an_agent(plugin, head(len(text), 4) + text + b"well"):
        assert plugin.call("ADD") == Outcome(status=0, stdout=text.decode(), stderr="well")


def test_a_complaint_that_nobody_reads_takes_nothing_from_the_answer(plugin: Plugin) -> None:
    with an_agent(plugin, head(2, 3) + b"{}why"):
        done = subprocess.run(
            ["sh", "-c", f"exec {plugin.program} 2>&-"],
            input=json.dumps(a_configuration()).encode(),
            env=plugin.variables("ADD", "c1", "/run/netns/c1", "eth0"),
            stdout=subprocess.PIPE,
            check=True,
        )
    assert done.stdout == b"{}"


async def test_an_answer_has_its_time(tmp_path: Path) -> None:
    """However it passes. DEL is not queued then: the agent is there, and may be at work on it."""
    program = _sanitized(tmp_path, "-DANSWER_S=3")
    agents: dict[str, dict[str, Any]] = {
        "ADD": {"answer": head(1 << 20), "repeated": b" ", "every_s": 0.05},
        "DEL": {"answer": b"", "reads": False},
    }
    plugins = {
        verb: Plugin(program=program, socket=tmp_path / verb / "cni.sock", queue=tmp_path / "queue") for verb in agents
    }
    configuration = a_configuration(padding="x" * (1 << 20))
    with ExitStack() as stack:
        for verb, agent in agents.items():
            stack.enter_context(an_agent(plugins[verb], **agent))
        calls = (call(plugin, verb, configuration=configuration) for verb, plugin in plugins.items())
        for outcome in await asyncio.gather(*calls):
            assert outcome.code == 11
            assert "no answer within 3 s" in outcome.json["msg"]
    assert not (tmp_path / "queue").exists()


def test_a_path_that_no_socket_can_have_is_refused(plugin: Plugin) -> None:
    for length in (107, 108, 4096):
        outcome = replace(plugin, socket=Path("/" + "x" * (length - 1))).call("STATUS")
        assert outcome.code == (50 if length < 108 else 4)


def test_letters_of_a_path_do_not_spoil_the_error(plugin: Plugin) -> None:
    outcome = replace(plugin, socket=Path('/nosuch/"\\\n\t\x7fä')).call("STATUS")
    assert outcome.code == 50
    assert '/nosuch/"\\?????' in outcome.json["msg"]


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
