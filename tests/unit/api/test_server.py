"""The gRPC server on its socket: who may connect, what errors become, what happens to work without a client."""

import asyncio
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from netagent.api.server import ApiServer, serve
from netagent.errors import (
    AlreadyExists,
    Bug,
    Conflict,
    EnvironmentProblem,
    Exhausted,
    InvalidRequest,
    KernelRejected,
    NotFound,
    Unavailable,
)
from netagent.services.requests import NetworkView
from netagent.v1 import ERROR_EXIT_STATUS, ERROR_HINT, ERROR_KIND
from netagent.v1.containers_pb2 import (
    CreateContainerRequest,
    KillContainerRequest,
    StopContainerRequest,
    WaitContainerRequest,
)
from netagent.v1.containers_pb2_grpc import ContainersStub
from netagent.v1.events_pb2 import WatchEventsRequest
from netagent.v1.events_pb2_grpc import EventsStub
from netagent.v1.networks_pb2 import CreateNetworkRequest, ListNetworksRequest, RemoveNetworkRequest
from netagent.v1.networks_pb2_grpc import NetworksStub
from tests.support.eventually import eventually
from tests.support.fake_agent import FakeServices
from tests.support.world import an_overlay

# grpc.aio loses events of loops that are closed meanwhile, so that all tests share one.
pytestmark = pytest.mark.asyncio(loop_scope="session")


@asynccontextmanager
async def _served(run_dir: Path) -> AsyncIterator[tuple[FakeServices, ApiServer, grpc.aio.Channel]]:
    fake = FakeServices(run_dir)
    server = await serve(fake.services(), run_dir / "agent.sock", run_dir=run_dir)
    async with grpc.aio.insecure_channel(f"unix:{run_dir / 'agent.sock'}") as channel:
        yield fake, server, channel
    await server.stop(0.1)


