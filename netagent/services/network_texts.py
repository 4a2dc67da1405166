"""The values of ``--network``: a name, or Docker's long form ``name=NET,ip=…,alias=…,mac-address=…,gw-priority=N``.

The options beside it (``--ip``, ``--mac-address``, ``--gw-priority``) mean the first network; given twice is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from netagent.errors import InvalidRequest
from netagent.model.network import DEFAULT_NETWORK
from netagent.services.requests import Connection

INTERFACE_OPTION = "com.docker.network.endpoint.ifname"
_LONGEST_PRIORITY = 11
_HIGHEST_PRIORITY = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkText:
    """One ``--network``, taken apart; nothing is known of the network yet."""

    name: str
    addresses: tuple[str, ...] = ()
    mac: str = ""
    aliases: tuple[str, ...] = ()
    gw_priority: int | None = None
    link_local: tuple[str, ...] = ()
    interface: str = ""


def split_networks(connection: Connection) -> tuple[NetworkText, ...]:
    """Return what is asked of each network, the options of the first included."""
    texts = tuple(_parse(text) for text in connection.networks or (DEFAULT_NETWORK,))
    first = texts[0]
    for given, there, option, what in (
        (connection.addresses, first.addresses, "--ip", "IP address"),
        (connection.mac, first.mac, "--mac-address", "MAC address"),
        (connection.aliases, first.aliases, "--network-alias", "alias"),
        (connection.link_local, first.link_local, "--link-local-ip", "link-local IP address"),
        (connection.gw_priority, first.gw_priority, "--gw-priority", "gateway priority"),
    ):
        if given and there:
            raise InvalidRequest(
                f"conflicting options: cannot specify both {option} and per-network {what}", hint=f"leave out {option}"
            )
    merged = replace(
        first,
        addresses=connection.addresses or first.addresses,
        mac=connection.mac or first.mac,
        link_local=connection.link_local or first.link_local,
        gw_priority=check_priority(connection.gw_priority) if connection.gw_priority else first.gw_priority,
    )
    return tuple(replace(text, aliases=(*connection.aliases, *text.aliases)) for text in (merged, *texts[1:]))


def names_of(texts: Sequence[NetworkText]) -> tuple[str, ...]:
    """Return the names of the networks that are asked for."""
    return tuple(text.name for text in texts)


def parse_driver_option(text: str) -> str:
    """Return the interface name that an endpoint's driver option gives; there is no other option."""
    key, _, value = text.partition("=")
    if key != INTERFACE_OPTION:
        raise InvalidRequest(f"unknown driver option {key}", hint=f"{INTERFACE_OPTION}=NAME is known")
    return value


def check_priority(value: int) -> int:
    """Return a gateway priority if it is in range."""
    if not -_HIGHEST_PRIORITY <= value <= _HIGHEST_PRIORITY:
        raise InvalidRequest(f"invalid gw-priority ({value}): value out of range")
    return value


def _parse(text: str) -> NetworkText:
    if "=" not in text:
        return NetworkText(name=text)
    parsed = NetworkText(name="")
    for field in text.split(","):
        key, has_value, value = field.partition("=")
        if not has_value or not key:
            raise InvalidRequest(f"invalid field {field} of --network {text}", hint="name=NETWORK,ip=ADDRESS,…")
        parsed = _with_field(parsed, key.lower(), value)
    if not parsed.name:
        raise InvalidRequest(f"network name/id is not specified: {text}", hint="name=NETWORK,ip=ADDRESS,…")
    return parsed


def _with_field(parsed: NetworkText, key: str, value: str) -> NetworkText:
    match key:
        case "name":
            return replace(parsed, name=value)
        case "alias":
            return replace(parsed, aliases=(*parsed.aliases, value))
        case "ip" | "ip6":
            return replace(parsed, addresses=(*parsed.addresses, value))
        case "link-local-ip":
            return replace(parsed, link_local=(*parsed.link_local, value))
        case "mac-address":
            return replace(parsed, mac=value)
        case "interface":
            return replace(parsed, interface=value)
        case "driver-opt":
            return replace(parsed, interface=parse_driver_option(value))
        case "gw-priority":
            if len(value) > _LONGEST_PRIORITY or not value.removeprefix("-").isdecimal() or not value.isascii():
                raise InvalidRequest(f"invalid gw-priority ({value}): it should be a whole number")
            return replace(parsed, gw_priority=check_priority(int(value)))
        case _:
            raise InvalidRequest(
                f"invalid field key {key}",
                hint="fields are name, alias, ip, ip6, link-local-ip, mac-address, interface, driver-opt, gw-priority",
            )
