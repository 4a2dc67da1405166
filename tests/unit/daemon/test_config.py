"""The configuration: defaults, then the file, then the command line, and no key that nobody reads."""

from pathlib import Path

import pytest

from netagent.certificates import Identity
from netagent.daemon.config import Config, EtcdOptions, TlsOptions, load_config
from netagent.errors import InvalidRequest


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text('host_name = "h1"\nlog_level = "debug"\n[etcd]\nca_file = "/ca.pem"\n')
    return path


def test_without_anything_the_defaults_hold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("netagent.daemon.config.DEFAULT_FILE", tmp_path / "none.toml")
    assert load_config(None, {}) == Config()
    assert Config().state_dir == "/var/lib/netagent"


def test_the_default_file_is_read_if_it_exists(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setattr("netagent.daemon.config.DEFAULT_FILE", file)
    assert load_config(None, {}).host_name == "h1"


def test_the_command_line_goes_before_the_file(file: Path) -> None:
    config = load_config(file, {"host_name": "h2", "store": "etcd://a:2379"})
    assert config == Config(
        host_name="h2", store="etcd://a:2379", log_level="debug", etcd=EtcdOptions(ca_file="/ca.pem")
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('hostname = "h1"', "unknown field `hostname`"),
        ('[etcd]\nca = "/ca.pem"', "unknown field `ca`"),
        ("host_name = 7", r"Expected `str`, got `int` - at `\$\.host_name`"),
        ('log_level = "loud"', r"at `\$\.log_level`"),
        ("host_name = ", "cannot be read: Invalid value"),
        ('a = "1"\na = "2"', "cannot be read"),
    ],
    ids=["key", "key in a table", "type", "value", "syntax", "twice"],
)
def test_a_wrong_file_is_refused_and_the_place_named(file: Path, content: str, message: str) -> None:
    file.write_text(content)
    with pytest.raises(InvalidRequest, match=message) as caught:
        load_config(file, {})
    assert str(file) in caught.value.message
    assert caught.value.hint


def test_a_file_that_is_not_text_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        load_config(file, {})


def test_a_named_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"cannot be read.*No such file"):
        load_config(tmp_path / "none.toml", {})


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("", {"docker", "firewalld", "ufw"}),
        ("coexist = true", {"docker", "firewalld", "ufw"}),
        ("coexist = false", set()),
        ("[coexist]\nufw = false", {"docker", "firewalld"}),
    ],
)
def test_marks_in_other_firewalls_are_switched_together_or_one_by_one(
    tmp_path: Path, content: str, names: set[str]
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(content)
    assert load_config(path, {}).coexist_with == names


def test_an_option_of_a_table_goes_before_its_key_and_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('listen = ":7947"\n[tls]\nca_file = "/ca"\ncert_file = "/a"\nkey_file = "/k"\n')
    identity = load_config(path, {"tls.cert_file": "/b"}).identity
    assert identity == Identity(cert=Path("/b"), key=Path("/k"), ca=Path("/ca"))


def test_nothing_listens_without_all_certificates() -> None:
    assert Config(tls=TlsOptions(ca_file="/ca")).identity is None
    for missing in ("ca_file", "cert_file", "key_file"):
        files = {name: "/x" for name in ("ca_file", "cert_file", "key_file") if name != missing}
        with pytest.raises(InvalidRequest, match=rf"needs tls\.{missing}: nobody is served there"):
            _ = Config(listen=":7947", tls=TlsOptions(**files)).identity
