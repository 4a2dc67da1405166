"""What dockerd asks of a network and IPAM driver, with the names that it gives to fields.

The protocol is that of moby's ``docs/extend``: JSON objects, unknown keys are no error, and what is left out is empty.
"""

from typing import Annotated, Any

import msgspec

from netagent.errors import InvalidRequest

Id = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Text = Annotated[str, msgspec.Meta(max_length=1024)]
PORTMAP = "com.docker.network.portmap"
GENERIC = "com.docker.network.generic"
INTERNAL = "com.docker.network.internal"
REQUEST_TYPE = "RequestAddressType"
GATEWAY_REQUEST = "com.docker.network.gateway"
_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}


class IpamData(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """One subnet of a network; the auxiliary addresses are CIDRs."""

    address_space: Text = ""
    pool: Text = ""
    gateway: Text = ""
    aux_addresses: dict[Text, Text] | None = None


class CreateNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """NetworkDriver.CreateNetwork."""

    network: Id = msgspec.field(name="NetworkID")
    options: dict[str, Any] | None = msgspec.field(name="Options", default=None)
    ipv4: list[IpamData] | None = msgspec.field(name="IPv4Data", default=None)
    ipv6: list[IpamData] | None = msgspec.field(name="IPv6Data", default=None)


class OfNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """A request about one network."""

    network: Id = msgspec.field(name="NetworkID")


class OfEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A request about one endpoint; ``sandbox`` for Join, ``options`` for that and for what is published."""

    network: Id = msgspec.field(name="NetworkID")
    endpoint: Id = msgspec.field(name="EndpointID")
    sandbox: Text = msgspec.field(name="SandboxKey", default="")
    options: dict[str, Any] | None = msgspec.field(name="Options", default=None)


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """What Docker has decided of an interface; addresses are CIDRs."""

    address: Text = msgspec.field(name="Address", default="")
    address6: Text = msgspec.field(name="AddressIPv6", default="")
    mac: Text = msgspec.field(name="MacAddress", default="")


class CreateEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """NetworkDriver.CreateEndpoint."""

    network: Id = msgspec.field(name="NetworkID")
    endpoint: Id = msgspec.field(name="EndpointID")
    interface: Interface | None = msgspec.field(name="Interface", default=None)


class RequestPool(msgspec.Struct, frozen=True, kw_only=True):
    """IpamDriver.RequestPool."""

    address_space: Text = msgspec.field(name="AddressSpace", default="")
    pool: Text = msgspec.field(name="Pool", default="")
    sub_pool: Text = msgspec.field(name="SubPool", default="")
    options: dict[Text, Text] | None = msgspec.field(name="Options", default=None)
    ipv6: bool = msgspec.field(name="V6", default=False)


class OfPool(msgspec.Struct, frozen=True, kw_only=True):
    """A request about one pool, and an address in it."""

    pool: Text = msgspec.field(name="PoolID")
    address: Text = msgspec.field(name="Address", default="")
    options: dict[Text, Text] | None = msgspec.field(name="Options", default=None)


class PortBinding(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """One published port: ``proto`` is the number of the IP protocol."""

    proto: Annotated[int, msgspec.Meta(ge=0, le=255)]
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    host_ip: Text = msgspec.field(name="HostIP", default="")
    host_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    host_port_end: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0


def parse_options(options: dict[str, Any] | None) -> dict[str, str]:
    """Return the options that the user gave with ``-o``; InvalidRequest if they are no texts."""
    try:
        return msgspec.convert((options or {}).get(GENERIC) or {}, dict[str, str])
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"invalid network options: {error}") from None


def parse_ports(options: dict[str, Any] | None) -> tuple[str, ...]:
    """Return the published ports as ``-p`` has them; InvalidRequest if they are none."""
    try:
        bindings = msgspec.convert((options or {}).get(PORTMAP) or [], list[PortBinding])
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"invalid port mapping: {error}") from None
    return tuple(_publish_text(binding) for binding in bindings)


def _publish_text(binding: PortBinding) -> str:
    protocol = _PROTOCOLS.get(binding.proto)
    if protocol is None:
        raise InvalidRequest(
            f"invalid port mapping: protocol number {binding.proto}", hint="tcp, udp and sctp are known"
        )
    where = f"[{binding.host_ip}]:" if ":" in binding.host_ip else f"{binding.host_ip}:" if binding.host_ip else ""
    host = str(binding.host_port) if binding.host_port else ""
    if binding.host_port_end > binding.host_port:
        host += f"-{binding.host_port_end}"
    return f"{where}{host}:{binding.port}/{protocol}" if where or host else f"{binding.port}/{protocol}"
