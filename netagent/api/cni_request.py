r"""What a runtime asks of the plugin: the environment and the configuration, parsed into requests to the services.

The wire between plugin and agent is one request a connection: u32 big-endian length, then the ``CNI_*`` variables as
``KEY=VALUE\0``, an empty ``\0``, and standard input as it was. The answer: u32 length of the output, u32 with the exit
status in its lowest byte and above it the length of what goes to standard error, the output, and the latter.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import msgspec

from netagent.api.cni_config import (
    VERSIONS,
    Configuration,
    ResultDns,
    ValidAttachment,
    decode_document,
    parse_configuration,
    parse_network_name,
    parse_version,
    require_version,
)
from netagent.api.cni_connection import container_name, parse_arguments, parse_connection, runtime_names
from netagent.api.cni_error import CniCode, CniError
from netagent.api.cni_ipam import parse_ipam
from netagent.errors import InvalidRequest, NetagentError
from netagent.model.container import ContainerKind, Delegation
from netagent.model.ids import parse_interface_name
from netagent.services.requests import Attachment

REQUEST_LIMIT = 16 << 20
"""Bytes of a request."""

COMPLAINT_LIMIT = 1 << 16
"""Bytes for standard error."""

LENGTH = struct.Struct(">I")

REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"),
    "CHECK": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "GC": (),
    "STATUS": (),
}
"""The commands, with the variables that each needs. The plugin answers VERSION itself."""

FIRST_VERSIONS = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
"""The version of the specification from which on a command exists, where it is not the first."""

VALID_ATTACHMENTS = ("cni.dev/valid-attachments", "cni.dev/attachments")
"""The list that comes with GC; the second name is that of drafts, and libcni sends both."""

CONTAINER_ID_LIMIT = 256

_CONTAINER_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
"""As in libcni, pkg/utils/utils.go, ``validContainerNetworkRegex``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    """ADD: ``network`` names the network as the configuration does; ``previous`` is the result of the chain so far.

    ``resolver`` replaces what the result says of DNS; ``masquerade`` is what the network's setting must be, if given.
    """

    version: str
    network: str
    attachment: Attachment
    previous: Mapping[str, Any] | None = None
    resolver: ResultDns | None = None
    masquerade: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """DEL. The namespace is not asked for: it may be gone, or be another one by now.

    ``name`` is the configuration's, ``network`` what it calls one of ours.
    """

    container_id: str
    interface: str
    name: str
    network: str
    ipam: Delegation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """CHECK: what ADD made, as ``previous`` tells it with what later plugins of the chain changed."""

    container_id: str
    interface: str
    netns: str
    network: str
    previous: Mapping[str, Any]
    ipam: Delegation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """STATUS: can ``network`` take containers?"""

    network: str
    ipam: Delegation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Collect:
    """GC: of what the configuration ``name`` made, only ``valid`` is in use: container ids and interfaces."""

    name: str
    valid: frozenset[tuple[str, str]]
    ipam: Delegation | None = None


Request: TypeAlias = Add | Delete | Check | Status | Collect


def encode_answer(status: int, output: bytes, complaint: bytes = b"") -> bytes:
    """Return an answer as it goes over the wire; ``complaint`` is for standard error."""
    complaint = complaint[:COMPLAINT_LIMIT]
    return LENGTH.pack(len(output)) + LENGTH.pack(len(complaint) << 8 | status) + output + complaint


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


def parse_request(request: bytes) -> Request:
    """Return what a request asks for, or raise CniError."""
    variables, text = split_request(request)
    command = variables.get("CNI_COMMAND", "")
    if command not in REQUIRED:
        raise CniError(
            CniCode.INVALID_ENVIRONMENT,
            f"CNI_COMMAND {command!r} is not supported",
            f"netagent knows {', '.join(REQUIRED)}, VERSION",
        )
    missing = [key for key in REQUIRED[command] if not variables.get(key)]
    if missing:
        raise CniError(CniCode.INVALID_ENVIRONMENT, f"required environment variables are missing: {', '.join(missing)}")
    container_id = _parse_container_id(variables["CNI_CONTAINERID"]) if REQUIRED[command] else ""
    interface = _parse_interface(variables["CNI_IFNAME"]) if REQUIRED[command] else ""
    match command:
        case "ADD":
            return _parse_add(variables, container_id, interface, text)
        case "DEL":
            return _parse_delete(variables, container_id, interface, text)
    configuration = parse_configuration(text)
    require_version(configuration.cni_version, FIRST_VERSIONS[command], command)
    document = decode_document(text)
    ipam = parse_ipam(document, variables, text)
    match command:
        case "CHECK":
            return replace(_parse_check(variables, container_id, interface, configuration), ipam=ipam)
        case "STATUS":
            return Status(network=configuration.network, ipam=ipam)
    return Collect(name=configuration.name, valid=_parse_valid(document), ipam=ipam)


def _parse_delete(variables: Mapping[str, str], container_id: str, interface: str, text: bytes) -> Delete:
    """Return a DEL, reading no more than it needs: what ADD refused for the rest can be deleted all the same."""
    document = decode_document(text)
    parse_version(document)
    name = parse_network_name(document)
    own = document.get("netagent")
    network = own.get("network") if isinstance(own, dict) else None
    return Delete(
        container_id=container_id,
        interface=interface,
        name=name,
        network=network if network and isinstance(network, str) else name,
        ipam=parse_ipam(document, variables, text),
    )


def _parse_check(
    variables: Mapping[str, str], container_id: str, interface: str, configuration: Configuration
) -> Check:
    if configuration.prev_result is None:
        raise CniError(CniCode.INVALID_CONFIGURATION, "CHECK needs the prevResult of ADD", "the runtime hands it in")
    return Check(
        container_id=container_id,
        interface=interface,
        netns=_parse_netns(variables["CNI_NETNS"]),
        network=configuration.network,
        previous=configuration.prev_result,
    )


def _parse_valid(document: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """Return the attachments that GC is to leave; an empty list comes as ``null`` from Go.

    No list at all is no empty one: somebody calls the plugin by hand, and would lose everything.
    """
    key = next((key for key in VALID_ATTACHMENTS if key in document), None)
    if key is None:
        raise CniError(
            CniCode.INVALID_CONFIGURATION,
            f"GC needs {VALID_ATTACHMENTS[0]}: the attachments that are in use",
            "an empty list collects all",
        )
    try:
        listed = msgspec.convert(document[key] or [], list[ValidAttachment])
    except msgspec.ValidationError as error:
        raise CniError(CniCode.INVALID_CONFIGURATION, f"invalid {key}: {error}") from None
    return frozenset((entry.container_id, entry.interface) for entry in listed)


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
        connection = parse_connection(configuration, arguments)
    except NetagentError as error:
        raise CniError(CniCode.INVALID_CONFIGURATION, error.message, error.hint) from None
    attachment = Attachment(
        name=container_name(container_id, arguments),
        netns=netns,
        connection=connection,
        interface=interface,
        kind=ContainerKind.CNI,
        container_id=container_id,
        configuration=configuration.name,
        ipam=parse_ipam(decode_document(text), variables, text),
        names=runtime_names(container_id, arguments),
    )
    return Add(
        version=configuration.cni_version,
        network=configuration.network,
        attachment=attachment,
        previous=configuration.prev_result,
        resolver=configuration.resolver,
        masquerade=configuration.ip_masq,
    )
