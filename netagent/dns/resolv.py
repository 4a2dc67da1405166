"""``/etc/resolv.conf``, the host's and the containers': resolv.conf(5). What cannot be read is left out."""

import ipaddress
from collections.abc import Iterable

from netagent.model.resolver import NO_SEARCH, Resolver

SERVERS_USED = 3
"""MAXNS of resolv.h: what a stub resolver asks."""


def parse_resolv_conf(text: str) -> Resolver:
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
    return Resolver(nameservers=tuple(dict.fromkeys(nameservers)), search=search, options=tuple(options))


def choose_resolver(asked: Resolver, host: Resolver) -> Resolver:
    """Return a container's settings: of each kind what was asked for, else what the host has."""
    return Resolver(
        nameservers=asked.nameservers or host.nameservers,
        search=asked.search or host.search,
        options=asked.options or host.options,
    )


def render_resolv_conf(chosen: Resolver, nameservers: Iterable[str], *, plain: bool = False) -> str:
    """Return a container's file with ``nameservers`` and what else was ``chosen``.

    Unless an option says otherwise a name without dots is tried as it is first (``ndots:0``, as Docker's), so that a
    container's name is not asked for in the host's domains. ``plain`` leaves that out.
    """
    has_ndots = plain or any(option.startswith("ndots:") for option in chosen.options)
    options = chosen.options if has_ndots else (*chosen.options, "ndots:0")
    lines = [f"nameserver {address}" for address in list(nameservers)[:SERVERS_USED]]
    search = [domain for domain in chosen.search if domain != NO_SEARCH]
    if search:
        lines.append(f"search {' '.join(search)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
