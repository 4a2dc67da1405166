"""Results of ADD, in the shape of each version of the CNI specification.

They are made in the newest shape and converted down: 0.3.0 to 0.4.0 name the family of every address, and 0.1.0 and
0.2.0 know neither interfaces nor more than one address a family.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from netagent.api.cni_config import ResultDns
from netagent.api.cni_error import CniCode, CniError
from netagent.errors import InvalidRequest
from netagent.model.address import Mac, parse_mac
from netagent.model.endpoint import Endpoint
from netagent.model.ids import HostId
from netagent.model.network import Network, Subnet
from netagent.plan.names import bridge_mac, bridge_name, veth_mac, veth_name

Result: TypeAlias = dict[str, Any]


def render_result(endpoint: Endpoint, network: Network, host_id: HostId, sandbox: str) -> Result:
    """Return what an attachment consists of, as 1.0.0 and 1.1.0 say it; ``sandbox`` as the runtime wrote it."""
    addresses = [
        (given.address, subnet) for given in endpoint.addresses if (subnet := network.subnet_of(given.address))
    ]
    result: Result = {
        "interfaces": [
            {"name": bridge_name(network), **({} if network.bridge else {"mac": bridge_mac(network.id, host_id)})},
            {"name": veth_name(endpoint.id), "mac": veth_mac(endpoint.id)},
            {"name": endpoint.interface, "mac": endpoint.mac, "sandbox": sandbox},
        ],
        "ips": [
            {"interface": 2, "address": f"{address}/{subnet.prefix.prefixlen}", "gateway": _gateway(endpoint, subnet)}
            for address, subnet in addresses
        ],
    }
    result["dns"] = {"nameservers": list(dict.fromkeys(str(subnet.gateway) for _, subnet in addresses))}
    routes = [
        {"dst": str(route.destination), "gw": str(route.gateway)}
        for _, subnet in addresses
        for route in endpoint.routes_beyond(network, subnet)
    ]
    return result | ({"routes": routes} if routes else {})


def _gateway(endpoint: Endpoint, subnet: Subnet) -> str:
    """Return the gateway of a subnet's address: the one that was given for it, or the network's."""
    version = subnet.prefix.version
    given = [route for route in endpoint.given_routes if route.destination.version == version]
    return str(next((route for route in given if route.is_default), given[0]).gateway if given else subnet.gateway)


def convert_result(
    result: Result, version: str, previous: Mapping[str, Any] | None = None, resolver: ResultDns | None = None
) -> Result:
    """Return ``result`` in the shape of ``version``, added to what the plugins before us in a chain made.

    Fields of ``previous`` that we do not know are kept. ``resolver`` goes before what either says of DNS.
    """
    before = dict(previous or {})
    if resolver is not None:
        before["dns"] = msgspec.to_builtins(resolver)
    if version in ("0.1.0", "0.2.0"):
        return {"dns": result["dns"]} | before | {"cniVersion": version} | _families(result)
    if version in ("0.3.0", "0.3.1", "0.4.0"):
        result = result | {"ips": [{"version": str(_version_of(ip["address"]))} | ip for ip in result["ips"]]}
    offset = len(_list_of(before, "interfaces"))
    moved = result | {"ips": [ip | {"interface": ip["interface"] + offset} for ip in result["ips"]]}
    joined = {key: [*_list_of(before, key), *moved[key]] for key in ("interfaces", "ips", "routes") if key in moved}
    return {"dns": result["dns"]} | before | {"cniVersion": version} | joined


def require_attachment(previous: Mapping[str, Any], endpoint: Endpoint, netns: str) -> Mac | None:
    """Return the MAC that the result ``previous`` gives an endpoint's interface; refuse one that tells of another.

    Later plugins of the chain may have added to the result and changed the MAC.
    """
    inside = next(
        (
            entry
            for entry in _objects(previous, "interfaces")
            if entry.get("name") == endpoint.interface and entry.get("sandbox")
        ),
        None,
    )
    if inside is None:
        raise CniError(CniCode.DIFFERENT, f"interface {endpoint.interface} is not in prevResult")
    if inside["sandbox"] != netns:
        raise CniError(
            CniCode.DIFFERENT,
            f"prevResult has {endpoint.interface} in {inside['sandbox']}, and CNI_NETNS is {netns}",
        )
    told = {str(entry.get("address", "")).partition("/")[0] for entry in _objects(previous, "ips")}
    lacking = [str(given.address) for given in endpoint.addresses if str(given.address) not in told]
    if lacking:
        raise CniError(CniCode.DIFFERENT, f"address {lacking[0]} of {endpoint.interface} is not in prevResult")
    mac = inside.get("mac")
    try:
        return parse_mac(mac) if isinstance(mac, str) and mac else None
    except InvalidRequest as error:
        raise CniError(CniCode.INVALID_CONFIGURATION, f"invalid prevResult: {error.message}") from None


def _objects(previous: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    for entry in _list_of(previous, key):
        if not isinstance(entry, dict):
            raise CniError(
                CniCode.INVALID_CONFIGURATION, f"invalid prevResult: {key} holds something else than objects"
            )
        yield entry


def _list_of(previous: Mapping[str, Any], key: str) -> Sequence[Any]:
    value = previous.get(key) or []
    if not isinstance(value, list):
        raise CniError(CniCode.INVALID_CONFIGURATION, f"invalid prevResult: {key} is not a list")
    return value


def _version_of(cidr: str) -> int:
    return 6 if ":" in cidr else 4


def _families(result: Result) -> Result:
    return {f"ip{version}": dict(_family(result, version)) for version in (4, 6) if any(_addresses(result, version))}


def _addresses(result: Result, version: int) -> Iterator[Mapping[str, Any]]:
    return (ip for ip in result["ips"] if _version_of(ip["address"]) == version)


def _family(result: Result, version: int) -> Iterator[tuple[str, Any]]:
    first = next(_addresses(result, version))
    yield "ip", first["address"]
    yield "gateway", first["gateway"]
    routes = [route for route in result.get("routes", ()) if _version_of(route["dst"]) == version]
    if routes:
        yield "routes", routes
