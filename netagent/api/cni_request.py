r"""What a runtime asks of the plugin: the environment and the configuration, parsed into requests to the services.

The wire between plugin and agent is one request a connection: u32 big-endian length, then the ``CNI_*`` variables as
``KEY=VALUE\0``, an empty ``\0``, and standard input as it was. The answer: u32 length of the output, u32 exit status,
the output.
"""

import hashlib
import ipaddress
import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from netagent.api.cni_config import (
    VERSIONS,
    Configuration,
    PortMap,
    RuntimeConfig,
    decode_document,
    parse_configuration,
    parse_network_name,
    parse_version,
)
from netagent.api.cni_error import CniCode, CniError
from netagent.errors import InvalidRequest, NetagentError
from netagent.model.address import parse_address, parse_mac
from netagent.model.container import ContainerKind
from netagent.model.ids import NAME_LIMIT, parse_alias, parse_interface_name, parse_name, short
from netagent.model.port_grammar import parse_publish, parse_published
from netagent.services.requests import Attachment, Connection

REQUEST_LIMIT = 16 << 20
"""Bytes of a request."""

LENGTH = struct.Struct(">I")

VERBS = ("ADD", "DEL", "VERSION")
"""The plugin answers VERSION itself."""

CONTAINER_ID_LIMIT = 256

_CONTAINER_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
"""As in libcni, pkg/utils/utils.go, ``validContainerNetworkRegex``."""

_HEX_ID = re.compile(r"[0-9a-f]{12,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    """ADD: ``network`` names the network as the configuration does; ``previous`` is the result of the chain so far."""

    version: str
    network: str
    attachment: Attachment
    previous: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """DEL. The namespace is not asked for: it may be gone, or be another one by now."""

    container_id: str
    interface: str
    network: str


def encode_answer(status: int, output: bytes) -> bytes:
    """Return an answer as it goes over the wire."""
    return LENGTH.pack(len(output)) + LENGTH.pack(status) + output


def split_request(request: bytes) -> tuple[dict[str, str], bytes]:
    """Return the variables and the standard input of a request."""
    variables: dict[str, str] = {}
    start = 0
    while (end := request.find(b"\0", start)) > start:
        key, _, value = request[start:end].decode(errors="surrogateescape").partition("=")
        variables[key] = value
        start = end + 1
    if end < 0:
        raise CniError(CniCode.IO_FAILURE, "the request of the netagent plugin is cut short")
    return variables, request[end + 1 :]


def version_for_error(text: bytes) -> str:
    """Return the version in which an error about the configuration ``text`` is told."""
    try:
        return parse_version(decode_document(text))
    except CniError:
        return VERSIONS[-1]


def parse_request(request: bytes) -> Add | Delete:
    """Return what a request asks for, or raise CniError."""
    variables, text = split_request(request)
    command = variables.get("CNI_COMMAND", "")
    if command not in VERBS or command == "VERSION":
        raise CniError(
            CniCode.INVALID_ENVIRONMENT,
            f"CNI_COMMAND {command!r} is not supported",
            f"this version of netagent knows {', '.join(VERBS)}",
        )
    required = ["CNI_CONTAINERID", "CNI_IFNAME"] + ["CNI_NETNS"] * (command == "ADD")
    missing = sorted(key for key in required if not variables.get(key))
    if missing:
        raise CniError(CniCode.INVALID_ENVIRONMENT, f"required environment variables are missing: {', '.join(missing)}")
    container_id = _parse_container_id(variables["CNI_CONTAINERID"])
    interface = _parse_interface(variables["CNI_IFNAME"])
    if command == "ADD":
        return _parse_add(variables, container_id, interface, text)
    # No more than DEL needs: what ADD refused for the rest of its configuration is deleted by the same one.
    document = decode_document(text)
    parse_version(document)
    name = parse_network_name(document)
    own = document.get("netagent")
    network = own.get("network") if isinstance(own, dict) else None
    return Delete(
        container_id=container_id,
        interface=interface,
        network=network if network and isinstance(network, str) else name,
    )


def _parse_container_id(text: str) -> str:
    if not _CONTAINER_ID.fullmatch(text) or len(text) > CONTAINER_ID_LIMIT:
        raise CniError(
            CniCode.INVALID_ENVIRONMENT,
            f"invalid CNI_CONTAINERID {text[:CONTAINER_ID_LIMIT]!r}",
            f"use up to {CONTAINER_ID_LIMIT} of [a-zA-Z0-9_.-], starting with a letter or digit",
        )
    return text


def _parse_interface(text: str) -> str:
    try:
        return parse_interface_name(text)
    except (InvalidRequest, UnicodeError):
        raise CniError(
            CniCode.INVALID_ENVIRONMENT,
            f"invalid CNI_IFNAME {text!r}",
            "use 1 to 15 bytes without '/', ':' or white space",
        ) from None


def _parse_netns(text: str) -> str:
    if not text.startswith("/") or not text.isprintable() or len(text) > 4095:
        raise CniError(CniCode.INVALID_ENVIRONMENT, f"invalid CNI_NETNS {text!r}", "give an absolute path")
    return text


def _parse_add(variables: Mapping[str, str], container_id: str, interface: str, text: bytes) -> Add:
    netns = _parse_netns(variables["CNI_NETNS"])
    arguments = parse_arguments(variables.get("CNI_ARGS", ""))
    configuration = parse_configuration(text)
    try:
        connection = _connection(configuration, arguments)
    except NetagentError as error:
        raise CniError(CniCode.INVALID_CONFIGURATION, error.message, error.hint) from None
    attachment = Attachment(
        name=container_name(container_id, arguments),
        netns=netns,
        connection=connection,
        interface=interface,
        kind=ContainerKind.CNI,
        container_id=container_id,
    )
    return Add(
        version=configuration.cni_version,
        network=configuration.network,
        attachment=attachment,
        previous=configuration.prev_result,
    )


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


def _connection(configuration: Configuration, arguments: Mapping[str, str]) -> Connection:
    """Return how the container is to be connected; what the runtime sets goes before what the configuration says."""
    runtime = configuration.runtime_config or RuntimeConfig()
    conventional = configuration.args.cni if configuration.args else None
    given = arguments.get("IP", "")
    ips = runtime.ips or (conventional and conventional.ips) or (given.split(",") if given else [])
    mac = runtime.mac or (conventional and conventional.mac) or arguments.get("MAC") or ""
    aliases = runtime.aliases or []
    if isinstance(aliases, dict):
        aliases = aliases.get(configuration.name) or []
    return Connection(
        networks=(configuration.network,),
        addresses=tuple(_parse_ip(text) for text in ips),
        mac=parse_mac(mac) if mac else "",
        aliases=tuple(parse_alias(alias) for alias in aliases),
        publish=_parse_ports(runtime.port_mappings or []),
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
