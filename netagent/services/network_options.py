"""What ``network create`` and ``network update`` are given, as values: options by both their names, and subnets.

Every option has netagent's short name and Docker's long one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from netagent.drivers.gre import BACKENDS
from netagent.errors import InvalidRequest, NetagentError
from netagent.ipam.pools import parse_subnet
from netagent.model.address import Address, Prefix, parse_address, parse_prefix
from netagent.model.ids import INTERFACE_NAME_LIMIT, parse_interface_name
from netagent.model.network import DEFAULT_INTERFACE_PREFIX, Scope, Subnet
from netagent.model.outward import parse_exemptions, parse_outbound
from netagent.model.resolver import parse_nameserver
from netagent.plan.mtu import parse_mtu
from netagent.services.requests import NewNetwork

_NAMES = {
    "mtu": "mtu",
    "com.docker.network.driver.mtu": "mtu",
    "icc": "icc",
    "com.docker.network.bridge.enable_icc": "icc",
    "masquerade": "masquerade",
    "com.docker.network.bridge.enable_ip_masquerade": "masquerade",
    "masquerade_except": "masquerade_except",
    "outbound_address": "outbound_address",
    "com.docker.network.host_ipv4": "host_ipv4",
    "com.docker.network.host_ipv6": "host_ipv6",
    "bridge": "bridge",
    "com.docker.network.bridge.name": "bridge",
    "direct-routing": "direct-routing",
    "fallback": "fallback",
    "underlay": "underlay",
    "host_binding_ipv4": "host_binding_ipv4",
    "com.docker.network.bridge.host_binding_ipv4": "host_binding_ipv4",
    "host_binding_ipv6": "host_binding_ipv6",
    "backend": "backend",
    "interface_prefix": "interface_prefix",
    "no_default_route": "no_default_route",
    "routes": "routes",
    "dns": "dns",
    "com.docker.network.container_iface_prefix": "interface_prefix",
    "gateway_mode_ipv4": "gateway_mode_ipv4",
    "com.docker.network.bridge.gateway_mode_ipv4": "gateway_mode_ipv4",
    "gateway_mode_ipv6": "gateway_mode_ipv6",
    "com.docker.network.bridge.gateway_mode_ipv6": "gateway_mode_ipv6",
    "trusted_host_interfaces": "trusted_host_interfaces",
    "com.docker.network.bridge.trusted_host_interfaces": "trusted_host_interfaces",
}

_DRIVERS = {
    "bridge": ("bridge",),
    "icc": ("bridge",),
    "outbound_address": ("bridge",),
    "host_ipv4": ("bridge",),
    "host_ipv6": ("bridge",),
    "gateway_mode_ipv4": ("bridge",),
    "gateway_mode_ipv6": ("bridge",),
    "trusted_host_interfaces": ("bridge",),
    "direct-routing": ("vxlan",),
    "fallback": ("route",),
    "underlay": ("vxlan", "route", "gre"),
    "backend": ("gre",),
}
"""The drivers that know an option; one that is not named here all know."""

_GATEWAY_MODES = ("nat", "nat-unprotected", "routed")
"""Docker's, but "isolated": containers ask for names at the gateway; ``--internal`` is next to it."""

_TRUSTED_LIMIT = 64
_NUMBER_DIGITS = 3
"""What an interface prefix leaves for the number."""

_UNDERLAYS = {"ipv4": 4, "ipv6": 6}

