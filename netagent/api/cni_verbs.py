"""What each CNI command asks of the services, and what the runtime is told."""

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace

import msgspec

from netagent.api.cni_error import CniCode, CniError, cni_error
from netagent.api.cni_ipam import ask_ipam, parse_ipam_result
from netagent.api.cni_request import Add, Check, Collect, Delete, Status, parse_request
from netagent.api.cni_result import convert_result, render_result, require_attachment
from netagent.errors import NetagentError, NotFound
from netagent.model.container import Delegation
from netagent.model.network import Network
from netagent.services.all import Services
from netagent.services.locks import Locks
from netagent.services.readiness import NAMED_NAMESPACES

log = logging.getLogger("netagent.cni")

_SWALLOWED = ("not found", "no such file or directory")
"""What go-cni takes for success when a DEL fails with it (containerd/go-cni, ``Remove``)."""

SHOWN = 5
"""Differences that CHECK tells; one missing device makes many."""


class CniVerbs:
    """Carries out requests that came by the socket or out of the queue."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._locks = Locks()

    async def perform(self, request: bytes, made: list[Add], complaints: list[bytes], caller: int) -> bytes:
        """Return what the plugin is to print, or raise CniError; an ADD that succeeded is put into ``made``.

        ``complaints`` gets what is for the plugin's standard error. ``caller`` is the plugin's process, 0 if it is of
        another pid namespace.
        """
        try:
            match parse_request(request):
                case Add() as add:
                    # A DEL that comes meanwhile waits, or it would find nothing yet.
                    async with self._locks.held(add.attachment.container_id):
                        output = await self._add(add, complaints)
                    made.append(add)
                    return output
                case Delete() as delete:
                    await self._delete(delete, complaints)
                case Check() as check:
                    await self._check(check, complaints)
                case Status() as status:
                    await self._status(status, complaints, caller)
                case Collect() as collect:
                    await self._collect(collect, complaints)
        except NetagentError as error:
            if path := error.facts.get("netns"):
                await self._require_sight(caller, path)
            raise cni_error(error) from error
        return b""

    async def perform_queued(self, request: bytes) -> None:
        """Carry out a DEL; the plugin queues nothing else."""
        wanted = parse_request(request)
        if not isinstance(wanted, Delete):
            raise CniError(CniCode.INVALID_ENVIRONMENT, "CNI_COMMAND is not DEL")
        await self._delete(wanted, [])

    async def take_back(self, add: Add) -> None:
        """Undo an ADD whose caller is gone."""
        log.warning("nobody waits for container %s any more: detaching it", add.attachment.name)
        wanted = Delete(
            container_id=add.attachment.container_id,
            interface=add.attachment.interface,
            name=add.attachment.configuration,
            network=add.network,
            ipam=add.attachment.ipam,
        )
        try:
            await self._delete(wanted, [])
        except CniError as error:
            log.error("container %s could not be detached: %s", add.attachment.name, error)

    async def _add(self, add: Add, complaints: list[bytes]) -> bytes:
        network = self._network(add.network)
        if network is None:
            raise _unknown_network(CniCode.INVALID_CONFIGURATION, add.network)
        _require_masquerade(add, network)
        if add.attachment.ipam is None:
            return await self._attach(add, network)
        if self._services.attachments.find_interface(add.attachment.container_id, add.attachment.interface):
            # Not for the other plugin to find out: its DEL, after a failure, would free the address that is in use.
            raise CniError(CniCode.ALREADY_ATTACHED, f"interface {add.attachment.interface} is attached already")
        try:
            return await self._attach(await self._with_addresses(add, add.attachment.ipam, complaints), network)
        except BaseException:
            with suppress(CniError, NetagentError):
                await asyncio.shield(ask_ipam(add.attachment.ipam, "DEL", complaints))
            raise

    async def _with_addresses(self, add: Add, ipam: Delegation, complaints: list[bytes]) -> Add:
        """Return ``add`` with the addresses and routes that another IPAM plugin gives, and its words on DNS."""
        result = parse_ipam_result(ipam.plugin, await ask_ipam(ipam, "ADD", complaints))
        connection = replace(add.attachment.connection, addresses=result.addresses, routes=result.next_hops)
        attachment = replace(add.attachment, connection=connection)
        return replace(add, attachment=attachment, resolver=add.resolver or result.dns)

    async def _attach(self, add: Add, network: Network) -> bytes:
        view = await self._services.attachments.attach(add.attachment)
        endpoint = next(e for e, _ in view.endpoints if e.interface == add.attachment.interface)
        host = self._services.info.info().host
        result = render_result(endpoint, network, host.id, add.attachment.netns)
        return msgspec.json.encode(convert_result(result, add.version, add.previous, add.resolver))

    async def _delete(self, delete: Delete, complaints: list[bytes]) -> None:
        try:
            async with self._locks.held(delete.container_id):
                with suppress(NotFound):
                    await self._detach(delete)
                if delete.ipam is not None:
                    await ask_ipam(delete.ipam, "DEL", complaints)
        except NetagentError as error:
            raise _unswallowed(cni_error(error)) from error
        except CniError as error:
            raise _unswallowed(error) from error

    async def _detach(self, delete: Delete) -> None:
        # A network that is gone by now, or that the configuration names differently now, must not keep the interface.
        network = self._network(delete.network)
        await self._services.attachments.detach_interface(
            delete.container_id,
            delete.interface,
            network.id if network else None,
            configuration=delete.name,
        )

    async def _check(self, check: Check, complaints: list[bytes]) -> None:
        if check.ipam is not None:
            await ask_ipam(check.ipam, "CHECK", complaints)
        found = self._services.attachments.find_interface(check.container_id, check.interface)
        if found is None:
            raise CniError(
                CniCode.DIFFERENT,
                f"container {check.container_id} has no attachment {check.interface} on this host",
                "delete the container and make it anew",
            )
        container, endpoint = found
        mac = require_attachment(check.previous, endpoint, check.netns)
        differences = list(await self._services.verification.verify(endpoint, netns=check.netns, mac=mac))
        if differences:
            more = f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
            raise CniError(
                CniCode.DIFFERENT,
                f"container {container.name}: {differences[0]}",
                f"missing or different: {'; '.join(differences[:SHOWN])}{more}; the agent mends what it can",
            )

    async def _status(self, status: Status, complaints: list[bytes], caller: int) -> None:
        if status.ipam is not None:
            await ask_ipam(status.ipam, "STATUS", complaints)
        network = self._network(status.network)
        if network is None:
            raise _unknown_network(CniCode.NOT_AVAILABLE, status.network)
        await self._require_sight(caller, NAMED_NAMESPACES)
        obstacle = self._services.readiness.obstacle(network)
        restriction = self._services.readiness.restriction()
        if restriction:
            raise CniError(CniCode.LIMITED, restriction, obstacle)
        if obstacle:
            raise CniError(CniCode.NOT_AVAILABLE, obstacle)

    async def _require_sight(self, caller: int, path: str) -> None:
        """Raise CniError if namespaces that the plugin's runtime keeps at ``path`` are not seen by the agent."""
        if reason := await self._services.readiness.blindness(caller, path):
            way_out = (
                f"have what is mounted in {NAMED_NAMESPACES} handed on to it: mount it into the container as rslave"
            )
            raise CniError(CniCode.NOT_AVAILABLE, reason, way_out)

    async def _collect(self, collect: Collect, complaints: list[bytes]) -> None:
        failures = [cni_error(e) for e in await self._services.collection.collect(collect.name, collect.valid)]
        if collect.ipam is not None:
            try:
                await ask_ipam(collect.ipam, "GC", complaints)
            except CniError as error:
                failures.append(error)
        if failures:
            raise CniError(failures[0].code, "not all could be collected: " + "; ".join(e.msg for e in failures))

    def _network(self, name: str) -> Network | None:
        """Return the network with this name or id. The beginning of an id will not do: any name may be one."""
        try:
            network = self._services.networks.find(name)
        except NetagentError:
            return None
        return network if name in (network.name, network.id) else None


def _unknown_network(code: CniCode, name: str) -> CniError:
    return CniError(
        code,
        f"network {name} not found",
        f'netagent network create {name}, or name another in the configuration: "netagent": {{"network": "NAME"}}',
    )


def _require_masquerade(add: Add, network: Network) -> None:
    """Refuse an ``ipMasq`` that contradicts the network: whether packets are masqueraded is decided there."""
    if add.masquerade in (None, network.masquerade) or network.internal:
        return
    raise CniError(
        CniCode.INVALID_CONFIGURATION,
        f"ipMasq is {str(add.masquerade).lower()}, and network {network.name} says otherwise",
        f"leave ipMasq out, or create the network with --opt masquerade={str(add.masquerade).lower()}",
    )


def _unswallowed(error: CniError) -> CniError:
    texts = (error.msg, error.details)
    return CniError(error.code, *("it is gone" if any(w in t.lower() for w in _SWALLOWED) else t for t in texts))
