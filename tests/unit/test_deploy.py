"""What stands in deploy/: units as closed as they are said to be, an installation that can be undone, certificates."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec
import pytest

from netagent.daemon.config import Config
from netagent.drivers.gre import KERNEL, OVS, GreDriver
from netagent.plan.limit import ifb_name
from netagent.plan.render import render_everything
from netagent.services.docker_endpoints import SOURCE_PREFIX
from tests.support.world import a_host, an_endpoint, an_overlay, two_hosts

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy" / "systemd"
MAIN = (UNITS / "netagent.service").read_text()
DROP_IN = (UNITS / "run.conf").read_text()


def exposure(directory: Path, name: str, text: str) -> float:
    """Return what systemd-analyze says of a unit: 0 is closed, 10 is open."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    unit = directory / name
    unit.write_text(text)
    argv = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found, said
    return float(found[1])


def test_the_units_are_as_closed_as_the_page_says(tmp_path: Path) -> None:
    service, _, install = MAIN.partition("[Install]")
    assert exposure(tmp_path, "netagent.service", MAIN) <= 4.0
    assert exposure(tmp_path, "netagent.service", f"{service}{DROP_IN}[Install]{install}") <= 6.8
    dns = (UNITS / "netagent-dns.service").read_text()
    assert exposure(tmp_path, "netagent-dns.service", dns) <= 1.3


def files_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}


def install(verb: str, directory: Path, **more: str) -> str:
    environment = {"PATH": os.environ["PATH"], "DESTDIR": str(directory), **more}
    argv = [ROOT / "scripts" / "install", verb]
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


def test_what_is_installed_is_taken_away_again(tmp_path: Path) -> None:
    foreign = tmp_path / "opt/cni/bin/bridge"
    foreign.parent.mkdir(parents=True)
    foreign.touch()
    install("files", tmp_path)
    there = files_below(tmp_path)
    assert {
        "opt/cni/bin/netagent",
        "usr/local/bin/netagent",
        "usr/local/lib/systemd/system/netagent.service",
        "usr/local/lib/systemd/system/netagent-dns.socket",
        "usr/local/share/netagent/examples/podman/10-app.conflist",
        "usr/local/lib/systemd/network/10-netagent.link",
        "usr/local/lib/systemd/network/10-netagent.network",
        "etc/NetworkManager/conf.d/90-netagent.conf",
        "etc/netagent/agent.toml",
    } <= there
    assert os.access(tmp_path / "opt/cni/bin/netagent", os.X_OK)
    install("uninstall", tmp_path)
    assert files_below(tmp_path) == {"opt/cni/bin/bridge"}


def test_what_allows_netagent_run_is_installed_when_asked_for_and_taken_away_again(tmp_path: Path) -> None:
    drop_in = "usr/local/lib/systemd/system/netagent.service.d/run.conf"
    install("files", tmp_path, RUN="yes")
    assert drop_in in files_below(tmp_path)
    install("uninstall", tmp_path)
    assert files_below(tmp_path) == set()


def test_a_changed_configuration_survives_installing_and_uninstalling(tmp_path: Path) -> None:
    configuration = tmp_path / "etc/netagent/agent.toml"
    configuration.parent.mkdir(parents=True)
    configuration.write_text('log_level = "debug"\n')
    install("files", tmp_path)
    assert "was changed and stays" in install("uninstall", tmp_path)
    assert configuration.read_text() == 'log_level = "debug"\n'


@pytest.mark.parametrize("name", ["10-netagent.link", "10-netagent.network", "90-netagent.conf"])
def test_what_configures_interfaces_is_told_of_all_of_ours_and_of_no_others(name: str) -> None:
    text = (ROOT / "deploy" / "network" / name).read_text()
    (line,) = re.findall(r"^(?:OriginalName|Name|unmanaged-devices\+)=(.*)$", text, re.MULTILINE)
    patterns = [pattern.removeprefix("interface-name:") for pattern in re.split(r"[ ;]", line)]
    gre = replace(an_overlay(), driver="gre")
    ours = {
        *render_everything(two_hosts(an_overlay(), an_endpoint("192.168.1.5"))).links,
        *(
            way
            for version in (4, 6)
            for way in GreDriver().ways(replace(gre, backend=KERNEL, underlay=version), a_host(1))
        ),
        GreDriver().device(replace(gre, backend=OVS), a_host(1)) or "",
        f"{SOURCE_PREFIX}{'0' * 12}",
        ifb_name(an_endpoint().id),
    }
    assert {each[:3] for each in ours} == {"nab", "nac", "nae", "nag", "nai", "nao", "nav"}
    assert {each for each in ours if any(fnmatchcase(each, pattern) for pattern in patterns)} == ours
    foreign = ("nat0", "na-theirs", "nabu0", "eth0", "nas01234567890", "nagrep0")
    assert not [each for each in foreign if any(fnmatchcase(each, pattern) for pattern in patterns)]


def test_the_examples_are_what_their_readers_read() -> None:
    commented = (ROOT / "deploy" / "agent.toml").read_text()
    assert tomllib.loads(commented) == {}
    uncommented = "\n".join(line[2:] for line in commented.splitlines() if re.match(r"# (\w+ = |\[)", line))
    msgspec.convert(tomllib.loads(uncommented), Config)
    for file in (ROOT / "deploy" / "examples").glob("*/*.conflist"):
        assert json.loads(file.read_text())["plugins"][0]["type"] == "netagent"


def test_certificates_are_of_one_authority_and_name_their_addresses(tmp_path: Path) -> None:
    script = ROOT / "deploy" / "examples" / "etcd" / "make-certificates"
    subprocess.run([script, tmp_path, "etcd1=127.0.0.1"], check=True)
    authority = (tmp_path / "ca.pem").read_bytes()
    subprocess.run([script, tmp_path, "h1"], check=True)
    assert (tmp_path / "ca.pem").read_bytes() == authority
    for name in ("etcd1", "h1"):
        subprocess.run(["openssl", "verify", "-CAfile", tmp_path / "ca.pem", tmp_path / f"{name}.pem"], check=True)
        assert (tmp_path / f"{name}.key").stat().st_mode & 0o077 == 0
    shown = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / "etcd1.pem", "-noout", "-ext", "subjectAltName"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "IP Address:127.0.0.1" in shown
