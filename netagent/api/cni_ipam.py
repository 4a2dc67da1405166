"""Address management by another plugin: what it is handed, and what its results and errors mean."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from netagent.api.cni_config import ResultDns
from netagent.api.cni_error import CniCode, CniError
from netagent.model.container import Delegation
from netagent.runtime.delegate import call_delegate

OWN = "netagent"
"""The ``ipam.type`` that means us, as no ``ipam`` does."""


class IpamRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One route of a result."""

    dst: str
    gw: str = ""


class IpamAddress(msgspec.Struct, frozen=True, kw_only=True):
    """One address of a result: ``address`` since 0.3.0; before that ``ip``, and with its family's ``routes``."""

    address: str = ""
    ip: str = ""
    gateway: str = ""
    routes: list[IpamRoute] | None = None

    @property
    def is_ipv6(self) -> bool:
        """Its family."""
        return ":" in (self.address or self.ip)


class IpamResult(msgspec.Struct, frozen=True, kw_only=True):
    """What we use of an IPAM plugin's result, in whatever version it is."""

    ips: list[IpamAddress] | None = None
    ip4: IpamAddress | None = None
    ip6: IpamAddress | None = None
    routes: list[IpamRoute] | None = None
    dns: ResultDns | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses, without their prefix lengths."""
        return tuple((given.address or given.ip).partition("/")[0] for given in self._given)

    @property
    def next_hops(self) -> tuple[tuple[str, str], ...]:
        """Destination and gateway of each route; a gateway alone stands for a default route.

        A route without a gateway goes by its family's, '' if that has none.
        """
        gateways: dict[bool, str] = {}
        for given in self._given:
            if given.gateway:
                gateways.setdefault(given.is_ipv6, given.gateway)
        routes = [*(self.routes or ()), *(route for given in self._given for route in given.routes or ())]
        pairs = [(route.dst, route.gw or gateways.get(":" in route.dst, "")) for route in routes]
        routed = {":" in destination for destination, _ in pairs}
        alone = [("::/0" if is_v6 else "0.0.0.0/0", gw) for is_v6, gw in gateways.items() if is_v6 not in routed]
        return tuple(pairs + alone)

    @property
    def _given(self) -> list[IpamAddress]:
        return [*(self.ips or ()), *(given for given in (self.ip4, self.ip6) if given is not None)]


def parse_ipam(document: Mapping[str, Any], variables: Mapping[str, str], text: bytes) -> Delegation | None:
    """Return who manages the addresses of a configuration, or None if we do."""
    ipam = document.get("ipam") or {}
    plugin = ipam.get("type") if isinstance(ipam, dict) else ipam
    if plugin in (None, "", OWN):
        return None
    if not isinstance(plugin, str) or "/" in plugin or plugin in (".", "..") or not plugin.isprintable():
        raise CniError(CniCode.INVALID_CONFIGURATION, f"invalid ipam type {plugin!r}", "give the name of a plugin")
    path = variables.get("CNI_PATH", "")
    if not path:
        raise CniError(
            CniCode.INVALID_ENVIRONMENT,
            "required environment variables are missing: CNI_PATH",
            f"it says where the IPAM plugin {plugin} is",
        )
    return Delegation(
        plugin=plugin,
        path=path,
        variables=tuple(sorted((key, value) for key, value in variables.items() if key.startswith("CNI_"))),
        configuration=text.decode(),
    )


async def ask_ipam(delegation: Delegation, command: str, complaints: list[bytes]) -> bytes:
    """Return what the IPAM plugin prints for ``command``; what it wrote to standard error goes to ``complaints``.

    Its error is raised as it is.
    """
    outcome = await call_delegate(delegation, command)
    complaints.append(outcome.complaint)
    if not outcome.status:
        return outcome.output
    try:
        told = json.loads(outcome.output)
        code, msg, details = int(told["code"]), str(told["msg"]), str(told.get("details", ""))
    except (ValueError, KeyError, TypeError):
        words = outcome.complaint.decode(errors="replace").strip().rpartition("\n")[2]
        code, msg, details = CniCode.INTERNAL, f"it ended with status {outcome.status}", words
    raise CniError(code, f"IPAM plugin {delegation.plugin}: {msg}", details)


def parse_ipam_result(plugin: str, output: bytes) -> IpamResult:
    """Return the result of an IPAM plugin's ADD; one without an address is an error."""
    try:
        result = msgspec.json.decode(output, type=IpamResult)
    except msgspec.DecodeError as error:
        raise CniError(CniCode.INTERNAL, f"the result of IPAM plugin {plugin} cannot be read: {error}") from None
    if not result.addresses:
        raise CniError(CniCode.INVALID_CONFIGURATION, f"IPAM plugin {plugin} gave no address", "see its configuration")
    return result
