"""What a container is told about names: resolver settings, names of its own, links. Parsers of their ``run`` flags."""

import ipaddress
import re
from dataclasses import dataclass

from netagent.errors import InvalidRequest
from netagent.model.ids import parse_alias, parse_name

HOST_GATEWAY = "host-gateway"
"""In ``--add-host``: the host's own address in the container's first network."""
NO_SEARCH = "."
"""In ``--dns-search``: no search list at all."""

_DOMAIN_LIMIT = 253
_DOMAIN = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?")
_OPTION = re.compile(r"[a-z0-9-]+(:[0-9]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolver:
    """The settings of a stub resolver, resolv.conf(5); ``nameservers`` are literal addresses, perhaps with a zone."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraHost:
    """A name in ``/etc/hosts``; ``address`` is a literal one, or ``HOST_GATEWAY``."""

    name: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """``--link``: the container named ``target`` under the name ``alias``, for one container alone."""

    target: str
    alias: str


HOSTNAME_LIMIT = 64
"""Bytes of a host name: __NEW_UTS_LEN, include/uapi/linux/utsname.h."""


def parse_hostname(text: str) -> str:
    """Return ``text`` if it is a usable name of a host for itself; it goes into files and environments as it is."""
    if len(text) > HOSTNAME_LIMIT or not _DOMAIN.fullmatch(text):
        raise InvalidRequest(
            f"invalid hostname format: {text!r}", hint=f"up to {HOSTNAME_LIMIT} letters, digits, dashes and dots"
        )
    return text


def parse_nameserver(text: str) -> str:
    """Return the address that ``--dns`` gives, an IPv6 one perhaps with a zone as in ``fe80::1%eth0``."""
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise InvalidRequest(f"--dns {text}: IP address is not correctly formatted", hint="--dns 192.0.2.53") from None


def parse_search(text: str) -> str:
    """Return a domain of ``--dns-search``, or the dot that means none."""
    if text == NO_SEARCH or (len(text) <= _DOMAIN_LIMIT and _DOMAIN.fullmatch(text)):
        return text
    raise InvalidRequest(f"--dns-search {text!r} is not a valid domain", hint="--dns-search example.org, or . for none")


def parse_resolver_option(text: str) -> str:
    """Return an option of ``--dns-option``: a word, perhaps with a number behind a colon (resolv.conf(5))."""
    if not _OPTION.fullmatch(text):
        raise InvalidRequest(f"--dns-option {text!r} is not an option of resolv.conf", hint="--dns-option timeout:1")
    return text


def parse_extra_host(text: str) -> ExtraHost:
    """Return what ``--add-host`` adds: ``NAME:ADDRESS`` or ``NAME=ADDRESS``, an IPv6 address perhaps in brackets."""
    name, separator, address = text.partition("=" if "=" in text else ":")
    if not separator or not name or not address:
        raise InvalidRequest(f'bad format for add-host: "{text}"', hint="--add-host NAME:ADDRESS")
    if len(name) > _DOMAIN_LIMIT or not _DOMAIN.fullmatch(name):
        raise InvalidRequest(f'bad format for add-host: "{text}": {name!r} is not a host name')
    if address == HOST_GATEWAY:
        return ExtraHost(name=name, address=address)
    literal = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    try:
        return ExtraHost(name=name, address=str(ipaddress.ip_address(literal)))
    except ValueError:
        raise InvalidRequest(
            f'invalid IP address in add-host: "{address}"', hint=f"give an address, or {HOST_GATEWAY}"
        ) from None


def parse_link(text: str) -> Link:
    """Return what ``--link`` asks for, ``NAME`` or ``NAME:ALIAS``; names may have Docker's leading slash."""
    target, separator, alias = text.partition(":")
    target, alias = target.removeprefix("/"), alias.rpartition("/")[2]
    if not target or (separator and not alias) or ":" in alias:
        raise InvalidRequest(f"bad format for links: {text}", hint="--link NAME:ALIAS")
    return Link(target=parse_name(target, what="container"), alias=parse_alias(alias or target))
