"""What is wrong with a certificate is said before a peer finds out."""

from pathlib import Path

import pytest

from netagent.certificates import Identity
from netagent.errors import EnvironmentProblem
from tests.support.certificates import make_certificates


def identity(pki: Path, cert: str, *, key: str = "", ca: Path | None = None) -> Identity:
    return Identity(cert=pki / f"{cert}.pem", key=pki / f"{key or cert}.key", ca=(ca or pki) / "ca.pem")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = make_certificates(tmp_path_factory.mktemp("pki"), "h1=127.0.0.1", "operator:anna", days=10)
    make_certificates(directory, "late", days=-1)
    make_certificates(directory / "foreign", "h9")
    return directory


def test_a_good_one_is_good_until_its_end(pki: Path) -> None:
    assert identity(pki, "h1").load().cert == (pki / "h1.pem").read_bytes()
    assert identity(pki, "h1").days_left("server") == pytest.approx(10, abs=0.1)
    assert identity(pki, "anna").days_left("client") == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize(
    ("cert", "message"),
    [("anna", "unsuitable certificate purpose"), ("late", "certificate has expired")],
)
def test_one_that_is_no_good_for_a_server_says_why(pki: Path, cert: str, message: str) -> None:
    with pytest.raises(EnvironmentProblem, match=rf"certificate \S+{cert}\.pem is of no use: {message}"):
        identity(pki, cert).days_left("server")


def test_one_of_another_authority_is_no_good(pki: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="local issuer"):
        identity(pki / "foreign", "h9", ca=pki).days_left("server")


def test_files_that_are_missing_or_do_not_fit_are_named(pki: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"cannot read \S+none\.pem: No such file"):
        identity(pki, "none", key="h1").load()
    with pytest.raises(EnvironmentProblem, match=r"h1\.pem and \S+anna\.key are no certificate and its key"):
        identity(pki, "h1", key="anna").load()
    (tmp_path / "ca.pem").write_text("no authority")
    with pytest.raises(EnvironmentProblem, match=r"ca\.pem holds no certificate of an authority"):
        identity(pki, "h1", ca=tmp_path).load()
