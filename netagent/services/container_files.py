"""The files of a ``run`` container that tell it its names: ``/etc/hosts``, ``/etc/hostname``, ``/etc/resolv.conf``."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from netagent.dns.resolv import choose_resolver, parse_resolv_conf, render_resolv_conf
from netagent.errors import NetagentError
from netagent.model.container import Container, ContainerKind, NetworkMode
from netagent.model.endpoint import Endpoint
from netagent.model.ids import NetworkId, short
from netagent.model.network import Network
from netagent.model.resolver import HOST_GATEWAY, Resolver
from netagent.runtime.runc import Runtime
from netagent.runtime.spec import TextFile
from netagent.services.context import Context
from netagent.services.links import find_linked, render_environment

log = logging.getLogger("netagent.containers")

HOSTS, HOSTNAME, RESOLV_CONF = "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"
_LOOPBACK = ("127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFiles:
    """What the host itself has in its files, as far as containers take it over."""

    hosts: str = ""
    resolver: Resolver = field(default_factory=Resolver)


def read_host_files(root: Path = Path("/")) -> HostFiles:
    """Return what is below ``root``. What cannot be read is empty, with a warning in the log: no container fails."""
    hosts, resolver = (_read(root / path.lstrip("/")) for path in (HOSTS, RESOLV_CONF))
    return HostFiles(hosts=hosts, resolver=parse_resolv_conf(resolver))


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        log.warning("%s cannot be read: %s; containers get none of it", path, error.strerror)
        return ""


def render_files(
    container: Container,
    endpoints: Sequence[Endpoint],
    networks: Mapping[NetworkId, Network],
    host: HostFiles,
    *,
    linked: Iterable[str] = (),
) -> tuple[TextFile, ...]:
    """Return a container's files. ``linked`` are lines of ``/etc/hosts`` for the containers that it is linked to.

    In the host's network, and without any, it has the host's nameservers; else the gateways of its networks.
    """
    subnets = [s for e in endpoints if e.network_id in networks for s in networks[e.network_id].subnets]
    chosen = choose_resolver(container.resolver, host.resolver)
    nameservers = [str(subnet.gateway) for subnet in subnets] or chosen.nameservers
    is_host = container.mode is NetworkMode.HOST
    known = host.hosts.splitlines() if is_host and host.hosts else _LOOPBACK
    lines = [*known, *_own_lines(container, endpoints), *linked, *_extra_lines(container, endpoints, networks)]
    return (
        TextFile(path=HOSTS, text="\n".join(lines) + "\n"),
        TextFile(path=HOSTNAME, text=f"{container.hostname}\n"),
        TextFile(path=RESOLV_CONF, text=render_resolv_conf(chosen, nameservers, plain=is_host)),
    )


def render_link(alias: str, target: Endpoint) -> Iterator[str]:
    """Yield the lines of ``/etc/hosts`` for a linked container, as Docker writes them."""
    names = dict.fromkeys((alias, target.hostname or short(target.container_id), target.container_name))
    yield from (f"{given.address}\t{' '.join(names)}" for given in target.addresses)


def _own_lines(container: Container, endpoints: Sequence[Endpoint]) -> Iterator[str]:
    names = " ".join(dict.fromkeys((container.hostname, container.name)))
    yield from (f"{given.address}\t{names}" for endpoint in endpoints for given in endpoint.addresses)


def _extra_lines(
    container: Container, endpoints: Sequence[Endpoint], networks: Mapping[NetworkId, Network]
) -> Iterator[str]:
    """Yield what ``--add-host`` adds. In the host's own network the host is at its loopback address."""
    first = networks.get(endpoints[0].network_id) if endpoints else None
    gateways = [str(subnet.gateway) for subnet in first.subnets] if first else ["127.0.0.1"]
    for extra in container.extra_hosts:
        addresses = gateways if extra.address == HOST_GATEWAY else [extra.address]
        yield from (f"{address}\t{extra.name}" for address in addresses)


class ContainerFiles:
    """Keeps the files of containers that run true while networks come and go."""

    def __init__(self, context: Context, runtime: Runtime) -> None:
        self._context = context
        self._runtime = runtime

    def render(self, container: Container) -> tuple[TextFile, ...]:
        """Return the files of a container as they are to be now."""
        journal = self._context.journal
        owner = journal.containers.get(container.shares) if container.shares else None
        source = owner or container
        endpoints = [e for e in journal.endpoints_of(source.id) if e.in_kernel]
        linked = find_linked(self._context, source.links, [e.network_id for e in endpoints])
        return render_files(
            source,
            endpoints,
            self._context.snapshot().networks,
            read_host_files(),
            linked=[line for found in linked for line in render_link(found.link.alias, found.endpoint)],
        )

    def environment(self, container: Container) -> tuple[tuple[str, str], ...]:
        """Return the variables that tell a container of its links."""
        networks = [e.network_id for e in self._context.journal.endpoints_of(container.id) if e.in_kernel]
        linked = find_linked(self._context, container.links, networks)
        return tuple(variable for found in linked for variable in render_environment(container.name, found))

    def refresh(self, changed: Container) -> None:
        """Bring files up to date: those of ``changed``, of who shares its network, and of who is linked to it.

        A container that ends meanwhile is no error.
        """
        for container in self._context.journal.containers.values():
            is_linked = any(link.target == changed.name for link in container.links)
            is_meant = is_linked or changed.id in (container.id, container.shares)
            if is_meant and container.kind is ContainerKind.RUN and container.is_up:
                self._write(container)

    def _write(self, container: Container) -> None:
        for file in self.render(container):
            try:
                self._runtime.write_file(container.id, file.path, file.text)
            except (NetagentError, OSError) as error:
                log.warning("container %s keeps an old %s: %s", container.name, file.path, error)
