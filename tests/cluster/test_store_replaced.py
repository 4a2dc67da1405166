"""An etcd that was lost and begun anew, as the same cluster or another one; copies of it, and hosts that join it."""

import json
import subprocess
from pathlib import Path

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import address, inspect, netagent, pings, refusal, run
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(3, agents=False)
    h1, h2, _ = lab.hosts
    for host in (h1, h2):
        host.agent.launch()
    for host in (h1, h2):
        host.agent.wait_ready()
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "app")
    eventually(lambda: "app" in netagent(h2, "network", "ls").stdout)
    for host in (h1, h2):
        run(host, f"on-{host.name}", "--network", "app")
    eventually(lambda: pings(h2, "on-h2", address(h1, "on-h1")))
    eventually(lambda: sum("/endpoints/" in key for key in keys(lab)) == 2)
    return lab


def once_connected(host: Host, *arguments: str) -> str:
    """Return what ``netagent ARGUMENTS`` prints when it succeeds: an etcd that has just begun is not known at once."""

    def succeeded() -> subprocess.CompletedProcess[str] | None:
        done = netagent(host, *arguments, check=False)
        return None if done.returncode else done

    return eventually(succeeded).stdout


def keys(lab: Lab) -> set[str]:
    found = lab.etcd[0].run("etcdctl", "get", "--prefix", "/netagent/v1/", "--keys-only").stdout.split()
    return {key for key in found if "/live/" not in key}


def info(host: Host) -> dict[str, object]:
    found: dict[str, object] = json.loads(netagent(host, "info", "--format", "json").stdout)
    return found


def test_the_same_cluster_without_its_data_is_rebuilt_from_the_hosts(lab: Lab) -> None:
    h1, h2, _ = lab.hosts
    before = keys(lab)
    lab.etcd[0].stop()
    lab.etcd[0].begin_anew()
    assert once_connected(h1, "store", "rebuild") == "app\n"
    once_connected(h2, "store", "rebuild")
    eventually(lambda: keys(lab) == before)
    assert pings(h2, "on-h2", address(h1, "on-h1"))


def test_another_cluster_in_its_place_is_refused_until_it_is_accepted(lab: Lab) -> None:
    h1, h2, _ = lab.hosts
    before = keys(lab)
    assert "no other cluster's store was refused" in refusal(h1, "store", "accept")
    lab.etcd[0].stop()
    lab.etcd[0].begin_anew(token="another")
    foreign = str(eventually(lambda: info(h1)["ForeignCluster"]))
    assert f"(refused: it is cluster {foreign})" in netagent(h1, "info").stdout
    eventually(lambda: "refuse" in netagent(h1, "events").stdout)
    for command in (("network", "create", "--driver", "vxlan", "mine"), ("store", "rebuild")):
        said = refusal(h1, *command)
        assert f"is cluster {foreign}, and this host belongs to cluster " in said
        assert "netagent store accept on every host" in said
    run(h1, "meanwhile", "--network", "app")
    assert pings(h2, "on-h2", address(h1, "meanwhile"))
    h2.agent.restart()
    assert pings(h2, "on-h2", address(h1, "meanwhile"))
    assert keys(lab) == set()
    for host in (h1, h2):
        eventually(lambda host=host: info(host)["ForeignCluster"] == foreign)
        assert netagent(host, "store", "accept").stdout == f"{foreign}\n"
    for host in (h1, h2):
        eventually(lambda host=host: netagent(host, "store", "rebuild", check=False).returncode == 0)
    eventually(
        lambda: {key for key in keys(lab) if "/endpoints/" not in key} >= {k for k in before if "/endp" not in k}
    )
    eventually(lambda: sum("/endpoints/" in key for key in keys(lab)) == 3)
    eventually(lambda: info(h1)["ForeignCluster"] == "")
    assert eventually(lambda: pings(h2, "on-h2", address(h1, "meanwhile")))


def test_a_copy_brings_back_what_no_host_has_in_use(lab: Lab, tmp_path: Path) -> None:
    h1, h2, _ = lab.hosts
    copy = tmp_path / "copy.json"
    netagent(h1, "network", "create", "--driver", "vxlan", "--label", "of=nobody", "unused")
    before = {key: value for key, value in records(lab).items() if "/endpoints/" not in key}
    netagent(h1, "store", "export", "-o", str(copy))
    said = refusal(h2, "store", "import", str(cut(copy, tmp_path / "cut.json", "networks/app")))
    assert "the store is not empty: it has 1 other records, such as /netagent/v1/networks/app" in said
    assert netagent(h2, "store", "import", str(copy)).stdout == ""
    lab.etcd[0].stop()
    lab.etcd[0].begin_anew()
    broken = tmp_path / "broken.json"
    broken.write_text(copy.read_text().replace("192.168.0.0/16", "192.168.0.0/99"))
    assert "record /netagent/v1/networks/app cannot be used: " in refusal(h2, "store", "import", str(broken))
    assert f"{tmp_path}/none.json" in refusal(h2, "store", "import", str(tmp_path / "none.json"))
    assert once_connected(h2, "store", "import", str(copy)) == "app\nunused\n"
    eventually(lambda: records(lab).items() >= {k: v for k, v in before.items() if "generation" not in k}.items())
    netagent(h1, "network", "rm", "unused")
    forced = netagent(h1, "store", "import", "--force", str(copy))
    assert (forced.stdout, forced.stderr) == ("unused\n", "")
    assert pings(h2, "on-h2", address(h1, "on-h1"))


def cut(copy: Path, to: Path, key: str) -> Path:
    """Write a copy without one of its records."""
    content = json.loads(copy.read_text())
    del content["records"][key]
    to.write_text(json.dumps(content))
    return to


def records(lab: Lab) -> dict[str, str]:
    lines = lab.etcd[0].run("etcdctl", "get", "--prefix", "/netagent/v1/").stdout.splitlines()
    return {key: value for key, value in zip(lines[::2], lines[1::2], strict=True) if "/live/" not in key}


def test_a_host_that_joins_brings_its_networks_along(lab: Lab) -> None:
    """Made while it was alone, with the number that the cluster's own network has; its containers go on."""
    h1, _, h3 = lab.hosts
    h3.spawn("agent", ["netagent", "agent", "--host-name", "h3", "--host-ip", str(h3.ip)])
    h3.agent.wait_ready()
    assert "has joined no cluster" in refusal(h3, "store", "import")
    netagent(h3, "network", "create", "--driver", "vxlan", "--subnet", "10.77.0.0/16", "mine")
    run(h3, "old", "--network", "mine", "--ip", "10.77.0.9")
    run(h3, "other", "--network", "mine")
    h3.agent.stop()
    h3.agent.start()
    before = inspect(h3, "other")["NetworkSettings"]["IPAddress"]
    assert netagent(h3, "store", "import").stdout == "mine\n"
    eventually(lambda: "mine" in netagent(h1, "network", "ls").stdout)
    run(h1, "new", "--network", "mine")
    eventually(lambda: pings(h1, "new", "10.77.0.9") and pings(h1, "new", before))
    assert netagent(h3, "store", "import").stdout == ""
    h3.agent.restart()
    assert inspect(h3, "other")["NetworkSettings"]["IPAddress"] == before
    assert eventually(lambda: pings(h3, "old", address(h1, "new")))
    assert pings(h3, "old", before)
    assert sum("/numbers/" in key for key in keys(lab)) == sum("/networks/" in key for key in keys(lab)) == 3
