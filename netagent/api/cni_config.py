"""The network configuration on a plugin's standard input: JSON from whoever configures or drives the runtime.

Keys that we do not know are accepted, since runtimes add some (``type``, ``capabilities``, ``cni.dev/…``); in the
object ``netagent``, which is ours, they are refused, so that a misspelt option does not go unnoticed.
"""

import json
import re
from typing import Any, Never

import msgspec

from netagent.api.cni_error import CniCode, CniError

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

_VERSION = re.compile(r"\d{1,9}(\.\d{1,9}){0,2}", re.ASCII)
_NETWORK_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
"""As in libcni, pkg/utils/utils.go, ``validContainerNetworkRegex``."""


class PortMap(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the capability ``portMappings``."""

    host_port: int = msgspec.field(name="hostPort")
    container_port: int = msgspec.field(name="containerPort")
    protocol: str | None = None
    host_ip: str | None = msgspec.field(name="hostIP", default=None)


class Bandwidth(msgspec.Struct, frozen=True, kw_only=True):
    """The capability ``bandwidth``: bits a second and bits; ingress is what goes to the container. 0 is no limit."""

    ingress_rate: int = msgspec.field(name="ingressRate", default=0)
    ingress_burst: int = msgspec.field(name="ingressBurst", default=0)
    egress_rate: int = msgspec.field(name="egressRate", default=0)
    egress_burst: int = msgspec.field(name="egressBurst", default=0)


class Resolver(msgspec.Struct, frozen=True, kw_only=True):
    """The capability ``dns``, whose keys are not those of a result."""

    servers: list[str] | None = None
    searches: list[str] | None = None
    options: list[str] | None = None


class IpRange(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the capability ``ipRanges``."""

    subnet: str
    range_start: str = msgspec.field(name="rangeStart", default="")
    range_end: str = msgspec.field(name="rangeEnd", default="")
    gateway: str = ""


_FOLDED: dict[str, type[msgspec.Struct]] = {
    "portMappings": PortMap,
    "bandwidth": Bandwidth,
    "dns": Resolver,
    "ipRanges": IpRange,
}
"""Capabilities whose keys containerd writes as its Go fields are called, ``HostPort`` (go-cni, opts.go and types.go).

Plugins in Go do not notice, as their decoder looks at no case.
"""


class RuntimeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The values of the capabilities that we use. Podman sends ``aliases`` as a map from the network's name."""

    port_mappings: list[PortMap] | None = msgspec.field(name="portMappings", default=None)
    ips: list[str] | None = None
    mac: str | None = None
    aliases: list[str] | dict[str, list[str] | None] | None = None
    bandwidth: Bandwidth | None = None
    dns: Resolver | None = None
    ip_ranges: list[list[IpRange]] | None = msgspec.field(name="ipRanges", default=None)


class ConventionalArguments(msgspec.Struct, frozen=True, kw_only=True):
    """``args.cni`` of the CNI conventions."""

    ips: list[str] | None = None
    mac: str | None = None


class Arguments(msgspec.Struct, frozen=True, kw_only=True):
    """``args`` of a configuration."""

    cni: ConventionalArguments | None = None


class ValidAttachment(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of GC's list."""

    container_id: str = msgspec.field(name="containerID")
    interface: str = msgspec.field(name="ifname")


class ResultDns(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``dns`` as configurations and results have it."""

    nameservers: list[str] | None = None
    domain: str | None = None
    search: list[str] | None = None
    options: list[str] | None = None


class OwnOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The object ``netagent`` of a configuration: ``network`` names one of ours, else the configuration's name does."""

    network: str | None = None


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """A network configuration as a plugin gets it, with the types checked."""

    cni_version: str = msgspec.field(name="cniVersion")
    name: str
    netagent: OwnOptions = OwnOptions()
    runtime_config: RuntimeConfig | None = msgspec.field(name="runtimeConfig", default=None)
    args: Arguments | None = None
    dns: ResultDns | None = None
    ip_masq: bool | None = msgspec.field(name="ipMasq", default=None)
    prev_result: dict[str, Any] | None = msgspec.field(name="prevResult", default=None)

    @property
    def network(self) -> str:
        """The name of our network that is meant."""
        return self.netagent.network or self.name

    @property
    def resolver(self) -> ResultDns | None:
        """What the result is to say of DNS: as the runtime wants it, else as the configuration does."""
        asked = self.runtime_config.dns if self.runtime_config else None
        if asked is not None and asked != Resolver():
            return ResultDns(
                nameservers=asked.servers or None, search=asked.searches or None, options=asked.options or None
            )
        return self.dns if self.dns != ResultDns() else None


def decode_document(text: bytes) -> dict[str, Any]:
    """Return the JSON object in ``text``. What two parsers may read differently is refused, as a key given twice."""
    try:
        document = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
        msgspec.json.encode(document)  # fails on halves of surrogate pairs, which could not be answered
    except RecursionError:
        raise CniError(CniCode.DECODE_FAILURE, "cannot decode the network configuration: nested too deep") from None
    except ValueError as error:  # UnicodeError and json.JSONDecodeError are kinds of it
        raise CniError(CniCode.DECODE_FAILURE, f"cannot decode the network configuration: {error}") from None
    if not isinstance(document, dict):
        raise CniError(CniCode.DECODE_FAILURE, "cannot decode the network configuration: it is not a JSON object")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return unique


def _refuse_constant(text: str) -> Never:
    raise ValueError(f"{text} is no JSON value")


def parse_version(document: dict[str, Any]) -> str:
    """Return the version of a configuration; one without any is of the first (as libcni's decoder has it)."""
    version = document.get("cniVersion")
    if version is None or version == "":
        return VERSIONS[0]
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise CniError(CniCode.DECODE_FAILURE, f"cannot decode the network configuration: bad cniVersion {version!r}")
    if version not in VERSIONS:
        supported = ", ".join(f'"{known}"' for known in VERSIONS)
        raise CniError(
            CniCode.INCOMPATIBLE_VERSION,
            f'incompatible CNI versions: config is "{version}"',
            f'config is "{version}", plugin supports [{supported}]',
        )
    return version


def require_version(version: str, least: str, command: str) -> None:
    """Refuse ``command`` for a configuration of a version that does not know it yet."""
    if VERSIONS.index(version) < VERSIONS.index(least):
        raise CniError(
            CniCode.INCOMPATIBLE_VERSION,
            f"{command} is not in version {version} of the CNI specification",
            f"set cniVersion to {least} or later in the network configuration",
        )


def parse_network_name(document: dict[str, Any]) -> str:
    """Return the ``name`` of a configuration."""
    name = document.get("name")
    if not name:
        raise CniError(CniCode.INVALID_CONFIGURATION, "the network configuration has no name")
    if not isinstance(name, str) or not _NETWORK_NAME.fullmatch(name):
        raise CniError(
            CniCode.INVALID_CONFIGURATION,
            f"invalid network name {name!r}",
            "use [a-zA-Z0-9_.-], starting with a letter or digit",
        )
    return name


def parse_configuration(text: bytes) -> Configuration:
    """Return the checked configuration in ``text``, or raise CniError with the code that the specification names."""
    document = decode_document(text)
    parse_version(document)
    parse_network_name(document)
    own = document.get("netagent")
    if isinstance(own, dict):
        _refuse_unknown(own)
    present = {key: value for key, value in document.items() if value is not None}
    present["cniVersion"] = parse_version(document)
    runtime = present.get("runtimeConfig")
    if isinstance(runtime, dict):
        present["runtimeConfig"] = {
            key: _fold(value, _FOLDED[key]) if key in _FOLDED else value for key, value in runtime.items()
        }
    try:
        return msgspec.convert(present, Configuration)
    except msgspec.ValidationError as error:
        raise CniError(CniCode.INVALID_CONFIGURATION, f"invalid network configuration: {error}") from None


def _fold(value: Any, of: type[msgspec.Struct], lists: int = 2) -> Any:
    """Return ``value`` with the keys of its objects, in at most that many lists, spelled as ``of`` has them."""
    if isinstance(value, list) and lists:
        return [_fold(entry, of, lists - 1) for entry in value]
    if not isinstance(value, dict):
        return value
    spelled = {name.lower(): name for name in of.__struct_encode_fields__}
    folded = {spelled.get(key.lower(), key): entry for key, entry in value.items()}
    if len(folded) < len(value):
        raise CniError(
            CniCode.INVALID_CONFIGURATION, f"invalid network configuration: a key is given twice: {', '.join(value)}"
        )
    return folded


def _refuse_unknown(own: dict[str, Any]) -> None:
    known = OwnOptions.__struct_fields__
    unknown = {key: value for key, value in own.items() if key not in known}
    if unknown:
        listed = ", ".join(f"{key}={msgspec.json.encode(value).decode()}" for key, value in unknown.items())
        raise CniError(
            CniCode.UNSUPPORTED_FIELD,
            f"unsupported field in the object netagent: {listed}",
            f"it takes: {', '.join(known)}",
        )