_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
"""As Go's strconv.ParseBool takes them, in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """The options of ``--opt``, parsed. ``mtu`` and ``underlay`` None: what the underlay gives."""

    mtu: int | None = None
    bridge: str | None = None
    icc: bool = True
    masquerade: bool = True
    masquerade_except: tuple[Prefix, ...] = ()
    outbound: tuple[Address, ...] = ()
    underlay: int | None = None
    direct_routing: bool = False
    fallback: str | None = None
    host_bindings: tuple[Address, ...] = ()
    backend: str | None = None
    interface_prefix: str = DEFAULT_INTERFACE_PREFIX
    routed: tuple[int, ...] = ()
    unprotected: tuple[int, ...] = ()
    trusted: tuple[str, ...] = ()
    default_route: bool = True
    routes: tuple[tuple[str, str], ...] = ()
    nameservers: tuple[str, ...] = ()


def parse_options(options: Mapping[str, str], driver: str, *, ipv6: bool) -> NetworkOptions:
    """Return what ``--opt`` says; an option that the driver does not know is refused."""
    texts: dict[str, str] = {}
    for key, text in sorted(options.items()):
        name = _NAMES.get(key)
        if name is None:
            raise InvalidRequest(f"unknown option {key}", hint=f"options are {', '.join(sorted(_NAMES))}")
        if texts.setdefault(name, text) != text:
            both = " and ".join(sorted((texts[name], text)))
            raise InvalidRequest(f"option {name} is given twice: {both}", hint="give one of them")
    for name in texts:
        known_by = _DRIVERS.get(name, (driver,))
        if driver not in known_by:
            raise InvalidRequest(
                f"option {name} does not work with the driver {driver}", hint=f"use the driver {' or '.join(known_by)}"
            )
    outbound = parse_outbound(
        text.strip()
        for name in ("outbound_address", "host_ipv4", "host_ipv6")
        for text in texts.get(name, "").split(",")
        if text
    )
    masquerade = _parse_boolean("masquerade", texts.get("masquerade", "true"))
    if outbound and not masquerade:
        raise InvalidRequest("option outbound_address needs masquerade=true", hint="leave out one of them")
    modes = {
        version: _parse_choice(name, texts[name], _GATEWAY_MODES)
        for version, name in ((4, "gateway_mode_ipv4"), (6, "gateway_mode_ipv6"))
        if name in texts
    }
    return NetworkOptions(
        mtu=parse_mtu(texts["mtu"], ipv6=ipv6) if "mtu" in texts else None,
        bridge=parse_interface_name(texts["bridge"]) if "bridge" in texts else None,
        icc=_parse_boolean("icc", texts.get("icc", "true")),
        masquerade=masquerade,
        masquerade_except=parse_exemptions(texts.get("masquerade_except", "")),
        outbound=outbound,
        underlay=_UNDERLAYS[_parse_choice("underlay", texts["underlay"], _UNDERLAYS)] if "underlay" in texts else None,
        direct_routing=_parse_boolean("direct-routing", texts.get("direct-routing", "false")),
        fallback=_parse_choice("fallback", texts["fallback"], ("vxlan",)) if "fallback" in texts else None,
        host_bindings=parse_host_bindings(texts.get("host_binding_ipv4", ""), texts.get("host_binding_ipv6", "")),
        backend=_parse_choice("backend", texts["backend"], BACKENDS) if "backend" in texts else None,
        routed=tuple(version for version, mode in modes.items() if mode == "routed"),
        unprotected=tuple(version for version, mode in modes.items() if mode == "nat-unprotected"),
        trusted=_parse_trusted(texts.get("trusted_host_interfaces", "")),
        default_route=not _parse_boolean("no_default_route", texts.get("no_default_route", "false")),
        routes=tuple(_parse_route(text) for text in texts.get("routes", "").split(";") if text),
        nameservers=tuple(parse_nameserver(text) for text in texts.get("dns", "").split(",") if text),
        interface_prefix=_parse_interface_prefix(texts.get("interface_prefix", DEFAULT_INTERFACE_PREFIX)),
    )


def parse_host_bindings(ipv4: str, ipv6: str) -> tuple[Address, ...]:
    """Return the host addresses of published ports for which nobody names one; none stands for all addresses.

    As in Docker one for IPv4 alone means that nothing is published over IPv6, but 0.0.0.0 means both families.
    """
    found = []
    for version, text in ((4, ipv4), (6, ipv6)):
        if not text:
            continue
        address = parse_address(text, what=f"host_binding_ipv{version}")
        if address.version != version:
            raise InvalidRequest(
                f"invalid host_binding_ipv{version}: {text}", hint=f"give one of this host's IPv{version} addresses"
            )
        found.append(address)
    is_wide = len(found) == 1 and found[0].version == 4 and found[0].is_unspecified
    return () if is_wide else tuple(found)


def known_by(options: Mapping[str, str], driver: str) -> dict[str, str]:
    """Return those of ``options`` that mean something to ``driver``: the others go with the driver that knew them."""
    return {key: text for key, text in options.items() if driver in _DRIVERS.get(_NAMES.get(key, key), (driver,))}


def change_options(options: Mapping[str, str], changes: Mapping[str, str]) -> dict[str, str]:
    """Return ``options`` with ``changes``, whichever of its names an option had; an empty text takes one away."""
    replaced = {_NAMES.get(key, key) for key in changes}
    kept = {key: text for key, text in options.items() if _NAMES.get(key, key) not in replaced}
    for key in changes:
        if key not in _NAMES:
            raise InvalidRequest(f"unknown option {key}", hint=f"options are {', '.join(sorted(_NAMES))}")
    return {**kept, **{key: text for key, text in changes.items() if text}}


def _parse_route(text: str) -> tuple[str, str]:
    """Return destination and gateway of a route, as Podman has it; whether they go together the network knows."""
    destination, comma, gateway = (part.strip() for part in text.partition(","))
    if not comma or not destination or not gateway or "," in gateway:
        raise InvalidRequest(f"invalid route {text!r}", hint="DESTINATION,GATEWAY, for example 10.7.0.0/16,10.5.0.9")
    return str(parse_prefix(destination, what="destination of a route")), str(parse_address(gateway))


def _parse_trusted(text: str) -> tuple[str, ...]:
    """Return interfaces of the host, written with colons between them as Docker has it."""
    found = tuple(dict.fromkeys(parse_interface_name(name) for name in text.split(":") if text))
    if len(found) > _TRUSTED_LIMIT:
        raise InvalidRequest(f"{len(found)} trusted host interfaces", hint=f"give at most {_TRUSTED_LIMIT}")
    return found


def _parse_interface_prefix(text: str) -> str:
    if len(text.encode()) > INTERFACE_NAME_LIMIT - _NUMBER_DIGITS:
        raise InvalidRequest(
            f"invalid interface prefix {text!r}", hint=f"at most {INTERFACE_NAME_LIMIT - _NUMBER_DIGITS} bytes"
        )
    return parse_interface_name(text)


def _parse_boolean(name: str, text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise InvalidRequest(f"invalid value for option {name}: {text!r}", hint="true or false")
    return _BOOLEANS[text.lower()]


def _parse_choice(name: str, text: str, choices: Iterable[str]) -> str:
    if text not in choices:
        raise InvalidRequest(f"invalid value for option {name}: {text!r}", hint=" or ".join(choices))
    return text


def parse_subnets(
    request: NewNetwork, scope: Scope, *, gateways: Mapping[str, str] | None = None
) -> tuple[Subnet, ...]:
    """Return the subnets asked for, each with its gateway, range and auxiliary addresses; Docker's words for errors.

    ``gateways`` are those of the subnets, as written, instead of what the request says.
    """
    if len(request.gateways) > len(request.subnets) or len(request.ip_ranges) > len(request.subnets):
        raise InvalidRequest("every ip-range or gateway must have a corresponding subnet", hint="add --subnet")
    gateways = match_gateways(request) if gateways is None else gateways
    ranges = _match_ranges(request)
    auxiliary: dict[str, dict[str, str]] = {}
    for name, text in request.aux_addresses.items():
        auxiliary.setdefault(_subnet_with(text, request.subnets, what="aux-address"), {})[name] = text
    return tuple(
        parse_subnet(
            text,
            scope=scope,
            gateway=gateways.get(text),
            block_length=request.host_prefix,
            ip_range=ranges.get(text),
            auxiliary=auxiliary.get(text),
        )
        for text in request.subnets
    )


def check_families(request: NewNetwork, subnets: Iterable[Subnet]) -> None:
    """Refuse a network without any family, in Docker's words, and an IPv4 subnet where IPv4 is not wanted."""
    if request.ipv4 is not False:
        return
    versions = {subnet.prefix.version for subnet in subnets}
    if 4 in versions:
        raise InvalidRequest("conflicting options: IPv4 subnet and --ipv4=false", hint="leave out one of them")
    if not request.ipv6 and 6 not in versions:
        raise InvalidRequest("IPv4 or IPv6 must be enabled", hint="add --ipv6, or leave out --ipv4=false")