async def _refusal(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return caught.value


def _mode(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


async def test_only_root_and_the_group_can_connect(tmp_path: Path) -> None:
    run_dir = tmp_path / "new" / "run"
    async with _served(run_dir):
        assert (_mode(run_dir), _mode(run_dir / "agent.sock")) == ("0o750", "0o660")


async def test_the_umask_is_as_before(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        async with _served(tmp_path):
            assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


async def test_a_directory_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    async with _served(tmp_path):
        assert _mode(tmp_path) == "0o711"


async def test_a_socket_that_a_dead_agent_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(str(tmp_path / "agent.sock"))
    async with _served(tmp_path) as (_, _, channel):
        assert list((await NetworksStub(channel).List(ListNetworksRequest())).networks) == []


async def test_a_second_agent_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async with _served(tmp_path) as (_, _, channel):
        with pytest.raises(Conflict, match=r"another agent is listening at .*agent\.sock"):
            async with _served(tmp_path):
                pass
        await NetworksStub(channel).List(ListNetworksRequest())


async def test_a_socket_path_beyond_the_kernels_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="socket path is longer than 107 bytes"):
        async with _served(tmp_path / ("d" * 100)):
            pass


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequest("m"), grpc.StatusCode.INVALID_ARGUMENT),
        (NotFound("m"), grpc.StatusCode.NOT_FOUND),
        (AlreadyExists("m"), grpc.StatusCode.ALREADY_EXISTS),
        (Conflict("m"), grpc.StatusCode.FAILED_PRECONDITION),
        (Exhausted("m"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (Unavailable("m"), grpc.StatusCode.UNAVAILABLE),
        (EnvironmentProblem("m"), grpc.StatusCode.FAILED_PRECONDITION),
        (KernelRejected("link add naX", 17, "File exists"), grpc.StatusCode.INTERNAL),
        (Bug("m"), grpc.StatusCode.INTERNAL),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.name,
)
async def test_the_class_of_an_error_decides_its_status(
    tmp_path: Path, error: Exception, status: grpc.StatusCode
) -> None:
    async with _served(tmp_path) as (fake, _, channel):
        fake.refusals["network create"] = error
        refusal = await _refusal(NetworksStub(channel).Create(CreateNetworkRequest(name="x")))
    assert (refusal.code(), dict(refusal.trailing_metadata())[ERROR_KIND]) == (status, type(error).__name__)


async def test_hint_and_exit_status_travel_beside_the_message(tmp_path: Path) -> None:
    async with _served(tmp_path) as (fake, _, channel):
        fake.refusals["create"] = InvalidRequest("cannot run 'nö'", hint="prüfe den Pfad", exit_status=127)
        refusal = await _refusal(ContainersStub(channel).Create(CreateContainerRequest(command=["nö"])))
    metadata = dict(refusal.trailing_metadata())
    assert refusal.details() == "cannot run 'nö'"
    assert (metadata[ERROR_HINT].decode(), metadata[ERROR_EXIT_STATUS]) == ("prüfe den Pfad", "127")


async def test_an_error_of_any_length_reaches_the_client(tmp_path: Path) -> None:
    async with _served(tmp_path) as (fake, _, channel):
        fake.refusals["network create"] = Conflict("ß" * 100_000, hint="ß" * 100_000)
        refusal = await _refusal(NetworksStub(channel).Create(CreateNetworkRequest(name="x")))
    assert refusal.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.details().startswith("ßßß")


async def test_an_unforeseen_error_is_logged_under_the_number_that_the_client_gets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with _served(tmp_path) as (fake, _, channel):
        fake.refusals["network create"] = ZeroDivisionError("secret")
        refusal = await _refusal(NetworksStub(channel).Create(CreateNetworkRequest(name="x")))
    assert refusal.code() is grpc.StatusCode.INTERNAL
    assert refusal.details().startswith("internal error ")
    assert "secret" not in refusal.details()
    (record,) = (r for r in caplog.records if r.exc_info)
    assert refusal.details().split()[-1] in record.getMessage()


async def test_errors_of_streams_are_mapped_too(tmp_path: Path) -> None:
    async with _served(tmp_path) as (_, _, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in NetworksStub(channel).Remove(RemoveNetworkRequest(name="gone")):
                pass
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, "network gone not found")


async def test_every_call_is_logged_with_its_duration(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "netagent.api")
    async with _served(tmp_path) as (_, _, channel):
        await NetworksStub(channel).List(ListNetworksRequest())
    assert any("Networks/List took" in r.getMessage() and "ms: ok" in r.getMessage() for r in caplog.records)


async def test_a_container_whose_creator_has_gone_is_made_and_removed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "netagent.api")
    async with _served(tmp_path) as (fake, _, channel):
        fake.gates["create"] = asyncio.Event()
        call = ContainersStub(channel).Create(CreateContainerRequest(name="web", command=["true"]))
        await _asked(fake, "create")
        call.cancel()
        await _cancelled(caplog, "Containers/Create")
        fake.gates["create"].set()
        await _asked(fake, "remove", "c0" * 32, True)
        assert fake.containers_known == []


async def test_a_stop_goes_on_when_its_client_has_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "netagent.api")
    async with _served(tmp_path) as (fake, _, channel):
        containers = ContainersStub(channel)
        await containers.Create(CreateContainerRequest(name="web", command=["true"]))
        fake.gates["stop"] = asyncio.Event()
        call = containers.Stop(StopContainerRequest(name="web"))
        await _asked(fake, "stop", "web", 10)
        call.cancel()
        await _cancelled(caplog, "Containers/Stop")
        fake.gates["stop"].set()
        await _asked(fake, "stop finished")


async def test_what_fails_without_a_client_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "netagent.api")
    async with _served(tmp_path) as (fake, _, channel):
        fake.gates["create"] = asyncio.Event()
        fake.refusals["remove"] = Conflict("it clings")
        call = ContainersStub(channel).Create(CreateContainerRequest(name="web", command=["true"]))
        await _asked(fake, "create")
        call.cancel()
        await _cancelled(caplog, "Containers/Create")
        fake.gates["create"].set()
        await _asked(fake, "remove", "c0" * 32, True)

        async def logged() -> bool:
            return any(r.exc_info and "it clings" in str(r.exc_info[1]) for r in caplog.records)

        await eventually(logged)


