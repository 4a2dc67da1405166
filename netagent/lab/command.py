"""Short commands the lab runs to their end: ``ip``, and what it finds missing on this machine."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence

from netagent.errors import EnvironmentProblem

_PACKAGES = {"ip": "iproute2", "nsenter": "util-linux", "unshare": "util-linux", "etcd": "etcd-server"}
"""The programs a lab cannot do without, and the Debian packages that bring them."""
_SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_WITHIN_S = 60.0


def require_root() -> None:
    """Refuse to go on without root; EnvironmentProblem."""
    if os.geteuid() != 0:
        raise EnvironmentProblem("a lab needs root: it lives in namespaces", hint="run it again with sudo")


def require_tools() -> None:
    """Refuse by name what would make the lab fail half-way: missing privileges, missing programs."""
    require_root()
    missing = sorted(program for program in _PACKAGES if shutil.which(program, path=search_path()) is None)
    if missing:
        packages = sorted({_PACKAGES[program] for program in missing})
        raise EnvironmentProblem(
            f"a lab needs {', '.join(missing)}, not found on this machine",
            hint=f"on Debian: apt-get install {' '.join(packages)}",
        )


def search_path() -> str:
    """Return ``PATH`` with the system's directories in it: root's often lacks /usr/sbin after ``su``."""
    given = [entry for entry in os.environ.get("PATH", "").split(os.pathsep) if entry]
    return os.pathsep.join([*given, *(entry for entry in _SYSTEM_DIRECTORIES if entry not in given)])


def ip_batch(lines: Iterable[str], *, netns: str | None = None, force: bool = False) -> None:
    """Run ``ip`` once over all ``lines``, in the namespace ``netns``; ``force`` goes on after a line that fails."""
    argv = ["ip", *(["-n", netns] if netns else []), *(["-force"] if force else []), "-batch", "-"]
    run(argv, input_text="".join(f"{line}\n" for line in lines), check=not force)


def run(argv: Sequence[str], *, input_text: str = "", check: bool = True) -> None:
    """Run a command of the lab's own; EnvironmentProblem with what it printed if it fails."""
    done = subprocess.run(
        argv,
        input=input_text,
        text=True,
        capture_output=True,
        timeout=_WITHIN_S,
        env=os.environ | {"PATH": search_path()},
        check=False,
    )
    if check and done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"status {done.returncode}"
        raise EnvironmentProblem(
            f"{argv[0]} failed: {said}", hint=f"the command was: {' '.join(shlex.join(argv).split())}"
        )
