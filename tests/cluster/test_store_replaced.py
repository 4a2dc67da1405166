"""An etcd that was lost and begun anew: as the same cluster, or as another one, which is not believed unasked."""

import json

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import address, netagent, pings, refusal, run
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(2)
    h1, h2 = lab.hosts
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "app")
    eventually(lambda: "app" in netagent(h2, "network", "ls").stdout)
    for host in lab.hosts:
        run(host, f"on-{host.name}", "--network", "app")
    eventually(lambda: pings(h2, "on-h2", address(h1, "on-h1")))
    return lab


def keys(lab: Lab) -> set[str]:
    found = lab.etcd[0].run("etcdctl", "get", "--prefix", "/netagent/v1/", "--keys-only").stdout.split()
    return {key for key in found if "/live/" not in key}


def info(host: Host) -> dict[str, object]:
    found: dict[str, object] = json.loads(netagent(host, "info", "--format", "json").stdout)
    return found


def test_the_same_cluster_without_its_data_is_rebuilt_from_the_hosts(lab: Lab) -> None:
    h1, h2 = lab.hosts
    before = keys(lab)
    lab.etcd[0].stop()
    lab.etcd[0].begin_anew()
    assert netagent(h1, "store", "rebuild").stdout == "app\n"
    netagent(h2, "store", "rebuild")
    eventually(lambda: keys(lab) == before)
    assert pings(h2, "on-h2", address(h1, "on-h1"))


def test_another_cluster_in_its_place_is_refused_until_it_is_accepted(lab: Lab) -> None:
    h1, h2 = lab.hosts
    before = keys(lab)
    assert "no other cluster's store was refused" in refusal(h1, "store", "accept")
    lab.etcd[0].stop()
    lab.etcd[0].begin_anew(token="another")
    foreign = str(eventually(lambda: info(h1)["ForeignCluster"]))
    assert f"(refused: it is cluster {foreign})" in netagent(h1, "info").stdout
    assert "refuse" in netagent(h1, "events").stdout
    for command in (("network", "create", "--driver", "vxlan", "mine"), ("store", "rebuild")):
        said = refusal(h1, *command)
        assert f"is cluster {foreign}, and this host belongs to cluster " in said
        assert "netagent store accept on every host" in said
    run(h1, "meanwhile", "--network", "app")
    assert pings(h2, "on-h2", address(h1, "meanwhile"))
    h2.agent.restart()
    assert pings(h2, "on-h2", address(h1, "meanwhile"))
    assert keys(lab) == set()
    for host in lab.hosts:
        eventually(lambda host=host: info(host)["ForeignCluster"] == foreign)
        assert netagent(host, "store", "accept").stdout == f"{foreign}\n"
    for host in lab.hosts:
        eventually(lambda host=host: netagent(host, "store", "rebuild", check=False).returncode == 0)
    eventually(
        lambda: {key for key in keys(lab) if "/endpoints/" not in key} >= {k for k in before if "/endp" not in k}
    )
    eventually(lambda: sum("/endpoints/" in key for key in keys(lab)) == 3)
    h1.agent.restart()
    assert info(h1)["ForeignCluster"] == ""
    assert pings(h2, "on-h2", address(h1, "meanwhile"))
