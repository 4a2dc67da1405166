"""One machine of a lab: its three namespaces, its private directories, and how commands get into it.

The mount and the UTS namespace live as long as the holder, a process that sleeps; they are the machine's disk and
its name. The network namespace has a name and lives without it; it is what a power cut takes away.
"""

import os
import shlex
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from netagent.errors import Unavailable
from netagent.lab import cgroup, inhabitants, process
from netagent.lab.command import ip_batch, run, search_path
from netagent.lab.layout import Seat
from netagent.lab.process import ProcessId
from netagent.lab.record import Record
from netagent.lab.underlay import UNDERLAY_INTERFACE, complete_checksums, plug_in, unplug

DISKS = (
    "/var/lib/netagent",
    "/var/lib/cni",
    "/etc/netagent",
    "/etc/cni",
    "/etc/docker",
    "/opt/cni/bin",
)
"""Directories whose content belongs to the machine and survives its power cut; ``/run`` is private, and does not."""

_PRIVATE = ("/run", *DISKS)
_LAB_FILES = "run/nalab"
_CONTAINERS = "/run/netagent/containers"
_READY_WITHIN_S = 30.0
_ROUNDS = 10

# Mounts whose paths begin so are let go of; some go by themselves meanwhile.
_LET_GO = """
cut -d' ' -f5 /proc/self/mountinfo | grep -E '%s' | sort -r |
    while read -r mount; do umount -l "$(printf %%b "$mount")" 2>/dev/null || true; done
"""

# The holder: everything mounted here is seen by this machine of the lab only. What it took over from the real machine
# below /run, namespaces of other labs among it, would live as long as this one. Its own /run lies below that of each
# boot, so that who enters in between does not find the real machine's.
_HOLD = f"""
echo "$1" > /proc/sys/kernel/hostname
{_LET_GO % "^/run(/|$)"}
for private in {" ".join(_PRIVATE)}; do mount -t tmpfs -o mode=755 nalab "$private"; done
exec sleep infinity
"""

# What is new after every start of the machine: an empty /run, and no container's root. /sys is mounted anew because
# /sys/class/net shows the network namespace of who mounted it; the cgroups are carried over into it.
_BOOT = f"""
{_LET_GO % "^(/run|/var/lib/netagent)/"}
if grep -q ' /run .* nalab-boot ' /proc/self/mountinfo; then umount -l /run; fi
mount -t tmpfs -o mode=755 nalab-boot /run
mkdir -p /run/lock /run/netns /{_LAB_FILES}/bin /{_LAB_FILES}/sys
mount -t sysfs sysfs /{_LAB_FILES}/sys
for part in fs/cgroup fs/bpf; do
    if mountpoint -q /sys/$part; then mount --rbind /sys/$part /{_LAB_FILES}/sys/$part; fi
done
umount -l -R /sys
mount --move /{_LAB_FILES}/sys /sys
for plugin in /usr/lib/cni/*; do if [ -e "$plugin" ]; then ln -sf "$plugin" /opt/cni/bin/; fi; done
"""

_UNBUILT = b"""#!/bin/sh
echo '{"cniVersion":"1.0.0","code":11,"msg":"the CNI plugin is not built",'\
'"details":"make cni/netagent (Debian: apt-get install gcc libc6-dev), and take the lab down and up"}'
exit 1
"""


