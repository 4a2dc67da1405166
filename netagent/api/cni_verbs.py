"""What each CNI command asks of the services, and what the runtime is told."""

import logging

import msgspec

from netagent.api.cni_error import CniCode, CniError, cni_error
from netagent.api.cni_request import Add, Check, Collect, Delete, Status, parse_request
from netagent.api.cni_result import convert_result, render_result, require_attachment
from netagent.errors import NetagentError, NotFound
from netagent.model.network import Network
from netagent.services.all import Services

log = logging.getLogger("netagent.cni")

_SWALLOWED = ("not found", "no such file or directory")
"""What go-cni takes for success when a DEL fails with it (containerd/go-cni, ``Remove``)."""

SHOWN = 5
"""Differences that CHECK tells; one missing device makes many."""


class CniVerbs:
    """Carries out requests that came by the socket or out of the queue."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def perform(self, request: bytes, made: list[Add]) -> bytes:
        """Return what the plugin is to print, or raise CniError; an ADD that succeeded is put into ``made``."""
        try:
            match parse_request(request):
                case Add() as add:
                    output = await self._add(add)
                    made.append(add)
                    return output
                case Delete() as delete:
                    await self._delete(delete)
                case Check() as check:
                    await self._check(check)
                case Status() as status:
                    self._status(status)
                case Collect() as collect:
                    await self._collect(collect)
        except NetagentError as error:
            raise cni_error(error) from error
        return b""

    async def perform_queued(self, request: bytes) -> None:
        """Carry out a DEL; the plugin queues nothing else."""
        wanted = parse_request(request)
        if not isinstance(wanted, Delete):
            raise CniError(CniCode.INVALID_ENVIRONMENT, "CNI_COMMAND is not DEL")
        await self._delete(wanted)

    async def take_back(self, add: Add) -> None:
        """Undo an ADD whose caller is gone."""
        log.warning("nobody waits for container %s any more: detaching it", add.attachment.name)
        wanted = Delete(
            container_id=add.attachment.container_id,
            interface=add.attachment.interface,
            name=add.attachment.configuration,
            network=add.network,
        )
        try:
            await self._detach(wanted)
        except NetagentError as error:
            log.error("container %s could not be detached: %s", add.attachment.name, error)

    async def _add(self, add: Add) -> bytes:
        network = self._network(add.network)
        if network is None:
            raise _unknown_network(CniCode.INVALID_CONFIGURATION, add.network)
        view = await self._services.attachments.attach(add.attachment)
        endpoint = next(e for e, _ in view.endpoints if e.interface == add.attachment.interface)
        host = self._services.info.info().host
        result = render_result(endpoint, network, host.id, add.attachment.netns)
        return msgspec.json.encode(convert_result(result, add.version, add.previous))

    async def _delete(self, delete: Delete) -> None:
        try:
            await self._detach(delete)
        except NotFound:
            return
        except NetagentError as error:
            told = cni_error(error)
            raise CniError(told.code, _unswallowed(told.msg), _unswallowed(told.details)) from error

    async def _detach(self, delete: Delete) -> None:
        # A network that is gone by now, or that the configuration names differently now, must not keep the interface.
        network = self._network(delete.network)
        await self._services.attachments.detach_interface(
            delete.container_id,
            delete.interface,
            network.id if network else None,
            configuration=delete.name,
        )

    async def _check(self, check: Check) -> None:
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

    def _status(self, status: Status) -> None:
        network = self._network(status.network)
        if network is None:
            raise _unknown_network(CniCode.NOT_AVAILABLE, status.network)
        obstacle = self._services.readiness.obstacle(network)
        restriction = self._services.readiness.restriction()
        if restriction:
            raise CniError(CniCode.LIMITED, restriction, obstacle)
        if obstacle:
            raise CniError(CniCode.NOT_AVAILABLE, obstacle)

    async def _collect(self, collect: Collect) -> None:
        failures = await self._services.collection.collect(collect.name, collect.valid)
        if failures:
            first = cni_error(failures[0])
            told = "; ".join(error.message for error in failures)
            raise CniError(first.code, f"{len(failures)} attachments could not be collected: {told}", first.details)

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


def _unswallowed(text: str) -> str:
    return "it is gone" if any(words in text.lower() for words in _SWALLOWED) else text
