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


async def _refusal(access: EtcdAccess) -> NetagentError:
    store = EtcdStore(access)
    try:
        with pytest.raises(NetagentError) as caught:
            await store.get("/netagent/v1/x")
    finally:
        await store.close()
    return caught.value


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
            refused = await _refusal(access)
            assert isinstance(refused, Unavailable)
            assert f"cannot connect to etcd at {server.endpoint}: " in refused.message
            assert words in refused.message
        for access, words in (
            (replace(good, key=theirs / "h1.key"), f"{ours / 'h1.pem'} and {theirs / 'h1.key'} are no certificate and"),
            (replace(good, cert=certificates / "junk"), "are no certificate and its key"),
            (replace(good, ca=certificates / "junk"), f"{certificates / 'junk'} holds no certificate of an authority"),
            (replace(good, key=certificates / "none"), f"cannot read {certificates / 'none'}: No such file"),
        ):
            refused = await _refusal(access)
            assert isinstance(refused, EnvironmentProblem)
            assert refused.message.startswith(words) or words in refused.message


async def test_a_server_with_another_name_or_without_tls_is_told(certificates: Path, tmp_path: Path) -> None:
    ours = certificates / "ours"
    with etcd_server(tmp_path, certificates=certificates / "moved") as server:
        refused = await _refusal(parse_access(server.url, ca=ours / "ca.pem"))
        assert "its certificate is refused, IP address mismatch" in refused.message
    with etcd_server(tmp_path) as server:
        refused = await _refusal(parse_access(f"etcds://{server.endpoint}", ca=ours / "ca.pem"))
        assert "it does not speak TLS" in refused.message
