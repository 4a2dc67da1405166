"""A virtual machine with Debian's kernel, for what this machine's lacks: GRE, Open vSwitch's module.

It boots an initramfs of busybox and a handful of modules, mounts this machine's root directory read-only (virtiofs)
below a file system in memory, and runs one command in it. Nothing it does is seen outside but what it prints.
"""

import json
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.lab import eventually

_VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
_MODULES = ("virtio_pci", "virtiofs", "overlay")
_COUNTED = ("-accel", "tcg,thread=single", "-cpu", "max,-erms,-fsrm", "-smp", "1", "-icount", "shift=0")
_STATUS = "netagent-vm-status="

_INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /lower /memory /root
/bin/busybox mount -t proc proc /proc
for module in {modules}; do /bin/busybox insmod /$module 2>/dev/null; done
/bin/busybox mount -t virtiofs -o ro host /lower
/bin/busybox mount -t tmpfs memory /memory
/bin/busybox mkdir /memory/upper /memory/work
/bin/busybox mount -t overlay -o lowerdir=/lower,upperdir=/memory/upper,workdir=/memory/work overlay /root
for directory in run dev; do /bin/busybox mount -t tmpfs tmpfs /root/$directory; done
/bin/busybox mount -t devtmpfs dev /root/dev
/bin/busybox mount -t proc proc /root/proc
/bin/busybox mount -t sysfs sys /root/sys
/bin/busybox cp /run.sh /root/run/run.sh
exec /bin/busybox switch_root /root /bin/sh /run/run.sh
"""

_RUN = """
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
export PYTHONDONTWRITEBYTECODE=1
mkdir -p /run/netns /run/lock /dev/shm
mount -t tmpfs tmpfs /dev/shm
ip link set lo up
cd {directory}
{command} </dev/null 2>&1
ended=$?
echo; echo {status}$ended
# The console is slower than the reset: a change of its settings waits until all is out (TCSADRAIN).
stty sane <&1
sleep 1
echo b > /proc/sysrq-trigger
sleep 60
"""


def run_in_vm(
    command: Sequence[str], *, directory: Path, timeout: float, disk: Path | None = None, counted: bool = False
) -> tuple[int, str]:
    """Run ``command`` in ``directory`` inside a machine of its own; return its status and all that was printed.

    The machine finds ``disk``, an image, as ``/dev/vda``. With ``counted`` it has one CPU, and its clock counts the
    instructions of that: what is measured there does not depend on what else this machine does.
    """
    output = _boot(command, directory, disk, timeout=timeout, counted=counted)
    head, _, status = output.rpartition(_STATUS)
    assert head, f"the machine ended before the command did:\n{output[-4000:]}"
    return int(status.split()[0]), head


def found_in_vm(command: Sequence[str], *, directory: Path, timeout: float, counted: bool = False) -> dict[str, Any]:
    """Run ``command`` as ``run_in_vm`` does; return the JSON behind ``found`` on the line that it prints."""
    status, output = run_in_vm(command, directory=directory, timeout=timeout, counted=counted)
    line = next((line for line in output.splitlines() if line.startswith("found ")), None)
    assert status == 0, output[-4000:]
    assert line, output[-800:]
    found: dict[str, Any] = json.loads(line.removeprefix("found "))
    assert "error" not in found, found["error"]
    return found


def run_in_vm_until(
    is_enough: Callable[[str], bool], command: Sequence[str], *, directory: Path, disk: Path, timeout: float
) -> list[str]:
    """Run ``command`` in a machine and cut its power after the line that ``is_enough``; return the lines up to there.

    What the machine has flushed to ``disk`` is on it; what lay in the machine's memory only is lost.
    """
    output = _boot(command, directory, disk, timeout=timeout, is_enough=is_enough)
    assert _STATUS not in output, f"the command ended before its machine did:\n{output[-4000:]}"
    lines = output.splitlines()
    assert lines, "the machine said nothing"
    assert is_enough(lines[-1]), f"not heard in {timeout} s:\n{output[-4000:]}"
    return lines


def _kernel() -> Path:
    kernels = sorted(Path("/boot").glob("vmlinuz-*-cloud-amd64"))
    assert kernels, "no kernel to boot: apt-get install linux-image-cloud-amd64"
    return kernels[-1]


def _write_initramfs(place: Path, kernel: Path, command: Sequence[str], directory: Path) -> None:
    tree = place / "initramfs"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (tree / "bin" / "busybox").chmod(0o755)
    release = kernel.name.removeprefix("vmlinuz-")
    modules = [path for module in _MODULES for path in _with_what_it_needs(module, release)]
    for path in modules:
        (tree / path.name).write_bytes(path.read_bytes())
    (tree / "init").write_text(_INIT.format(modules=" ".join(path.name for path in modules)))
    (tree / "init").chmod(0o755)
    script = _RUN.format(directory=shlex.quote(str(directory)), command=shlex.join(command), status=_STATUS)
    (tree / "run.sh").write_text(script)
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    archive = subprocess.run(
        ["busybox", "cpio", "-o", "-H", "newc"], input=names.encode(), cwd=tree, capture_output=True, check=True
    )
    (place / "initramfs.img").write_bytes(archive.stdout)


def _with_what_it_needs(module: str, release: str) -> list[Path]:
    """Return a module's file after those that it depends on."""
    listed = subprocess.run(
        ["modprobe", "--show-depends", "--set-version", release, module], text=True, capture_output=True, check=True
    )
    return [Path(line.split()[1]) for line in listed.stdout.splitlines() if line.startswith("insmod ")]


