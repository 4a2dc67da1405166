"""LXC containers and plain namespaces, connected by ``netagent attach --netns``, also by a hook of LXC."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from netagent.lab import cgroup
from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import netagent, run
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

HOOKS = Path(__file__).parents[2] / "deploy" / "examples" / "lxc"
CONFIGURATION = """
lxc.rootfs.path = dir:/run/lxc/web/rootfs
lxc.uts.name = web
lxc.net.0.type = empty
lxc.hook.version = 1
lxc.hook.start-host = /run/lxc/netagent-start-host
lxc.hook.stop = /run/lxc/netagent-stop
lxc.environment = PATH=/bin
lxc.apparmor.profile = unconfined
lxc.mount.auto = proc:mixed
lxc.cgroup.relative = 1
"""


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    """Two hosts with the network ``app``; on h2 runs ``peer``."""
    lab = make_lab(2)
    netagent(lab.hosts[0], "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "app")
    eventually(lambda: "app" in netagent(lab.hosts[1], "network", "ls").stdout)
    run(lab.hosts[1], "peer", "--network", "app")
    return lab


@pytest.fixture(scope="module")
def h1(lab: Lab) -> Host:
    return lab.host("h1")


def is_pinged(lab: Lab, name: str) -> bool:
    ping = ("netagent", "exec", "peer", "--", "ping", "-c1", "-W1", name)
    return lab.host("h2").run(*ping, check=False).returncode == 0


@pytest.fixture
def container(h1: Host) -> Iterator[str]:
    """An LXC container that is not started yet; its name."""
    root = h1.path("/run/lxc/web/rootfs")
    for directory in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    (root / "bin" / "sh").symlink_to("busybox")
    for hook in ("netagent-start-host", "netagent-stop"):
        shutil.copy(HOOKS / hook, h1.path(f"/run/lxc/{hook}"))
    h1.path("/run/lxc/web/config").write_text(CONFIGURATION)
    h1.path("/run/lxc/web/netagent").write_text("--network app --ip 192.168.0.9 -p 8080:80\n")
    yield "web"
    h1.run("lxc-stop", "-P", "/run/lxc", "-n", "web", "-k", check=False)
    cgroup.remove(cgroup.of_machine("lxc.pivot"))


def test_a_container_of_lxc_is_connected_by_its_hooks(lab: Lab, h1: Host, container: str) -> None:
    lxc = ("-P", "/run/lxc", "-n", container)
    h1.run(
        "lxc-start", *lxc, "--logfile", "/run/lxc/log", "--", "/bin/busybox", "httpd", "-f", "-p", "80", "-h", "/etc"
    )
    eventually(lambda: is_pinged(lab, "web"))
    assert "192.168.0.9" in h1.run("lxc-attach", *lxc, "--", "/bin/busybox", "ip", "address").stdout
    eventually(lambda: "404" in lab.host("h2").run("curl", "-s", f"http://{h1.ip}:8080/", check=False).stdout)
    h1.run("lxc-stop", *lxc, "-k")
    eventually(lambda: netagent(h1, "ps", "-aq").stdout == "")


def test_a_plain_namespace_is_attached_by_its_path_and_by_a_pid(lab: Lab, h1: Host) -> None:
    h1.run("ip", "netns", "add", "blue")
    netagent(h1, "attach", "--netns", "/run/netns/blue", "--name", "blue", "--network", "app", "--ip", "192.168.0.8")
    sleeper = h1.popen("unshare", "--net", "sleep", "1000")
    # On its way to the namespace of its own it is in the machine's, and in the host's.
    eventually(lambda: Path(f"/proc/{sleeper.pid}/comm").read_text() == "sleep\n")
    netagent(h1, "attach", "--netns", str(sleeper.pid), "--name", "green", "--network", "app")
    for name in ("blue", "green"):
        eventually(lambda name=name: is_pinged(lab, name))
        netagent(h1, "detach", name)
    assert "eth0" not in h1.run("ip", "-n", "blue", "link").stdout
    sleeper.kill()
    sleeper.wait()
    h1.run("ip", "netns", "del", "blue")
