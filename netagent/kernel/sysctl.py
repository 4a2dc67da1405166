"""Kernel settings below /proc/sys, of the network namespace that the calling thread is in."""

from pathlib import Path

from netagent.errors import EnvironmentProblem
from netagent.plan.desired import SysctlName

_ROOT = Path("/proc/sys")
_WITHOUT_IPV6 = {"disable_ipv6": "1", "accept_ra": "0"}
"""What a kernel without IPv6 (``ipv6.disable=1``) amounts to."""


def read_sysctl(name: SysctlName) -> str | None:
    """Return the setting's present value, None if the kernel has no such setting."""
    try:
        return _path(name).read_text().strip()
    except OSError:
        if name[:2] == ("net", "ipv6") and not (_ROOT / "net" / "ipv6").exists():
            return _WITHOUT_IPV6.get(name[-1])
        return None


def write_sysctl(name: SysctlName, value: str) -> None:
    """Set ``name`` to ``value`` unless it is that already; EnvironmentProblem if it is missing or refused."""
    path = _path(name)
    try:
        if read_sysctl(name) != value:
            path.write_text(value)
    except FileNotFoundError:
        raise EnvironmentProblem(
            f"kernel setting {path} does not exist", hint="its interface or the kernel's support for it is missing"
        ) from None
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot set {path} to {value}: {error.strerror}", hint="is /proc/sys mounted read-only?"
        ) from None


def _path(name: SysctlName) -> Path:
    return _ROOT.joinpath(*name)
