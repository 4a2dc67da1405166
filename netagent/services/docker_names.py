"""The names of Docker's containers: dockerd tells a driver none, so they are asked for when it says who was connected.

A container has its name a moment after it was started; until then it is called after its sandbox.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace

from netagent.errors import InvalidRequest, NetagentError, Unavailable
from netagent.model.container import Container, ContainerKind
from netagent.model.endpoint import Endpoint
from netagent.model.ids import parse_alias, parse_name, short
from netagent.model.resolver import Resolver, parse_nameserver
from netagent.runtime.dockerd import DockerContainer, Dockerd
from netagent.services.context import Context

log = logging.getLogger("netagent.docker")

FIRST_RETRY_S = 0.2
LAST_RETRY_S = 1.0


class DockerNames:
    """Keeps the names of this host's Docker containers."""

    def __init__(self, context: Context, dockerd: Dockerd) -> None:
        self._context = context
        self._dockerd = dockerd

    async def run(self) -> None:
        """Listen to dockerd whenever it is there, until cancelled."""
        retry_s = FIRST_RETRY_S
        while True:
            try:
                # First the stream, then those that run or are about to: nobody is missed in between.
                async with self._dockerd.changes() as changes:
                    retry_s = FIRST_RETRY_S
                    for identity in await self._dockerd.living():
                        await self._look(identity)
                    async for identity in changes:
                        await self._look(identity)
            except Unavailable as error:
                log.debug("%s", error)
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, LAST_RETRY_S)

    async def _look(self, identity: str) -> None:
        try:
            self.learn(await self._dockerd.container(identity))
        except NetagentError as error:
            log.info("nothing is known of Docker's container %s: %s", short(identity), error)

    def learn(self, told: DockerContainer) -> None:
        """Take over what dockerd says of a container, if it is in a network of ours."""
        journal = self._context.journal
        rows = [row for row in journal.endpoints.values() if row.id in told.endpoints and row.in_kernel]
        container = journal.containers.get(rows[0].container_id) if rows else None
        if container is None or container.kind is not ContainerKind.DOCKER:
            return
        name = self._name_for(container, told)
        named = replace(
            container,
            name=name,
            runtime_id=told.id,
            hostname=_host_name(told.hostname),
            resolver=Resolver(nameservers=tuple(_nameservers(told.nameservers))),
        )
        changed = [_named(row, named, told) for row in rows]
        if named == container and changed == rows:
            return
        journal.put_endpoints(changed, container=named)
        self._context.names.request(row.id for row in changed)
        self._context.publish_records()

    def _name_for(self, container: Container, told: DockerContainer) -> str:
        """Return Docker's name, or the one it has if a container that is not Docker's is called so already."""
        try:
            wanted = parse_name(told.name, what="container")
        except InvalidRequest:
            return container.name
        others = (c.name for c in self._context.journal.containers.values() if c.id != container.id)
        return container.name if wanted in others else wanted


def _named(row: Endpoint, container: Container, told: DockerContainer) -> Endpoint:
    aliases = _aliases((told.name, *told.endpoints[row.id]))
    return replace(
        row,
        container_name=container.name,
        hostname=container.hostname,
        aliases=tuple(alias for alias in dict.fromkeys(aliases) if alias != container.name),
    )


def _aliases(texts: Iterable[str]) -> Iterable[str]:
    for text in texts:
        try:
            yield parse_alias(text)
        except InvalidRequest:
            continue


def _host_name(text: str) -> str:
    return next(iter(_aliases((text,))), "")


def _nameservers(texts: Iterable[str]) -> Iterable[str]:
    for text in texts:
        try:
            yield parse_nameserver(text)
        except InvalidRequest:
            continue
