"""Calls of the driver's protocol as dockerd makes them, for what the real one never sends."""

import json
from typing import Any

from netagent.lab.host import Host
from tests.support.unix_http import UnixConnection

SOCKET = "/run/docker/plugins/netagent.sock"
NETWORK = "a" * 64
ENDPOINT = "b" * 64
SPACE = "netagent"


def send(host: Host, method: str, body: bytes, *, verb: str = "POST") -> tuple[int, dict[str, Any]]:
    """Call ``method``, such as ``NetworkDriver.Join``, with these very bytes; return status and answer."""
    connection = UnixConnection(host.path(SOCKET), name="plugin.moby.localhost", timeout=60)
    try:
        connection.request(verb, f"/{method}", body=body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def call(host: Host, method: str, **fields: Any) -> dict[str, Any]:
    """Call ``method`` and return its answer, which may be a refusal."""
    status, answer = send(host, method, json.dumps(fields).encode())
    assert status == 200, (status, answer)
    return answer


def done(host: Host, method: str, **fields: Any) -> dict[str, Any]:
    """Call ``method`` and expect it to be carried out."""
    answer = call(host, method, **fields)
    assert not {"Err", "Error"} & answer.keys(), answer
    return answer


def create_network(host: Host, subnet: str, *, network: str = NETWORK, internal: bool = False, **options: str) -> str:
    """Do what dockerd does for ``docker network create``; return the pool's id."""
    pool: str = done(host, "IpamDriver.RequestPool", AddressSpace=SPACE, Pool=subnet)["PoolID"]
    asked = {"RequestAddressType": "com.docker.network.gateway"}
    gateway = done(host, "IpamDriver.RequestAddress", PoolID=pool, Address="", Options=asked)["Address"]
    data = [{"AddressSpace": SPACE, "Pool": subnet, "Gateway": gateway, "AuxAddresses": {}}]
    generic = {"com.docker.network.generic": options, "com.docker.network.internal": internal}
    done(host, "NetworkDriver.CreateNetwork", NetworkID=network, Options=generic, IPv4Data=data, IPv6Data=[])
    return pool


def remove_network(host: Host, pool: str, *, network: str = NETWORK) -> None:
    """Do what dockerd does for ``docker network rm``."""
    done(host, "NetworkDriver.DeleteNetwork", NetworkID=network)
    done(host, "IpamDriver.ReleasePool", PoolID=pool)


def ids(endpoint: str = ENDPOINT, network: str = NETWORK) -> dict[str, str]:
    """Return the fields that name an endpoint."""
    return {"NetworkID": network, "EndpointID": endpoint}


def create_endpoint(
    host: Host, pool: str, *, address: str = "", endpoint: str = ENDPOINT
) -> tuple[str, dict[str, Any]]:
    """Request an address and make an endpoint with it; return the address as a CIDR, and the interface answered."""
    given: str = done(host, "IpamDriver.RequestAddress", PoolID=pool, Address=address)["Address"]
    answer = done(host, "NetworkDriver.CreateEndpoint", **ids(endpoint), Interface={"Address": given}, Options={})
    return given, answer["Interface"]


def delete_endpoint(host: Host, pool: str, address: str, *, endpoint: str = ENDPOINT) -> None:
    """Delete an endpoint and release its address."""
    done(host, "NetworkDriver.DeleteEndpoint", **ids(endpoint))
    done(host, "IpamDriver.ReleaseAddress", PoolID=pool, Address=address.partition("/")[0])


def port(number: int, host_port: int = 0, *, protocol: int = 6, address: str = "") -> dict[str, Any]:
    """Return one binding of a port map."""
    return {
        "Proto": protocol,
        "IP": "",
        "Port": number,
        "HostIP": address,
        "HostPort": host_port,
        "HostPortEnd": host_port,
    }


def port_map(*bindings: dict[str, Any]) -> dict[str, Any]:
    """Return the options that publish these ports."""
    return {"com.docker.network.portmap": list(bindings)}
