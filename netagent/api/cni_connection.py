"""How a runtime wants a container connected: capabilities, ``args``, and the pairs of CNI_ARGS."""

import hashlib
import ipaddress
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

from netagent.api.cni_config import Bandwidth, Configuration, IpRange, PortMap, RuntimeConfig
from netagent.api.cni_error import CniCode, CniError
from netagent.errors import InvalidRequest
from netagent.model.address import parse_address, parse_mac, parse_prefix
from netagent.model.ids import NAME_LIMIT, parse_alias, parse_name, short
from netagent.model.port_grammar import parse_publish, parse_published
from netagent.model.rate import Rate
from netagent.services.requests import AddressRange, Connection

_HEX_ID = re.compile(r"[0-9a-f]{12,}")
_SCOPED_HEX_ID = re.compile(r"(?:.+-)?([0-9a-f]{64})", re.DOTALL)
"""nerdctl puts containerd's namespace before its ids."""


def parse_arguments(text: str) -> dict[str, str]:
    """Return the pairs of CNI_ARGS. Unknown keys are no error: runtimes describe the pod in them."""
    pairs: dict[str, str] = {}
    for pair in text.split(";") if text else ():
        key, equals, value = pair.partition("=")
        if not equals or "=" in value:
            raise CniError(CniCode.INVALID_ENVIRONMENT, f"invalid CNI_ARGS pair {pair!r}", "use KEY=VALUE;KEY=VALUE")
        pairs[key] = value
    return pairs


def container_name(container_id: str, arguments: Mapping[str, str]) -> str:
    """Return the name under which a runtime's container is shown.

    Its id, or ``<pod>_<namespace>_<12 digits>`` if the runtime tells the pod: pods of one name exist in several
    namespaces, and a pod's next sandbox comes before its last one is gone. A pod's name is
    a tenant's choice; one that could not be ours is left out.
    """
    hexadecimal = _HEX_ID.fullmatch(container_id)
    digits = short(container_id if hexadecimal else hashlib.sha256(container_id.encode()).hexdigest())
    pod = "_".join(filter(None, (arguments.get("K8S_POD_NAME"), arguments.get("K8S_POD_NAMESPACE"))))
    if arguments.get("K8S_POD_NAME"):
        try:
            return parse_name(f"{pod[: NAME_LIMIT - 13]}_{digits}", what="container")
        except InvalidRequest:
            pass
    return container_id if len(container_id) <= NAME_LIMIT else digits


def runtime_names(container_id: str, arguments: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names by which its runtime knows a container, for DNS: those of them that are usable there.

    Podman tells a container's name as that of a pod without a namespace. A pod with one is ``<pod>.<namespace>``: its
    bare name would be any tenant's to take. nerdctl tells the host name. Ids are shortened as runtimes show them.
    """
    pod, namespace = arguments.get("K8S_POD_NAME", ""), arguments.get("K8S_POD_NAMESPACE", "")
    candidates = [f"{pod}.{namespace}" if pod and namespace else pod, arguments.get("NERDCTL_CNI_DHCP_HOSTNAME", "")]
    if scoped := _SCOPED_HEX_ID.fullmatch(container_id):
        candidates.append(short(scoped[1]))
    names = []
    for candidate in filter(None, candidates):
        with suppress(InvalidRequest):
            names.append(parse_name(candidate, what="name"))
    return tuple(dict.fromkeys(names))


def parse_connection(configuration: Configuration, arguments: Mapping[str, str]) -> Connection:
    """Return how the container is to be connected; what the runtime sets goes before what the configuration says."""
    runtime = configuration.runtime_config or RuntimeConfig()
    conventional = configuration.args.cni if configuration.args else None
    given = arguments.get("IP", "")
    ips = runtime.ips or (conventional and conventional.ips) or (given.split(",") if given else [])
    mac = runtime.mac or (conventional and conventional.mac) or arguments.get("MAC") or ""
    aliases = runtime.aliases or []
    if isinstance(aliases, dict):
        aliases = aliases.get(configuration.name) or []
    bandwidth = runtime.bandwidth or Bandwidth()
    return Connection(
        networks=(configuration.network,),
        addresses=tuple(_parse_ip(text) for text in ips),
        mac=parse_mac(mac) if mac else "",
        aliases=tuple(parse_alias(alias) for alias in aliases),
        publish=_parse_ports(runtime.port_mappings or []),
        rate_in=_parse_rate(bandwidth.ingress_rate, bandwidth.ingress_burst),
        rate_out=_parse_rate(bandwidth.egress_rate, bandwidth.egress_burst),
        ranges=_parse_ranges(runtime.ip_ranges or []),
    )


def _parse_ip(text: str) -> str:
    """Return the address of ``192.0.2.1`` or ``192.0.2.1/24``; how long its prefix is, the network says."""
    address, slash, _ = text.partition("/")
    if slash:
        try:
            ipaddress.ip_interface(text)
        except ValueError:
            raise InvalidRequest(f"invalid IP address: {text}") from None
    return str(parse_address(address))


def _parse_rate(rate_bits: int, burst_bits: int) -> str | Rate:
    return Rate(bits=rate_bits, burst=burst_bits // 8 or None) if rate_bits else ""


def _parse_ranges(sets: list[list[IpRange]]) -> tuple[AddressRange, ...]:
    """Return the ranges of all sets: each set asks for one address, and a container has one a family."""
    versions: list[int] = []
    ranges: list[AddressRange] = []
    for entries in sets:
        families = set()
        for entry in entries:
            prefix = parse_prefix(entry.subnet)
            families.add(prefix.version)
            ranges.append(
                AddressRange(
                    first=entry.range_start or str(prefix.network_address),
                    last=entry.range_end or str(prefix.broadcast_address),
                    gateway=entry.gateway,
                )
            )
        if len(families) > 1:
            raise InvalidRequest("a set of ipRanges mixes IPv4 and IPv6", hint="give a set for each")
        versions += families
    if len(set(versions)) < len(versions):
        raise InvalidRequest("ipRanges ask for several addresses of one family", hint="give one set for each")
    return tuple(ranges)


def _parse_ports(entries: list[PortMap]) -> tuple[str, ...]:
    """Return the texts of ``-p`` for the capability ``portMappings``."""
    texts = tuple(map(_publish_text, entries))
    for entry, text in zip(entries, texts, strict=True):
        (mapping,) = parse_publish(text)
        if mapping.host_port == 0:
            raise InvalidRequest(f"invalid hostPort: {entry.host_port}", hint="ports are 1 to 65535")
    twice = next((text for text, count in Counter(texts).items() if count > 1), None)
    if twice is not None:
        raise InvalidRequest(f"host port is mapped twice: {twice}")
    parse_published(texts)
    return texts


def _publish_text(entry: PortMap) -> str:
    address = parse_address(entry.host_ip, what="hostIP") if entry.host_ip else None
    where = ""
    if address is not None and not address.is_unspecified:
        where = f"[{address}]:" if address.version == 6 else f"{address}:"
    return f"{where}{entry.host_port}:{entry.container_port}/{(entry.protocol or 'tcp').lower()}"