@contextmanager
def _shared_root(place: Path) -> Iterator[Path]:
    socket = place / "fs.sock"
    options = ("-o", "source=/,cache=always,sandbox=chroot,no_posix_lock")
    with (place / "virtiofsd.log").open("w") as log:
        server = subprocess.Popen([_VIRTIOFSD, f"--socket-path={socket}", *options], stdout=log, stderr=log)
    try:
        eventually(socket.exists)
        yield socket
    finally:
        server.kill()
        server.wait()


def _boot(
    command: Sequence[str],
    directory: Path,
    disk: Path | None,
    *,
    timeout: float,
    counted: bool = False,
    is_enough: Callable[[str], bool] = lambda line: False,
) -> str:
    """Return what a machine printed until it ended, or until ``is_enough`` of a line: then it is killed."""
    with tempfile.TemporaryDirectory(prefix="netagent-vm") as name:
        place = Path(name)
        kernel = _kernel()
        _write_initramfs(place, kernel, command, directory)
        with _shared_root(place) as socket:
            machine = subprocess.Popen(
                _argv(place, kernel, socket, disk, counted=counted),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            # Reading has no end of its own: a machine that hangs is ended from beside.
            end = threading.Timer(timeout, machine.kill)
            end.start()
            try:
                return "".join(_heard(machine, is_enough))
            finally:
                end.cancel()
                machine.kill()
                machine.communicate()


def _heard(machine: "subprocess.Popen[str]", is_enough: Callable[[str], bool]) -> Iterator[str]:
    assert machine.stdout is not None
    for line in machine.stdout:
        yield line
        if is_enough(line):
            machine.kill()
            return


def _argv(place: Path, kernel: Path, socket: Path, disk: Path | None, *, counted: bool) -> list[str]:
    memory = "1024M"
    # The image lies in this machine's page cache, which outlives the killed machine: all that it wrote is there, and
    # what it had not written yet is not, as with a disk that honours flushes.
    drive = ("-drive", f"file={disk},format=raw,if=virtio,cache=writeback") if disk is not None else ()
    # Copies by ``rep movsb`` would be one instruction a byte, where CPUs that have it copy a cache line at once.
    processors = _COUNTED if counted else ("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2")
    return [
        *("qemu-system-x86_64", *processors, "-m", memory),
        *("-object", f"memory-backend-memfd,id=memory,size={memory},share=on", "-machine", "q35,memory-backend=memory"),
        *("-chardev", f"socket,id=fs,path={socket}", "-device", "vhost-user-fs-pci,chardev=fs,tag=host"),
        *("-nographic", "-no-reboot", "-nic", "none", "-kernel", str(kernel), *drive),
        *("-initrd", str(place / "initramfs.img"), "-append", "console=ttyS0 quiet panic=-1"),
    ]
