"""What ``netagent run`` asks for, as values: the mode that ``--network`` means, and what the options say in it.

Nothing here changes anything: a request is refused before the first effect, or understood as a whole.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from netagent.errors import Conflict, InvalidRequest, NotFound
from netagent.model.container import Container, ContainerKind, NetworkMode
from netagent.model.ids import ContainerId, parse_name, short
from netagent.model.label import parse_labels
from netagent.model.network import Network
from netagent.model.resolver import (
    Link,
    Resolver,
    parse_extra_host,
    parse_hostname,
    parse_link,
    parse_nameserver,
    parse_resolver_option,
    parse_search,
)
from netagent.runtime.kernel_options import parse_capabilities, parse_sysctls
from netagent.runtime.spec import ContainerSpec, parse_directory, parse_environment, parse_mounts
from netagent.services.context import Context
from netagent.services.endpoints import refuse_taken_name
from netagent.services.interfaces import choose_interfaces
from netagent.services.links import find_linked
from netagent.services.network_texts import names_of, split_networks
from netagent.services.networks import NetworkService
from netagent.services.requests import Connection, NewContainer
from netagent.services.wanted import Wanted, parse_served, parse_wanted

_ASK_OTHER = "give it to the container whose network it shares"
_OWN_NETWORK = "use --network with a network of yours"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedContainer:
    """A container as it was asked for, its spec included, the endpoints that it wants, and what to warn of."""

    container: Container
    wanted: tuple[Wanted, ...] = ()
    warnings: tuple[str, ...] = ()


class ContainerParser:
    """Understands requests for containers. ``sandboxes`` is where their namespaces are kept, ``find`` looks one up."""

    def __init__(
        self, context: Context, networks: NetworkService, find: Callable[[str], Container], sandboxes: Path
    ) -> None:
        self._context = context
        self._networks = networks
        self._find = find
        self._sandboxes = sandboxes

    def parse(self, request: NewContainer, identity: ContainerId) -> ParsedContainer:
        """Return what is asked for, or refuse it in Docker's words."""
        if not request.command:
            raise InvalidRequest("no command given", hint="netagent run … -- COMMAND")
        name = parse_name(request.name, what="container") if request.name else f"c-{short(identity)}"
        refuse_taken_name(name, self._context.journal.containers.values())
        container = Container(
            id=identity,
            name=name,
            kind=ContainerKind.RUN,
            command=request.command,
            hostname=parse_hostname(request.hostname) if request.hostname else short(identity),
            auto_remove=request.auto_remove,
            exposed=parse_served(request.connection),
            created=self._context.now(),
            resolver=Resolver(
                nameservers=tuple(parse_nameserver(text) for text in request.dns),
                search=tuple(parse_search(text) for text in request.dns_search),
                options=tuple(parse_resolver_option(text) for text in request.dns_options),
            ),
            extra_hosts=tuple(parse_extra_host(text) for text in request.extra_hosts),
            labels=parse_labels(request.labels),
        )
        parsed = self._connect(request, container)
        spec = _parse_spec(request, parsed.container)
        return replace(parsed, container=replace(parsed.container, spec=msgspec.json.encode(spec).decode()))

    def _connect(self, request: NewContainer, container: Container) -> ParsedContainer:
        """Return ``container`` in the mode that the request asks for, with the endpoints it wants."""
        connection = request.connection
        mode, texts = _parse_mode(connection)
        sandbox = str(self._sandboxes / container.id)
        if mode is NetworkMode.NETWORKS:
            networks = self._networks.find_for_endpoints(texts)
            wanted = parse_wanted(connection, networks, choose_interfaces(split_networks(connection), networks))
            links = tuple(self._parse_link(text, container, networks) for text in request.links)
            return ParsedContainer(
                container=replace(container, mode=mode, sandbox=sandbox, owns_sandbox=True, links=links), wanted=wanted
            )
        _refuse_names(request, mode)
        warnings = _refuse_meaningless(connection, mode, hostname=request.hostname)
        if mode is NetworkMode.HOST:
            hostname = request.hostname or os.uname().nodename
            return ParsedContainer(container=replace(container, mode=mode, hostname=hostname), warnings=warnings)
        if mode is NetworkMode.NONE:
            return ParsedContainer(
                container=replace(container, mode=mode, sandbox=sandbox, owns_sandbox=True), warnings=warnings
            )
        other = self._find(texts[0].partition(":")[2])
        if not other.is_up:
            raise Conflict(
                f"cannot join network of a non running container: {other.name}", hint=f"netagent start {other.name}"
            )
        return ParsedContainer(
            container=replace(container, mode=mode, sandbox=other.sandbox, shares=other.id, hostname=other.hostname)
        )

    def _parse_link(self, text: str, container: Container, networks: Sequence[Network]) -> Link:
        """Return a link to a container that runs and shares a network with the one to be, or refuse it."""
        link = parse_link(text)
        identities = [network.id for network in networks]
        if next(find_linked(self._context, (link,), identities), None) is not None:
            return link
        try:
            target = self._find(link.target)
        except NotFound as error:
            raise InvalidRequest(
                f"could not get container for {link.target}: {error.message}", hint=error.hint
            ) from None
        link = replace(link, target=target.name)
        if not target.is_up:
            raise Conflict(
                f"Cannot link to a non running container: /{target.name} AS /{container.name}/{link.alias}",
                hint=f"netagent start {target.name}",
            )
        if next(find_linked(self._context, (link,), identities), None) is None:
            raise Conflict(
                f"Cannot link to /{target.name}, as it does not belong to network {networks[0].name}",
                hint=f"netagent network connect {networks[0].name} {target.name}",
            )
        return link


