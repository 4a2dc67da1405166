"""Results of ADD, in the shape of each version of the CNI specification.

They are made in the newest shape and converted down: 0.3.0 to 0.4.0 name the family of every address, and 0.1.0 and
0.2.0 know neither interfaces nor more than one address a family.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from netagent.api.cni_error import CniCode, CniError
from netagent.model.endpoint import Endpoint
from netagent.model.ids import HostId
from netagent.model.network import Network
from netagent.plan.render import bridge_mac, bridge_name, veth_mac, veth_name

Result: TypeAlias = dict[str, Any]

_EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}


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
            {"interface": 2, "address": f"{address}/{subnet.prefix.prefixlen}", "gateway": str(subnet.gateway)}
            for address, subnet in addresses
        ],
    }
    result["dns"] = {"nameservers": list(dict.fromkeys(str(subnet.gateway) for _, subnet in addresses))}
    if endpoint.ways_out and not network.internal:
        result["routes"] = [
            {"dst": _EVERYWHERE[subnet.prefix.version], "gw": str(subnet.gateway)}
            for _, subnet in addresses
            if subnet.prefix.version in endpoint.ways_out
        ]
    return result


def convert_result(result: Result, version: str, previous: Mapping[str, Any] | None = None) -> Result:
    """Return ``result`` in the shape of ``version``, added to what the plugins before us in a chain made.

    Fields of ``previous`` that we do not know are kept.
    """
    before = dict(previous or {})
    if version in ("0.1.0", "0.2.0"):
        return {"dns": result["dns"]} | before | {"cniVersion": version} | _families(result)
    if version in ("0.3.0", "0.3.1", "0.4.0"):
        result = result | {"ips": [{"version": str(_version_of(ip["address"]))} | ip for ip in result["ips"]]}
    offset = len(_list_of(before, "interfaces"))
    moved = result | {"ips": [ip | {"interface": ip["interface"] + offset} for ip in result["ips"]]}
    joined = {key: [*_list_of(before, key), *moved[key]] for key in ("interfaces", "ips", "routes") if key in moved}
    return {"dns": result["dns"]} | before | {"cniVersion": version} | joined


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
