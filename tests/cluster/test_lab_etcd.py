"""The lab's etcd: members that are stopped, killed and paused as their operators and their machines do."""

import subprocess

import pytest

from netagent.lab.lab import Lab
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    """One host that asks three members."""
    return make_lab(hosts=1, etcd=3, agents=False)


def etcdctl(lab: Lab, member: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    endpoint = ["--endpoints", lab.etcd[member].url, "--command-timeout", "2s", "--dial-timeout", "1s"]
    return lab.host("h1").run("etcdctl", *endpoint, *arguments, check=False, env={"ETCDCTL_API": "3"})


def accepts_writes(lab: Lab, member: int) -> bool:
    return etcdctl(lab, member, "put", "probe", "1").returncode == 0


def test_restarted_member_has_its_data(lab: Lab) -> None:
    eventually(lambda: etcdctl(lab, 0, "put", "key", "value").returncode == 0)
    lab.etcd[0].stop()
    assert not lab.etcd[0].running
    assert not accepts_writes(lab, 0)
    lab.etcd[0].start()
    eventually(lambda: etcdctl(lab, 0, "get", "--print-value-only", "key").stdout == "value\n")


def test_two_of_three_go_on_without_the_third(lab: Lab) -> None:
    lab.etcd[2].kill()
    assert eventually(lambda: accepts_writes(lab, 0))
    lab.etcd[2].start()
    assert eventually(lambda: accepts_writes(lab, 2))


def test_paused_member_does_not_answer_until_it_is_resumed(lab: Lab) -> None:
    lab.etcd[1].pause()
    assert not accepts_writes(lab, 1)
    assert lab.etcd[1].running
    lab.etcd[1].resume()
    assert eventually(lambda: accepts_writes(lab, 1))
