"""Calls to a real etcd that is away, frozen, unreachable or does not want us: each ends in time and says why."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from netagent.errors import EnvironmentProblem, Unavailable
from netagent.reconcile.ports import Absent, Changes, Delete, Put, Relisted, Store
from netagent.store.etcd.access import EtcdAccess, parse_access
from netagent.store.etcd.store import EtcdStore
from netagent.store.pin import ClusterPin, ForeignCluster
from tests.support.etcd import EtcdServer, HeldPort, etcd_server
from tests.support.eventually import eventually
from tests.support.stopwatch import running_time
from tests.support.tcp_proxy import Held, TcpProxy, tcp_proxy

MAKE_CERTIFICATES = Path(__file__).parents[2] / "deploy" / "examples" / "etcd" / "make-certificates"

pytestmark = pytest.mark.cluster

A = "/netagent/v1/a"
ROOT = ("--user", "root:root")


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    with etcd_server(tmp_path) as server:
        yield server


@asynccontextmanager
async def opened(*endpoints: str, access: EtcdAccess | None = None) -> AsyncIterator[EtcdStore]:
    store = EtcdStore(access or parse_access("etcd://" + ",".join(endpoints)))
    try:
        yield store
    finally:
        await store.close()


async def fails_within(seconds: float, call: Awaitable[object]) -> Unavailable:
    async with running_time() as elapsed:
        with pytest.raises(Unavailable) as caught:
            await call
        assert elapsed() < seconds
    return caught.value


async def becomes_available(store: Store) -> None:
    async def answers() -> bool:
        try:
            await store.get(A)
        except Unavailable:
            return False
        return True

    await eventually(answers)


async def test_store_is_made_while_etcd_is_down_and_works_once_it_is_up(tmp_path: Path) -> None:
    with etcd_server(tmp_path) as server:
        server.stop()
        async with opened(server.endpoint) as store:
            watch = store.watch("/netagent/v1/")
            first = asyncio.ensure_future(anext(watch))
            failure = await fails_within(2, store.get(A))
            assert server.endpoint in failure.message
            assert failure.hint
            assert not store.is_connected
            server.start()
            assert isinstance(await asyncio.wait_for(first, 30), Relisted)
            assert await store.transact([Absent(key=A)], [Put(key=A, value=b"")])
            assert store.is_connected


@pytest.mark.parametrize("operation", ["get", "list", "transact"])
async def test_call_to_a_frozen_server_fails_in_time_and_recovers(etcd: EtcdServer, operation: str) -> None:
    async with opened(etcd.endpoint) as store:
        await store.transact([], [Put(key=A, value=b"1")])
        etcd.pause()
        calls = {"get": store.get(A), "list": store.list(A), "transact": store.transact([], [Put(key=A, value=b"2")])}
        call = calls.pop(operation)
        for unused in calls.values():
            unused.close()
        await fails_within(5.5, call)
        assert not store.is_connected
        etcd.resume()
        await becomes_available(store)
        assert await store.transact([], [Delete(key=A)]) is not None


async def test_call_into_a_black_hole_fails_in_time_and_recovers(etcd: EtcdServer) -> None:
    async with tcp_proxy(etcd.client_port) as proxy, opened(f"127.0.0.1:{proxy.port}") as store:
        await store.get(A)
        proxy.black_hole = True
        await fails_within(5.5, store.get(A))
        await fails_within(5.5, store.transact([], [Put(key=A, value=b"")]))
        proxy.black_hole = False
        proxy.drop_connections()
        await becomes_available(store)


async def test_dead_endpoints_are_passed_over(etcd: EtcdServer) -> None:
    with HeldPort() as nobodys:
        async with opened(f"127.0.0.1:{nobodys}", "no-such-host.invalid:2379", etcd.endpoint) as store:
            assert await store.transact([], [Put(key=A, value=b"")]) is not None
            async with running_time() as elapsed:
                await store.get(A)
                assert elapsed() < 2
            assert store.statistics.repeated_calls >= 2


async def test_frozen_endpoint_is_left_for_the_next(etcd: EtcdServer, proxy: TcpProxy) -> None:
    async with opened(f"127.0.0.1:{proxy.port}", etcd.endpoint) as store:
        await store.transact([], [Put(key=A, value=b"1")])
        proxy.black_hole = True
        revision = await store.transact([], [Put(key=A, value=b"2")])
        entry = await store.get(A)
        assert entry is not None
        assert (entry.value, entry.revision) == (b"2", revision)


@pytest.fixture
async def proxy(etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TcpProxy]:
    monkeypatch.setattr("netagent.store.etcd.client.CALL_S", 0.5)
    async with tcp_proxy(etcd.client_port) as proxy:
        yield proxy


async def test_transaction_whose_reply_is_lost_counts_once(etcd: EtcdServer, proxy: TcpProxy) -> None:
    async with opened(f"127.0.0.1:{proxy.port}") as store, opened(etcd.endpoint) as direct:
        await store.transact([], [Put(key="/netagent/v1/warm", value=b"")])
        proxy.swallow_replies = True
        pending = asyncio.ensure_future(store.transact([Absent(key=A)], [Put(key=A, value=b"mine")]))
        entry = await eventually(lambda: direct.get(A))
        assert entry is not None
        proxy.swallow_replies = False
        assert await pending == entry.revision
        assert await store.get(A) == entry
        assert (store.statistics.lost_replies, store.statistics.unknown_outcomes) == (1, 0)


async def test_transaction_that_never_arrived_is_sent_again(etcd: EtcdServer, proxy: TcpProxy) -> None:
    async with opened(f"127.0.0.1:{proxy.port}") as store:
        await store.transact([], [Put(key="/netagent/v1/warm", value=b"")])
        proxy.black_hole = True
        pending = asyncio.ensure_future(store.transact([Absent(key=A)], [Put(key=A, value=b"mine")]))
        await asyncio.sleep(0.2)
        proxy.black_hole = False
        revision = await pending
        entry = await store.get(A)
        assert entry is not None
        assert entry.revision == revision


async def test_transaction_that_arrives_after_it_was_given_up_changes_nothing(
    etcd: EtcdServer, proxy: TcpProxy
) -> None:
    async with opened(f"127.0.0.1:{proxy.port}") as store:
        await store.transact([], [Put(key=A, value=b"before")])
        proxy.hold_requests = True
        pending = asyncio.ensure_future(store.transact([], [Put(key=A, value=b"late")]))
        held = await eventually(partial(held_for_a_while, proxy))
        proxy.hold_requests = False
        await pending
        revision = await store.transact([], [Put(key=A, value=b"after")])
        await proxy.deliver(held)
        await etcd_has_taken_in(etcd)
        entry = await store.get(A)
        assert entry is not None
        assert (entry.value, entry.revision) == (b"after", revision)


async def held_for_a_while(proxy: TcpProxy) -> tuple[Held, ...]:
    """Return what a proxy holds once nothing has been added to it for a moment."""
    before = len(proxy.held)
    await asyncio.sleep(0.1)
    return tuple(proxy.held) if len(proxy.held) == before else ()


async def etcd_has_taken_in(etcd: EtcdServer) -> None:
    """Give the member time to carry out what reached it: a few commits on the same member, through another door."""
    async with opened(etcd.endpoint) as direct:
        for _ in range(20):
            await direct.transact([], [Put(key="/netagent/v1/noise", value=b"")])


async def test_transaction_of_unknown_outcome_says_so(etcd: EtcdServer, proxy: TcpProxy) -> None:
    async with opened(f"127.0.0.1:{proxy.port}") as store:
        await store.transact([], [Put(key=A, value=b"1")])
        proxy.swallow_replies = True
        failure = await fails_within(5.5, store.transact([], [Put(key=A, value=b"2")]))
        assert failure.facts["maybe_applied"]
        assert (store.statistics.lost_replies, store.statistics.unknown_outcomes) == (1, 1)


async def test_read_is_never_maybe_applied(etcd: EtcdServer, proxy: TcpProxy) -> None:
    async with opened(f"127.0.0.1:{proxy.port}") as store:
        await store.get(A)
        proxy.swallow_replies = True
        assert not (await fails_within(5.5, store.get(A))).facts["maybe_applied"]


async def test_closing_ends_calls_under_way(etcd: EtcdServer) -> None:
    async with opened(etcd.endpoint) as store:
        await store.get(A)
        etcd.pause()
        calls = [asyncio.ensure_future(fails_within(4, store.get(A))) for _ in range(3)]
        await asyncio.sleep(0.1)
        await store.close()
        await asyncio.gather(*calls)


async def test_cancelling_a_call_cancels_it(etcd: EtcdServer) -> None:
    async with opened(etcd.endpoint) as store:
        await store.get(A)
        etcd.pause()
        call = asyncio.ensure_future(store.get(A))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_user_logs_in_and_again_after_the_server_forgot_its_token(etcd: EtcdServer) -> None:
    enable_users(etcd)
    access = parse_access(etcd.url, user="agent", password="secret")
    async with opened(access=access) as store:
        await store.transact([], [Put(key=A, value=b"1", leased=True)])
        watch = store.watch("/netagent/v1/")
        await anext(watch)
        etcd.kill()
        etcd.start()
        await becomes_available(store)
        assert await store.transact([], [Put(key=A, value=b"2")])
        async with asyncio.timeout(30):
            await anext(watch)


@pytest.mark.parametrize("user", ["agent", ""], ids=["wrong-password", "no-user"])
async def test_refused_user_is_named(etcd: EtcdServer, user: str) -> None:
    enable_users(etcd)
    async with opened(access=parse_access(etcd.url, user=user, password="wrong")) as store:
        with pytest.raises(EnvironmentProblem, match=user or "without a user"):
            await store.get(A)


async def test_denied_prefix_says_what_to_grant(etcd: EtcdServer) -> None:
    enable_users(etcd)
    async with opened(access=parse_access(etcd.url, user="agent", password="secret")) as store:
        with pytest.raises(EnvironmentProblem, match="grant its role readwrite"):
            await store.get("/elsewhere")


async def test_credentials_are_harmless_where_etcd_has_no_users(etcd: EtcdServer) -> None:
    async with opened(access=parse_access(etcd.url, user="agent", password="secret")) as store:
        assert await store.get(A) is None


def enable_users(etcd: EtcdServer) -> None:
    etcd.ctl("user", "add", "root:root")
    etcd.ctl("role", "add", "agents")
    etcd.ctl("role", "grant-permission", "agents", "readwrite", "--prefix", "/netagent/")
    etcd.ctl("user", "add", "agent:secret")
    etcd.ctl("user", "grant-role", "agent", "agents")
    etcd.ctl("user", "grant-role", "root", "root")
    etcd.ctl("auth", "enable")


async def test_tls_with_client_certificate(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    with etcd_server(tmp_path, certificates=tmp_path) as server:
        ca, cert, key = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))
        async with opened(access=parse_access(server.url, ca=ca, cert=cert, key=key)) as store:
            assert await store.transact([Absent(key=A)], [Put(key=A, value=b"")])
            assert isinstance(await anext(store.watch("/netagent/v1/")), Relisted)
        async with opened(access=parse_access(server.url, ca=ca)) as stranger:
            await fails_within(5.5, stranger.get(A))


def make_certificate(directory: Path) -> None:
    """A certificate for 127.0.0.1 that serves as server's and client's, made as docs/etcd.md says."""
    subprocess.run([MAKE_CERTIFICATES, directory, "cert=127.0.0.1"], check=True)
    (directory / "cert.key").rename(directory / "key.pem")


async def test_an_endpoint_of_another_cluster_is_passed_over_and_nothing_written_there(
    etcd: EtcdServer, tmp_path: Path
) -> None:
    pin = ClusterPin(tmp_path / "cluster-id")
    with etcd_server(tmp_path) as another:
        for endpoints in (etcd.endpoint, f"{another.endpoint},{etcd.endpoint}"):
            store = EtcdStore(parse_access(f"etcd://{endpoints}"), pin=pin)
            assert await store.transact([], [Put(key=A, value=endpoints.encode())])
            await store.close()
        wrong = EtcdStore(parse_access(another.url), pin=pin)
        with pytest.raises(ForeignCluster):
            await wrong.transact([], [Put(key=A, value=b"wrong")])
        with pytest.raises(ForeignCluster):
            await wrong.list("/netagent/")
        await wrong.close()
        assert not another.ctl("get", "--prefix", "", "--keys-only").strip()


async def test_a_token_that_ends_is_replaced_without_a_word(tmp_path: Path) -> None:
    """Signed tokens, unlike simple ones, end at their time however often they are used."""
    key, public = tmp_path / "jwt.key", tmp_path / "jwt.pub"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    subprocess.run(["openssl", "rsa", "-in", key, "-pubout", "-out", public], check=True, capture_output=True)
    token = f"jwt,pub-key={public},priv-key={key},sign-method=RS256,ttl=2s"
    with etcd_server(tmp_path, auth_token=token) as server:
        enable_users(server)
        async with opened(access=parse_access(server.url, user="agent", password="secret")) as store:
            watch = store.watch("/netagent/")
            assert isinstance(await anext(watch), Relisted)
            for value in range(5):
                assert await store.transact([], [Put(key=A, value=b"%d" % value)])
                assert isinstance(await anext(watch), Changes)
                await asyncio.sleep(0.7)


async def test_users_switched_on_and_off_are_followed(etcd: EtcdServer) -> None:
    async with opened(access=parse_access(etcd.url, user="agent", password="secret")) as store:
        watch = store.watch("/netagent/v1/")
        assert isinstance(await anext(watch), Relisted)
        for value, switch in enumerate((enable_users, disable_users, lambda etcd: etcd.ctl("auth", "enable", *ROOT))):
            assert await store.transact([], [Put(key=A, value=b"%d" % value, leased=True)])
            switch(etcd)
            assert await store.transact([], [Put(key=A, value=b"%d again" % value)])
            async with asyncio.timeout(30):
                while not _tells(await anext(watch), b"%d again" % value):
                    pass


def disable_users(etcd: EtcdServer) -> None:
    etcd.ctl("auth", "disable", *ROOT)


def _tells(event: object, value: bytes) -> bool:
    if isinstance(event, Changes):
        return event.changes[-1].value == value
    return isinstance(event, Relisted) and event.listing.entries[-1].value == value


async def test_a_renewed_certificate_is_shown_at_the_next_connect(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    make_certificate(tmp_path / "foreign")
    own = tmp_path / "own"
    own.mkdir()
    with etcd_server(tmp_path, certificates=tmp_path) as server:
        ca, cert, key = (own / name for name in ("ca.pem", "cert.pem", "key.pem"))

        def take(directory: Path) -> None:
            for file in (ca, cert, key):
                file.write_bytes((directory / file.name).read_bytes())

        take(tmp_path / "foreign")
        async with opened(access=parse_access(server.url, ca=ca, cert=cert, key=key)) as store:
            await fails_within(5.5, store.get(A))
            take(tmp_path)
            assert await store.get(A) is None


async def test_each_endpoint_is_known_by_its_own_name(tmp_path: Path) -> None:
    """By DNS, and with TLS: the member's certificate is for one of the two names by which it is reached here."""
    subprocess.run([MAKE_CERTIFICATES, tmp_path, "localhost"], check=True)
    for name, file in (("localhost.key", "key.pem"), ("localhost.pem", "cert.pem")):
        (tmp_path / name).rename(tmp_path / file)
    with etcd_server(tmp_path, certificates=tmp_path) as server:
        ca, cert, key = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))
        by_name, by_address = f"localhost:{server.client_port}", server.endpoint
        async with opened(access=parse_access(f"etcds://{by_address}", ca=ca, cert=cert, key=key)) as store:
            await fails_within(5.5, store.get(A))
        both = parse_access(f"etcds://{by_address},{by_name}", ca=ca, cert=cert, key=key)
        async with opened(access=both) as store:
            assert await store.transact([Absent(key=A)], [Put(key=A, value=b"")])
