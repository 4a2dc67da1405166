"""The programs iptables, ip6tables, ebtables and ipset: run, with what they say. For the worker thread only.

They work in the network namespace of the thread that starts them.
"""

import math
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from netagent.errors import EnvironmentProblem
from netagent.firewall.iptables import lock
from netagent.firewall.iptables.listing import Listing, parse

FLAVOURS = ("nft", "legacy")
"""The two programs called iptables: the one that speaks to nf_tables, and the one with tables of its own."""

_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_TIME_LIMIT_S = 30
_IPSET_MODULE = Path("/sys/module/ip_set")
"""There if the module is loaded or built in, as it has a parameter; it is loaded when the first set is asked for."""
_HEARD_WITHIN_S = 10.0
"""How long after a program's end its notifications may be on their way. Its number is somebody else's some day."""


class ProgramRefusalError(Exception):
    """A program that ended with an error: its name and its words."""


class LockHeldError(ProgramRefusalError):
    """Another program did not let go of iptables-legacy's lock while it was waited for."""


class Programs:
    """The programs of one flavour: ``command`` is ``iptables``, ``iptables-nft`` or ``iptables-legacy``."""

    def __init__(self, command: str) -> None:
        self._own: dict[int, float] = {}
        """Process -> when it ended, in seconds of the monotonic clock."""
        version = self._run((_find(command), "--version"))
        self.flavour = "legacy" if "legacy" in version else "nft"
        suffix = command.removeprefix("iptables")
        self._restore = {
            "ip": (_find(f"iptables{suffix}-restore"), "--noflush", *lock.WAIT),
            "ip6": (_find(f"ip6tables{suffix}-restore"), "--noflush", *lock.WAIT),
            "bridge": (_find("ebtables-nft-restore", "ebtables-restore"), "--noflush"),
        }
        self._save = {
            "ip": (_find(f"iptables{suffix}-save"),),
            "ip6": (_find(f"ip6tables{suffix}-save"),),
            "bridge": (_find("ebtables-nft-save", "ebtables-save"),),
        }
        self._ipset = _find("ipset")

    def is_own(self, process: int) -> bool:
        """Tell whether a process is one of these programs, or was a short while ago. From any thread."""
        return _is_recent(self._own.get(process, -math.inf))

    def restore(self, scripts: Mapping[str, str]) -> None:
        """Give each family's text to its restore program. Raises ProgramRefusalError at the first that refuses."""
        for family, text in scripts.items():
            self._run(self._restore[family], text)

    def restore_ipsets(self, text: str) -> None:
        """Carry out the lines of ``text``; what is there already, or gone, is no error."""
        if text:
            self._run((self._ipset, "restore", "-exist"), text)

    def list(self) -> Listing:
        """Return what is there of ours."""
        saved = {family: self._run(command) for family, command in self._save.items()}
        return parse(saved, self._run((self._ipset, "save")))

    def save_ipset(self, name: str) -> str:
        """Return an ipset with its members as ``ipset save`` prints it; nothing if there is none."""
        try:
            return self._run((self._ipset, "save", name))
        except ProgramRefusalError:
            return ""

    def _run(self, command: tuple[str, ...], text: str = "") -> str:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as running:
            self._own = {process: end for process, end in self._own.items() if _is_recent(end)} | {
                running.pid: math.inf
            }
            try:
                output, problem = running.communicate(text, timeout=_TIME_LIMIT_S)
            except subprocess.TimeoutExpired:
                running.kill()
                raise ProgramRefusalError(f"{command[0]} did not end within {_TIME_LIMIT_S} s") from None
            finally:
                self._own[running.pid] = time.monotonic()
        if running.returncode:
            words = " / ".join(line.strip() for line in problem.splitlines() if line.strip())
            name = Path(command[0]).name
            if lock.is_held(words):
                raise LockHeldError(f"{name} waited {lock.WAIT_S} s for {lock.PATH}, which {_lock_holder()} holds")
            raise ProgramRefusalError(f"{name}: {words or running.returncode}")
        return output


def _lock_holder() -> str:
    """Return who holds the lock, as far as the kernel says (proc_locks(5))."""
    try:
        status = Path(lock.PATH).stat()
        held = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in Path("/proc/locks").read_text().splitlines():
            # Of one that waits an arrow stands before its kind.
            _, kind, _, _, process, file, *_ = line.split()
            if kind == "FLOCK" and file == held:
                return f"{Path(f'/proc/{process}/comm').read_text().strip()} (pid {process})"
    except (OSError, ValueError):
        pass
    return "another program"


def _is_recent(end: float) -> bool:
    return time.monotonic() - end < _HEARD_WITHIN_S


def save_legacy(program: str) -> str | None:
    """Return what ``iptables-legacy-save`` or ``ip6tables-legacy-save`` prints, None where it cannot be had."""
    found = shutil.which(program, path=_PATH)
    if found is None:
        return None
    try:
        saved = subprocess.run((found,), capture_output=True, text=True, timeout=_TIME_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if saved.returncode else saved.stdout


def ipset_names() -> frozenset[str]:
    """Return the names of all ipsets; none where the program is missing or the kernel has none."""
    found = shutil.which("ipset", path=_PATH) if _IPSET_MODULE.exists() else None
    if found is None:
        return frozenset()
    try:
        listed = subprocess.run(
            (found, "list", "-name"), capture_output=True, text=True, timeout=_TIME_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return frozenset()
    return frozenset(listed.stdout.split())


def _find(*names: str) -> str:
    for name in names:
        if found := shutil.which(name, path=_PATH):
            return found
    raise EnvironmentProblem(
        f"{names[0]} is missing", hint="install iptables and ipset, or set firewall to nftables in agent.toml"
    )