class Machine:
    """A machine of the lab, whatever runs on it."""

    def __init__(self, record: Record, seat: Seat) -> None:
        self._record = record
        self.seat = seat
        self.name = seat.name
        self.ip = record.layout.address(seat)

    def power_on(self) -> None:
        """Start the machine: namespaces, private directories, ``netagent`` on its PATH, and its cable."""
        if self._holder is None:
            self._hold()
        if not self._netns.exists():
            ip_batch([f"netns add {self.seat.netns}"])
        run([*self._enter, "sh", "-ec", _BOOT])
        self._install_netagent()
        layout = self._record.layout
        plug_in(layout, self.seat)
        if layout.underlay == "ovs":
            complete_checksums(self.seat.netns, UNDERLAY_INTERFACE)

    def power_off(self) -> None:
        """Cut the power: every process on it is killed, its interfaces are gone, its disks keep what they hold."""
        unplug(self._record.layout, self.seat)
        self.end_all(within_s=0)
        ip_batch([f"netns del {self.seat.netns}"])

    def end_all(self, *, within_s: float) -> None:
        """End whatever runs on this machine except its holder, and remove its containers' cgroups.

        See ``process.end``; what was started while others ended is killed without more ado.
        """
        holder = self._holder
        running = inhabitants.find(self._netns, holder, _PRIVATE)
        cgroups = self._container_cgroups(running)
        process.end(running, within_s=within_s)
        for _ in range(_ROUNDS):
            if not (left := inhabitants.find(self._netns, holder, _PRIVATE)):
                return cgroup.remove(cgroups)
            cgroups |= self._container_cgroups(left)
            process.end(left, within_s=0)
        raise Unavailable(f"processes on {self.name} multiply faster than they are ended", hint="end them by hand")

    def let_go(self) -> None:
        """End the holder: the private directories are gone with it."""
        holder = self._holder
        if holder is not None:
            process.end([holder], within_s=1)

    def path(self, path: str) -> Path:
        """Return where the machine's file ``path`` is seen from outside."""
        holder = self._holder
        if holder is None:
            raise Unavailable(f"{self.name} is not up", hint="its holder process is gone; take the lab down")
        return Path(f"/proc/{holder.pid}/root") / path.lstrip("/")

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the command line that runs ``argv`` on this machine, in its root directory."""
        return [*self._enter, *argv]

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of commands on this machine: ours, with its ``netagent`` first on the PATH."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NETAGENT_")}
        return kept | {"PATH": f"/{_LAB_FILES}/bin:{search_path()}"} | dict(extra or {})

    def run(
        self,
        *argv: str,
        check: bool = True,
        timeout: float = 60,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command here to its end, its output as text; CalledProcessError says what it printed."""
        done = subprocess.run(
            self.command(argv),
            input=stdin,
            text=True,
            capture_output=True,
            timeout=timeout,
            env=self.environment(env),
            check=False,
        )
        if check and done.returncode != 0:
            failure = subprocess.CalledProcessError(done.returncode, argv, done.stdout, done.stderr)
            failure.add_note(f"on {self.name}: {shlex.join(argv)}\n{done.stdout}{done.stderr}")
            raise failure
        return done

    def popen(self, *argv: str, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        """Start a command here; it is the caller's child, and ended with the lab at the latest."""
        return subprocess.Popen(self.command(argv), text=True, env=self.environment(env), **options)

    def spawn(self, role: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> ProcessId:
        """Start a command here that outlives us, noted in the record as ``role``, its output in the lab's directory."""
        return process.spawn(
            self.command(argv),
            env=self.environment(env),
            log=self.log(role),
            record=lambda started: self._record.note(f"{self.name}/{role}", started),
        )

    def log(self, role: str) -> Path:
        """Return where the output of that process goes."""
        return self._record.directory / f"{self.name}-{role}.log"

    def last_words(self, role: str) -> str:
        """Return the last line that process printed, for an error message."""
        with suppress(FileNotFoundError):
            lines = self.log(role).read_text(errors="replace").strip().splitlines()
            if lines:
                return lines[-1]
        return "it printed nothing"

    def process(self, role: str) -> ProcessId | None:
        """Return the process that has that role here, if it runs."""
        noted = self._record.processes.get(f"{self.name}/{role}")
        return noted if noted is not None and process.alive(noted) else None

    def signal(self, role: str, number: signal.Signals) -> None:
        """Signal the process that has that role here, if it runs."""
        noted = self.process(role)
        if noted is not None:
            process.send(noted, number)

    def wait_until(self, role: str, ready: Callable[[], bool], *, within_s: float) -> None:
        """Wait until ``ready()``; Unavailable, with its last words, if the process ends or takes longer than that."""
        deadline = time.monotonic() + within_s
        while not ready():
            if self.process(role) is None:
                raise Unavailable(f"{role} of {self.name} ended: {self.last_words(role)}", hint="try it by hand there")
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{role} of {self.name} does not answer after {within_s:.0f} s: {self.last_words(role)}",
                    hint=f"its log is {self.log(role)}",
                )
            time.sleep(0.02)

    @property
    def _holder(self) -> ProcessId | None:
        return self.process("holder")

    @property
    def _netns(self) -> Path:
        return Path("/run/netns") / self.seat.netns

    @property
    def _enter(self) -> list[str]:
        # Not `ip netns exec`: it mounts a /sys of its own, without cgroups.
        holder = self._holder
        if holder is None:
            raise Unavailable(f"{self.name} is not up", hint="its holder process is gone; take the lab down")
        kept = f"/proc/{holder.pid}/ns"
        return ["nsenter", f"--net={self._netns}", f"--mount={kept}/mnt", f"--uts={kept}/uts", "--"]

    def _hold(self) -> None:
        unshare = ["unshare", "--mount", "--uts", "--propagation", "slave", "--"]
        holder = process.spawn(
            [*unshare, "sh", "-ec", _HOLD, "sh", self.name],
            env=os.environ | {"PATH": search_path()},
            log=self.log("holder"),
            record=lambda started: self._record.note(f"{self.name}/holder", started),
        )
        comm = Path(f"/proc/{holder.pid}/comm")
        self.wait_until("holder", lambda: _text(comm) == "sleep\n", within_s=_READY_WITHIN_S)

    def _install_netagent(self) -> None:
        package = Path(__file__).resolve().parent.parent
        launcher = self.path(f"/{_LAB_FILES}/bin/netagent")
        launcher.write_text(_launcher(package.parent))
        launcher.chmod(0o755)
        plugin = self.path("/opt/cni/bin/netagent.new")
        plugin.write_bytes(cni_plugin(package.parent / "cni" / "netagent", Path("/opt/cni/bin/netagent")))
        plugin.chmod(0o755)
        # A program that runs cannot be written to (ETXTBSY): a runtime may be calling it as the machine comes up again.
        plugin.rename(plugin.with_name("netagent"))

    def _container_cgroups(self, running: Sequence[ProcessId]) -> set[Path]:
        """Return the cgroups made for containers: not those that commands of the machine itself were started in."""
        holder = self._holder
        if holder is None:
            return set()
        containers = self.path(_CONTAINERS)
        stopped = [entry.name for entry in containers.iterdir()] if containers.is_dir() else []
        contained = inhabitants.contained(running, holder)
        found = cgroup.of_machine(self.seat.netns)
        found = found.union(*(cgroup.of_process(of.pid) for of in contained), *map(cgroup.of_container, stopped))
        return found - cgroup.of_process(holder.pid)


def cni_plugin(*places: Path) -> bytes:
    """Return the first there is of these files, else one that says how it is made: most uses of a lab need none."""
    found = next((place for place in places if place.is_file()), None)
    return _UNBUILT if found is None else found.read_bytes()


def _launcher(root: Path) -> str:
    """Return the ``netagent`` of a lab's machines: this interpreter with this very code, installed or not."""
    installed = root in {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    place = "" if installed else f"PYTHONPATH={shlex.quote(str(root))} "
    return f'#!/bin/sh\n{place}exec {shlex.quote(sys.executable)} -P -m netagent "$@"\n'


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
