"""What ``tests/kernel/test_vm_power.py`` runs in a machine whose power is cut: an agent whose state is on a disk.

``work`` adds and deletes containers through the CNI plugin for ever and says on the console what was answered.
``look`` says what the journal holds.
"""

import itertools
import os
import subprocess
import sys
from pathlib import Path

from netagent.store.journal import Journal
from tests.support.cni import Plugin, a_configuration
from tests.support.lab import eventually

DISK = Path("/run/disk")
STATE = DISK / "state"
RUN = Path("/run/netagent")


def main(what: str) -> None:
    for module in ("virtio_blk", "ext4", "nf_tables", "bridge", "veth"):
        subprocess.run(["modprobe", module], check=True)
    DISK.mkdir()
    eventually(Path("/dev/vda").exists)
    subprocess.run(["mount", "-t", "ext4", "/dev/vda", DISK], check=True)
    if what == "look":
        look()
    else:
        work()


def work() -> None:
    arguments = ["agent", "--state-dir", str(STATE), "--run-dir", str(RUN), "--host-name", "vm"]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    agent = subprocess.Popen([sys.executable, "-m", "netagent", *arguments], env=environment)
    eventually(lambda: (RUN / "cni.sock").exists() or agent.poll() is not None, within=300)
    assert agent.poll() is None
    plugin = Plugin(socket=RUN / "cni.sock", queue=STATE / "cni-queue")
    network = a_configuration("bridge")
    for number in itertools.count():
        name = f"c{number}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        added = plugin.add(name, f"/run/netns/{name}", configuration=network)
        say(f"added {name} {added.address}")
        if number % 3 == 2:
            gone = f"c{number - 1}"
            say(f"deleting {gone}")
            assert plugin.delete(gone, f"/run/netns/{gone}", configuration=network).status == 0
            say(f"deleted {gone}")


def look() -> None:
    journal = Journal(STATE)
    for endpoint in journal.endpoints.values():
        say(f"journal {journal.containers[endpoint.container_id].runtime_id} {endpoint.addresses[0].address}")
    journal.close()


def say(words: str) -> None:
    print(f"said {words}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
