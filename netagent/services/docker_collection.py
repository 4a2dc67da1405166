"""What dockerd has forgotten: endpoints that it never deleted, and addresses that it never released.

A dockerd that is killed between two calls, or loses its state, tells nobody, so it is asked what it still has. Doubt
keeps everything: while dockerd is away, while a sandbox lives, where another dockerd may have made the network, and
where something about the endpoint has changed within the time of grace, for dockerd lists an endpoint only after it
has made it here.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from netagent.errors import NetagentError, NotFound, Unavailable
from netagent.model.docker import DockerNetwork
from netagent.model.endpoint import Endpoint
from netagent.model.ids import EndpointId, NetworkId, short
from netagent.runtime.dockerd import DockerContent, Dockerd
from netagent.services.context import Context
from netagent.services.docker_endpoints import DockerEndpoints, is_held_address
from netagent.services.veths import has_veth

log = logging.getLogger("netagent.docker")

SWEEPS_A_GRACE = 6
"""How often the sweep comes within the time of grace."""


class DockerCollection:
    """Collects by itself. ``grace_s`` is for how long dockerd must not have had a thing, in seconds."""

    def __init__(self, context: Context, endpoints: DockerEndpoints, dockerd: Dockerd, *, grace_s: float) -> None:
        self._context = context
        self._book = context.journal.docker
        self._endpoints = endpoints
        self._dockerd = dockerd
        self._grace_s = grace_s
        self._confirmed: set[str] = set()
        self._missing: dict[EndpointId, tuple[Endpoint, float]] = {}
        """What dockerd does not have, as it was then, and since when."""

    async def run(self) -> None:
        """Sweep for as long as the agent runs."""
        while True:
            await self.sweep()
            await asyncio.sleep(self._grace_s / SWEEPS_A_GRACE)

    async def sweep(self) -> None:
        """Forget what dockerd has not had for the time of grace."""
        rows = self._endpoints.rows()
        try:
            contents = await self._ask(row.network_id for row in rows)
        except (Unavailable, NotFound) as error:
            log.debug("what dockerd has is not known: %s", error)
            self._missing = {}
            return
        missing = {}
        for row in rows:
            if not await self._is_missing(row, contents):
                continue
            known, since = self._missing.get(row.id, (row, _now()))
            missing[row.id] = (row, since if known is row else _now())
        self._missing = missing
        for row, since in missing.values():
            if _now() - since >= self._grace_s:
                await self._forget(row)

    async def _forget(self, row: Endpoint) -> None:
        what = "address" if is_held_address(row) else f"endpoint {short(row.id)} of container {row.container_name} at"
        log.warning("dockerd has forgotten the %s %s", what, ", ".join(str(a.address) for a in row.addresses))
        try:
            await self._endpoints.forget(row)
        except NetagentError as error:
            log.error("it could not be removed: %s", error)

    async def _is_missing(self, row: Endpoint, contents: Mapping[NetworkId, DockerContent]) -> bool:
        content = contents.get(row.network_id)
        if content is None:
            # dockerd releases the addresses of a network before it deletes it: nobody has one that is left.
            of_docker = any(known.network_id == row.network_id for known in self._book.networks.values())
            return is_held_address(row) and not of_docker
        if row.id in content.endpoints or any(given.address in content.addresses for given in row.addresses):
            return False
        return not row.in_kernel or not await has_veth(self._context, row)

    async def _ask(self, networks: Iterable[NetworkId]) -> dict[NetworkId, DockerContent]:
        """Return what dockerd has, of the networks that it certainly is the one to be asked about."""
        contents = {}
        wanted = set(networks)
        for known in tuple(self._book.networks.values()):
            network_id = known.network_id
            if network_id not in wanted and known.id in self._confirmed:
                continue
            content = await self._dockerd.content(known.id)
            if content is not None:
                await self._confirm(known)
                contents[network_id] = content
            elif await self._dockerd.has_lost(known):
                contents[network_id] = DockerContent()
        return contents

    async def _confirm(self, known: DockerNetwork) -> None:
        """Note which dockerd it is that has a network, once in an agent's life."""
        if known.id in self._confirmed:
            return
        engine = await self._dockerd.engine()
        if engine != known.engine and self._book.networks.get(known.id) is known:
            self._book.put_network(replace(known, engine=engine))
        self._confirmed.add(known.id)


def _now() -> float:
    # Goes on while the machine sleeps, and does not jump when somebody sets the clock.
    return time.clock_gettime(time.CLOCK_BOOTTIME)