def match_gateways(request: NewNetwork) -> dict[str, str]:
    """Return which gateway goes to which subnet: by position within their family."""
    matched: dict[str, str] = {}
    for gateway in request.gateways:
        same_family = [s for s in request.subnets if (":" in s) == (":" in gateway)]
        free = [s for s in same_family if s not in matched]
        if not same_family:
            raise InvalidRequest(f"no matching subnet for gateway {gateway}", hint="give a --subnet of its family")
        if not free:
            subnet = same_family[-1]
            raise InvalidRequest(
                f"cannot configure multiple gateways ({matched[subnet]}, {gateway}) for the same subnet ({subnet})"
            )
        matched[free[0]] = gateway
    return matched


def _match_ranges(request: NewNetwork) -> dict[str, str]:
    matched: dict[str, str] = {}
    for text in request.ip_ranges:
        subnet = _subnet_with(text, request.subnets, what="range")
        if subnet in matched:
            raise InvalidRequest(
                f"cannot configure multiple ranges ({matched[subnet]}, {text}) on the same subnet ({subnet})"
            )
        matched[subnet] = text
    return matched


def _subnet_with(text: str, subnets: Iterable[str], *, what: str) -> str:
    """Return the subnet that an address, or the beginning of a range, lies in."""
    try:
        address = parse_address(text.partition("/")[0])
    except NetagentError:
        hint = "NAME=IP" if what == "aux-address" else "for example 10.5.0.0/28"
        raise InvalidRequest(f"invalid {what.replace('range', 'ip-range')} {text!r}", hint=hint) from None
    for subnet in subnets:
        prefix = parse_prefix(subnet)
        if address.version == prefix.version and address in prefix:
            return subnet
    raise InvalidRequest(f"no matching subnet for {what} {text}", hint="give the --subnet it lies in")
