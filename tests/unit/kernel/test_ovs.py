"""What is asked of Open vSwitch's programs and made of their answers; the programs are the test's own."""

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from netagent.errors import EnvironmentProblem
from netagent.kernel import ovs
from netagent.model.address import Mac
from netagent.plan.desired import FdbEntry, TunnelSource

PEER, SIX = ip_address("198.18.0.2"), ip_address("fd00:198:18::2")
MAC = Mac("02:00:00:00:00:02")


def source(prefix: str, device: str = "nao1") -> TunnelSource:
    return TunnelSource(device=device, peer=PEER, prefix=ip_network(prefix))


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What ``ovs-ofctl`` was asked; it knows no bridge ``nao1``, and does not come back for ``nao2``."""
    program, asked = tmp_path / "ovs-ofctl", tmp_path / "asked"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *nao1*) echo "nao1 is not a bridge" >&2; exit 1;; *nao2*) kill -ALRM $$;; esac\n'
        f'echo "$*" >> {asked}; cat >> {asked}; echo >> {asked}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return asked


def test_a_bridge_that_is_missing_keeps_no_other_from_its_flows(asked: Path) -> None:
    entry = FdbEntry(device="nao3", mac=MAC, destination=SIX)
    with pytest.raises(EnvironmentProblem, match="nao1 is not a bridge"):
        ovs.add_flows([source("192.168.2.0/24"), entry, source("fd00:77::/80", "nao3")])
    assert asked.read_text().splitlines() == [
        "--protocols=OpenFlow13 --timeout=10 --bundle add-flows nao3 -",
        f"cookie=0x6e61,priority=10,in_port=LOCAL,dl_dst={MAC},actions=set_field:{SIX}->tun_ipv6_dst,output:1",
        "cookie=0x6e61,priority=10,in_port=1,tun_src=198.18.0.2,ipv6,ipv6_src=fd00:77::/80,actions=LOCAL",
    ]


def test_a_switch_that_does_not_answer_is_asked_once(asked: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="does not answer"):
        ovs.add_flows([source("192.168.2.0/24", "nao2"), source("192.168.2.0/24", "nao3")])
    assert not asked.exists()


def test_flows_are_read_as_open_vswitch_prints_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single address without a length, and others' flows not at all."""
    program = tmp_path / "ovs-ofctl"
    program.write_text(
        "#!/bin/sh\ncat <<'END'\n"
        " cookie=0x6e61, priority=10,in_port=LOCAL,dl_dst=02:00:00:00:00:02"
        " actions=set_field:198.18.0.2->tun_dst,output:1\n"
        " cookie=0x6e61, priority=10,ip,tun_src=198.18.0.2,in_port=1,nw_src=192.168.2.0/24 actions=LOCAL\n"
        " cookie=0x6e61, priority=10,ip,tun_src=198.18.0.2,in_port=1,nw_src=192.168.0.9 actions=LOCAL\n"
        " cookie=0x6e61, priority=10,ipv6,tun_ipv6_src=fd00:198:18::2,in_port=1,ipv6_src=fd00:77::/80 actions=LOCAL\n"
        " cookie=0x6e61, priority=10,ip,tun_src=198.18.0.3,in_port=1,nw_src=192.168.3.0/24 actions=drop\n"
        "END\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = ovs.flows("nao1")
    assert found.entries == {FdbEntry(device="nao1", mac=MAC, destination=PEER)}
    assert found.sources == {
        source("192.168.2.0/24"),
        source("192.168.0.9/32"),
        TunnelSource(device="nao1", peer=SIX, prefix=ip_network("fd00:77::/80")),
    }
