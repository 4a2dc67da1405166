from pathlib import Path

import pytest

from netagent.errors import EnvironmentProblem, InvalidRequest
from netagent.store.etcd.access import parse_access


@pytest.mark.parametrize(
    ("url", "endpoints"),
    [
        ("etcd://a:2379,b:2380", ("a:2379", "b:2380")),
        ("etcd://a", ("a:2379",)),
        ("etcd://10.0.0.1:2379/", ("10.0.0.1:2379",)),
        ("etcd://[fd00::1]:2379,[fd00::2]", ("[fd00::1]:2379", "[fd00::2]:2379")),
        ("etcds://etcd-1.example.org", ("etcd-1.example.org:2379",)),
    ],
)
def test_endpoints_are_read_from_the_url(url: str, endpoints: tuple[str, ...]) -> None:
    assert parse_access(url).endpoints == endpoints


@pytest.mark.parametrize(
    "url", ["", "a:2379", "http://a:2379", "etcd://", "etcd://a,,b", "etcd://a:0", "etcd://a:65536", "etcd://fd00::1"]
)
def test_other_urls_are_refused_by_name(url: str) -> None:
    with pytest.raises(InvalidRequest, match="store"):
        parse_access(url)


def test_certificates_need_tls() -> None:
    with pytest.raises(InvalidRequest, match="does not use TLS"):
        parse_access("etcd://a", ca=Path("/ca.pem"))


def test_certificate_needs_its_key() -> None:
    with pytest.raises(InvalidRequest, match="certificate and key"):
        parse_access("etcds://a", cert=Path("/cert.pem"))


def test_missing_certificate_is_named(tmp_path: Path) -> None:
    access = parse_access("etcds://a", ca=tmp_path / "ca.pem")
    with pytest.raises(EnvironmentProblem, match=r"ca\.pem"):
        access.open_channel("a:2379")


def test_password_is_not_shown() -> None:
    access = parse_access("etcd://a", user="u", password="secret")
    assert "secret" not in f"{access} {access!r}"
