"""What is wrong with certificates between an agent and etcd is said by name."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from netagent.errors import EnvironmentProblem, NetagentError, Unavailable
from netagent.store.etcd.access import EtcdAccess, parse_access
from netagent.store.etcd.store import EtcdStore
from tests.support.certificates import make_certificates
from tests.support.etcd import etcd_server
from tests.support.eventually import eventually

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ours`` with a server's and a client's, ``theirs`` of another authority, ``moved`` for another address."""
    root = tmp_path_factory.mktemp("pki")
    make_certificates(root / "ours", "cert=127.0.0.1", "h1")
    shutil.copytree(root / "ours", root / "moved")
    make_certificates(root / "ours", "old", days=-1)
    make_certificates(root / "theirs", "h1")
    make_certificates(root / "moved", "other=192.0.2.9")
    for directory, name in (("ours", "cert"), ("moved", "other")):
        shutil.move(root / directory / f"{name}.key", root / directory / "key.pem")
    shutil.move(root / "moved" / "other.pem", root / "moved" / "cert.pem")
    (root / "junk").write_text("junk")
    return root


async def _refusal(access: EtcdAccess, words: str) -> NetagentError:
    """Return the refusal with ``words``: a machine that is slow to connect may have no time to find out why, once."""

    async def told() -> NetagentError | None:
        store = EtcdStore(access)
        try:
            with pytest.raises(NetagentError) as caught:
                await store.get("/netagent/v1/x")
        finally:
            await store.close()
        said.append(caught.value.message)
        return caught.value if words in caught.value.message else None

    said: list[str] = []
    try:
        found = await eventually(told)
    except AssertionError as error:
        error.add_note(f"{words!r} is not in {said[-1]!r}")
        raise
    assert found is not None
    return found


async def test_who_refuses_whose_certificate_is_said(certificates: Path, tmp_path: Path) -> None:
    ours, theirs = certificates / "ours", certificates / "theirs"
    with etcd_server(tmp_path, certificates=ours) as server:
        good = parse_access(server.url, ca=ours / "ca.pem", cert=ours / "h1.pem", key=ours / "h1.key")
        store = EtcdStore(good)
        assert await store.get("/netagent/v1/x") is None
        await store.close()
        for access, words in (
            (replace(good, cert=None, key=None), "it refuses clients without a certificate"),
            (replace(good, ca=theirs / "ca.pem"), "its certificate is refused, unable to get local issuer certificate"),
            (replace(good, cert=theirs / "h1.pem", key=theirs / "h1.key"), f"it refuses {theirs / 'h1.pem'}"),
            (replace(good, cert=ours / "old.pem", key=ours / "old.key"), "old.pem, certificate has expired"),
        ):
            refused = await _refusal(access, words)
            assert isinstance(refused, Unavailable)
            assert f"cannot connect to etcd at {server.endpoint}: " in refused.message
        for access, words in (
            (replace(good, key=theirs / "h1.key"), f"{ours / 'h1.pem'} and {theirs / 'h1.key'} are no certificate and"),
            (replace(good, cert=certificates / "junk"), "are no certificate and its key"),
            (replace(good, ca=certificates / "junk"), f"{certificates / 'junk'} holds no certificate of an authority"),
            (replace(good, key=certificates / "none"), f"cannot read {certificates / 'none'}: No such file"),
        ):
            assert isinstance(await _refusal(access, words), EnvironmentProblem)


async def test_a_server_with_another_name_or_without_tls_is_told(certificates: Path, tmp_path: Path) -> None:
    ours = certificates / "ours"
    with etcd_server(tmp_path, certificates=certificates / "moved") as server:
        access = parse_access(server.url, ca=ours / "ca.pem")
        await _refusal(access, "its certificate is refused, IP address mismatch")
    with etcd_server(tmp_path) as server:
        await _refusal(parse_access(f"etcds://{server.endpoint}", ca=ours / "ca.pem"), "it does not speak TLS")