def _parse_spec(request: NewContainer, container: Container) -> ContainerSpec:
    if request.rootfs and not Path(request.rootfs).is_dir():
        raise InvalidRequest(
            f"--rootfs {request.rootfs} is not a directory", hint="give the path of a root file system"
        )
    return ContainerSpec(
        id=container.id,
        name=container.name,
        command=container.command,
        hostname=container.hostname,
        environment=parse_environment(request.environment, {}),
        mounts=parse_mounts(request.mounts),
        rootfs=request.rootfs or None,
        working_directory=parse_directory(request.working_directory, what="working directory"),
        terminal=request.terminal,
        interactive=request.interactive,
        sandbox=container.sandbox or None,
        sysctls=parse_sysctls(request.sysctls, own_network=bool(container.sandbox)),
        cap_add=parse_capabilities(request.cap_add, what="CapAdd"),
        cap_drop=parse_capabilities(request.cap_drop, what="CapDrop"),
    )


def _parse_mode(connection: Connection) -> tuple[NetworkMode, tuple[str, ...]]:
    """Return the mode that ``--network`` asks for, and its texts; modes do not mix, in Docker's words."""
    texts = names_of(split_networks(connection))
    special = [t for t in texts if t in (NetworkMode.HOST, NetworkMode.NONE) or t.startswith("container:")]
    if not special:
        return NetworkMode.NETWORKS, texts
    if len(texts) > 1:
        if NetworkMode.NONE in special:
            raise InvalidRequest(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode",
                hint="leave out --network none, or all others",
            )
        raise InvalidRequest(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            hint=f"leave out --network {special[0]}, or all others",
        )
    if special[0].startswith("container:"):
        if special[0] == "container:":
            raise InvalidRequest("--network container: needs a name", hint="--network container:NAME")
        return NetworkMode.CONTAINER, texts
    return NetworkMode(special[0]), texts


def _refuse_names(request: NewContainer, mode: NetworkMode) -> None:
    """Refuse options about names that have no meaning in a mode without endpoints, in Docker's words."""
    if request.links:
        kind = {NetworkMode.HOST: "host type networking", NetworkMode.CONTAINER: "container type network"}
        raise InvalidRequest(
            f"conflicting options: {kind.get(mode, 'a container without network')} can't be used with links."
            " This would result in undefined behavior",
            hint="leave out --link",
        )
    if mode is NetworkMode.CONTAINER and (request.dns or request.dns_search or request.dns_options):
        raise InvalidRequest("conflicting options: dns and the network mode", hint=_ASK_OTHER)
    if mode is NetworkMode.CONTAINER and request.extra_hosts:
        raise InvalidRequest("conflicting options: custom host-to-IP mapping and the network mode", hint=_ASK_OTHER)


def _refuse_meaningless(connection: Connection, mode: NetworkMode, *, hostname: str) -> tuple[str, ...]:
    """Refuse options that have no meaning in a mode without endpoints, in Docker's words; return warnings."""
    shared = mode is NetworkMode.CONTAINER
    (text,) = split_networks(connection)
    if text.addresses or text.link_local:
        raise InvalidRequest("user specified IP address is supported on user defined networks only", hint=_OWN_NETWORK)
    if text.aliases:
        raise InvalidRequest("network-scoped aliases are only supported for user-defined networks", hint=_OWN_NETWORK)
    if text.mac:
        raise InvalidRequest("conflicting options: mac-address and the network mode", hint=_OWN_NETWORK)
    if text.interface:
        raise InvalidRequest("conflicting options: interface name and the network mode", hint=_OWN_NETWORK)
    if hostname and shared:
        raise InvalidRequest("conflicting options: hostname and the network mode", hint=_ASK_OTHER)
    if (connection.publish or connection.publish_all) and shared:
        raise InvalidRequest(
            "conflicting options: port publishing and the container type network mode", hint=_ASK_OTHER
        )
    if connection.expose and shared:
        raise InvalidRequest("conflicting options: port exposing and the container type network mode", hint=_ASK_OTHER)
    if (connection.publish or connection.publish_all) and mode is NetworkMode.HOST:
        return ("Published ports are discarded when using host network mode",)
    return ()
