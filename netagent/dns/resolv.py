"""``/etc/resolv.conf``, the host's and the containers': resolv.conf(5). What cannot be read is left out."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

SERVERS_USED = 3
"""MAXNS of resolv.h: what a stub resolver asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvConf:
    """The settings of a stub resolver; ``nameservers`` are literal addresses, IPv6 ones perhaps with a zone."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse_resolv_conf(text: str) -> ResolvConf:
    """Return the settings in ``text``; of ``search`` and ``domain`` the last one counts, as in the C library."""
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        keyword, *values = line.split("#", 1)[0].split(";", 1)[0].split() or [""]
        if keyword == "nameserver" and values and _is_address(values[0]):
            nameservers.append(values[0])
        elif keyword == "search":
            search = tuple(values)
        elif keyword == "domain" and values:
            search = (values[0],)
        elif keyword == "options":
            options += values
    return ResolvConf(nameservers=tuple(dict.fromkeys(nameservers)), search=search, options=tuple(options))


def render_resolv_conf(host: ResolvConf, nameservers: Iterable[str]) -> str:
    """Return a container's file: its networks' gateways as servers, search list and options as the host has them.

    Unless the host says otherwise a name without dots is tried as it is first (``ndots:0``, as Docker's), so that a
    container's name is not asked for in the host's domains.
    """
    has_ndots = any(option.startswith("ndots:") for option in host.options)
    options = host.options if has_ndots else (*host.options, "ndots:0")
    lines = [f"nameserver {address}" for address in list(nameservers)[:SERVERS_USED]]
    if host.search and host.search != (".",):
        lines.append(f"search {' '.join(host.search)}")
    lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