async def test_a_server_that_stops_finishes_what_it_has_begun(tmp_path: Path) -> None:
    async with _served(tmp_path) as (fake, server, channel):
        fake.gates["create"] = asyncio.Event()
        call = ContainersStub(channel).Create(CreateContainerRequest(name="web", command=["true"]))
        await _asked(fake, "create")
        asyncio.get_running_loop().call_later(0.05, fake.gates["create"].set)
        await server.stop(30.0)
        assert (await call).name == "web"


@pytest.mark.parametrize("call", ["wait", "events"])
async def test_a_server_that_stops_does_not_wait_for_those_who_only_wait(tmp_path: Path, call: str) -> None:
    async with _served(tmp_path) as (fake, server, channel):
        fake.gates["wait"] = asyncio.Event()
        if call == "wait":
            waiting = asyncio.ensure_future(ContainersStub(channel).Wait(WaitContainerRequest(name="web")))
            await _asked(fake, "wait", "web")
        else:
            fake.events.publish("host", "join", "h1")
            stream = EventsStub(channel).Watch(WatchEventsRequest(follow=True))
            await stream.read()
            waiting = asyncio.ensure_future(stream.read())
        async with asyncio.timeout(30.0):
            await server.stop(120.0)
        refusal = await _refusal(waiting)
    assert refusal.code() is grpc.StatusCode.UNAVAILABLE


async def test_removal_streams_what_it_waits_for(tmp_path: Path) -> None:
    async with _served(tmp_path) as (fake, _, channel):
        fake.removal_waits = [("h2", "h3"), ("h3",)]
        fake.networks_known = [NetworkView(network=an_overlay())]
        answers = [a async for a in NetworksStub(channel).Remove(RemoveNetworkRequest(name="staticnet", force=True))]
    assert [(list(a.waiting_for), a.done) for a in answers] == [(["h2", "h3"], False), (["h3"], False), ([], True)]
    assert ("network remove", "staticnet", True) in fake.asked


async def test_no_timeout_means_ten_seconds_and_zero_means_zero(tmp_path: Path) -> None:
    async with _served(tmp_path) as (fake, _, channel):
        containers = ContainersStub(channel)
        await containers.Create(CreateContainerRequest(name="web", command=["true"]))
        await containers.Stop(StopContainerRequest(name="web"))
        await containers.Stop(StopContainerRequest(name="web", timeout_s=0))
    assert [entry for entry in fake.asked if entry[0] == "stop"] == [("stop", "web", 10), ("stop", "web", 0)]


@pytest.mark.parametrize("number", [0, 65])
async def test_a_signal_that_does_not_exist_is_refused(tmp_path: Path, number: int) -> None:
    async with _served(tmp_path) as (_, _, channel):
        refusal = await _refusal(ContainersStub(channel).Kill(KillContainerRequest(name="web", signal=number)))
    assert (refusal.code(), refusal.details()) == (grpc.StatusCode.INVALID_ARGUMENT, f"Invalid signal: {number}")


async def test_a_request_of_unreasonable_size_is_refused(tmp_path: Path) -> None:
    async with _served(tmp_path) as (fake, _, channel):
        request = CreateContainerRequest(command=["x" * (5 << 20)])
        refusal = await _refusal(ContainersStub(channel).Create(request))
    assert refusal.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert fake.asked == []


async def test_health_and_reflection_answer(tmp_path: Path) -> None:
    async with _served(tmp_path) as (_, _, channel):
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "netagent.v1.Networks"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = {service.name for service in (await stream.read()).list_services_response.service}
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
    assert {f"netagent.v1.{name}" for name in ("Agent", "Containers", "Events", "Hosts", "Networks")} <= listed


async def _asked(fake: FakeServices, *wanted: object) -> None:
    async def probe() -> bool:
        return any(entry[: len(wanted)] == wanted for entry in fake.asked)

    await eventually(probe, every=0.005)


async def _cancelled(caplog: pytest.LogCaptureFixture, method: str) -> None:
    """Wait until the server knows that the client of a call has gone."""

    async def probe() -> bool:
        return any(method in r.getMessage() and "cancelled" in r.getMessage() for r in caplog.records)

    await eventually(probe, every=0.005)
