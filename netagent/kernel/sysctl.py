"""Kernel settings below /proc/sys, of the network namespace that the calling thread is in."""

from pathlib import Path

from netagent.errors import EnvironmentProblem
from netagent.plan.desired import SysctlName
from netagent.plan.mtu import MINIMUM_MTU

_ROOT = Path("/proc/sys")
_WITHOUT_IPV6 = {"disable_ipv6": "1", "accept_ra": "0"}
"""What a kernel without IPv6 (``ipv6.disable=1``) amounts to, and an interface with an MTU that is too small for it."""


def read_sysctl(name: SysctlName) -> str | None:
    """Return the setting's present value, None if the kernel has no such setting."""
    try:
        return _path(name).read_text().strip()
    except OSError:
        return _WITHOUT_IPV6.get(name[-1]) if _lacks_ipv6(name) else None


def write_sysctl(name: SysctlName, value: str) -> None:
    """Set ``name`` to ``value`` unless it is that already; EnvironmentProblem if it is missing or refused."""
    path = _path(name)
    try:
        if read_sysctl(name) != value:
            path.write_text(value)
    except FileNotFoundError:
        hint = "its interface or the kernel's support for it is missing"
        if _lacks_ipv6(name) and (_ROOT / "net" / "ipv6").exists():
            hint = f"IPv6 needs an MTU of {MINIMUM_MTU[6]} or more"
        raise EnvironmentProblem(f"kernel setting {path} does not exist", hint=hint) from None
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot set {path} to {value}: {error.strerror}", hint="is /proc/sys mounted read-only?"
        ) from None


def _lacks_ipv6(name: SysctlName) -> bool:
    """Tell whether it is for want of IPv6 that a setting is missing.

    The kernel takes it off an interface whose MTU falls below 1280 (addrconf_notify, net/ipv6/addrconf.c).
    """
    if name[:2] != ("net", "ipv6"):
        return False
    if not (_ROOT / "net" / "ipv6").exists():
        return True
    interface = name[3] if name[2] == "conf" else ""
    family = {version: (_ROOT / "net" / version / "conf" / interface).exists() for version in ("ipv4", "ipv6")}
    return bool(interface) and family["ipv4"] and not family["ipv6"]


def _path(name: SysctlName) -> Path:
    return _ROOT.joinpath(*name)
