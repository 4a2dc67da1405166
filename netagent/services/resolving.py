"""Looking names up as the host or one of its containers does."""

import ipaddress
from collections.abc import Callable, Sequence

from netagent.dns.client import NameServer
from netagent.dns.message import Rcode
from netagent.dns.reply import TYPES, Answer, BadReply, Reply, encode_query, parse_reply
from netagent.errors import Conflict, InvalidRequest, NotFound, Unavailable
from netagent.model.container import Container
from netagent.model.network import Network
from netagent.services.context import Context

_LOOPBACK = "127.0.0.1"


class ResolvingService:
    """``netagent dns``. ``own_address`` is where the host itself asks; ``find`` looks a container up."""

    def __init__(
        self, context: Context, server: NameServer, find: Callable[[str], Container], *, own_address: str
    ) -> None:
        self._context = context
        self._server = server
        self._find = find
        self._own_address = own_address

    async def resolve(self, name: str, types: Sequence[str] = (), *, container: str = "") -> tuple[Answer, ...]:
        """Return the records of ``name``, an address's name if it is one, of ``types`` or of those usual for it.

        Raises NotFound for a name that nobody has, Unavailable if nobody could tell.
        """
        listener, source = self._place(container) if container else (self._own_address, _LOOPBACK)
        if not listener:
            raise Conflict("the host has no address to ask at", hint="--container, or dns_address in the configuration")
        asked, usual = _understand(name)
        answers: list[Answer] = []
        for kind in types or usual:
            answers += (await self._ask(asked, kind.upper(), listener, source, shown=name)).answers
        return tuple(answers)

    def _place(self, name: str) -> tuple[str, str]:
        """Return where a container asks, and its own address there."""
        container = self._find(name)
        owner = container.shares or container.id
        networks = self._context.snapshot().networks
        for endpoint in self._context.journal.endpoints_of(owner):
            network: Network | None = networks.get(endpoint.network_id)
            for given in endpoint.addresses if endpoint.in_kernel and network else ():
                subnet = network.subnet_of(given.address) if network else None
                if subnet is not None:
                    return str(subnet.gateway), str(given.address)
        raise Conflict(
            f"container {container.name} is not connected to a network now",
            hint="it asks the host's nameservers",
        )

    async def _ask(self, name: str, kind: str, listener: str, source: str, *, shown: str) -> Reply:
        if kind not in TYPES:
            raise InvalidRequest(f"unknown record type {kind}", hint=f"one of {', '.join(TYPES)}")
        query = encode_query(name, TYPES[kind])
        if query is None or not name.strip("."):
            raise InvalidRequest(f"invalid name {shown!r}", hint="labels of 1 to 63 bytes, 253 in all")
        packet = await self._server.ask(query, listener, source)
        try:
            reply = parse_reply(packet)
        except BadReply as error:
            raise Unavailable(f"no usable answer for {shown}: {error}") from error
        if reply.rcode == Rcode.NXDOMAIN:
            raise NotFound(f"name {shown} not found", hint="netagent network inspect shows who is in a network")
        if reply.rcode != Rcode.NOERROR:
            code = Rcode(reply.rcode).name if reply.rcode in tuple(Rcode) else str(reply.rcode)
            raise Unavailable(f"name {shown} cannot be resolved now: {code}", hint="see the host's /etc/resolv.conf")
        return reply


def _understand(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the name to ask for, and the types that are usual for such a one."""
    try:
        return ipaddress.ip_address(name).reverse_pointer, ("PTR",)
    except ValueError:
        return name, ("SRV",) if name.startswith("_") else ("A", "AAAA")
