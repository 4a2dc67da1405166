"""Published ports as Docker shows them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from netagent.cli.output import Json, natural_key

if TYPE_CHECKING:
    from netagent.v1.containers_pb2 import Container, Endpoint

_WILDCARDS = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - it is only printed


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One host address and port that leads to one container port; from ``sources`` alone, from anywhere if empty."""

    protocol: str
    container_port: int
    host_address: str
    host_port: int
    sources: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The container's side as Docker writes it, ``80/tcp``."""
        return f"{self.container_port}/{self.protocol}"

    @property
    def host(self) -> str:
        """The host's side, ``0.0.0.0:4000`` or ``[::]:4000``."""
        return f"{bracketed(self.host_address)}:{self.host_port}"

    @property
    def limit(self) -> str:
        """Who alone is let in, as ``-p`` writes it: ``@10.0.0.0/8``; empty for anybody."""
        return f"@{','.join(self.sources)}" if self.sources else ""


def bindings_of(container: "Container") -> list[Binding]:
    """Return what is published of a container, sorted by container port. A port on every address counts per family.

    Where its network is routed no port of the host leads to it.
    """
    found = {
        Binding(
            protocol=port.protocol,
            container_port=port.container_port + index,
            host_address=address,
            host_port=port.host_port + index,
            sources=tuple(port.sources),
        )
        for endpoint in container.endpoints
        for port in endpoint.ports
        for address in ([port.host_address] if port.host_address else _wildcards(endpoint))
        if (6 if ":" in address else 4) not in endpoint.routed
        for index in range(port.count or 1)
    }
    return sorted(found, key=lambda b: (natural_key(b.key), ":" in b.host_address, b.host_address, b.host_port))


def port_map(bindings: Iterable[Binding], exposed: Iterable[str] = ()) -> Json:
    """Return ``NetworkSettings.Ports``; what is ``exposed`` but not published has no value there."""
    return dict.fromkeys(exposed) | {
        key: [_binding_json(binding) for binding in group] for key, group in groupby(bindings, lambda b: b.key)
    }


def _binding_json(binding: Binding) -> Json:
    """Return Docker's object for a binding, and ours beside it where there is more to say."""
    limit = {"Sources": list(binding.sources)} if binding.sources else {}
    return {"HostIp": binding.host_address, "HostPort": str(binding.host_port), **limit}


def port_summary(bindings: Iterable[Binding], exposed: Iterable[str] = ()) -> str:
    """Return the cell PORTS of ``docker ps``: runs of equal numbers on both sides become one range."""
    known = tuple(bindings)
    straight = sorted(
        (b for b in known if b.host_port == b.container_port),
        key=lambda b: (b.protocol, ":" in b.host_address, b.host_address, b.limit, b.host_port),
    )
    parts = [_range_text(first, last) for first, last in _runs(straight)]
    parts += [f"{b.host}->{b.key}{b.limit}" for b in known if b.host_port != b.container_port]
    published = {b.key for b in known}
    parts += [key for key in sorted(exposed, key=natural_key) if key not in published]
    return ", ".join(parts)


def bracketed(address: str) -> str:
    """Return an address so that a port may follow after a colon."""
    return f"[{address}]" if ":" in address else address


def _wildcards(endpoint: "Endpoint") -> list[str]:
    versions = {6 if ":" in a.address else 4 for a in endpoint.addresses}
    return [_WILDCARDS[version] for version in sorted(versions)]


def _runs(bindings: Iterable[Binding]) -> Iterator[tuple[Binding, Binding]]:
    """Yield the first and last of each run of consecutive ports at one address."""
    first = last = None
    for binding in bindings:
        if (
            first is not None
            and last is not None
            and (binding.protocol, binding.host_address, binding.sources)
            == (last.protocol, last.host_address, last.sources)
            and binding.host_port == last.host_port + 1
        ):
            last = binding
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = binding
    if first is not None and last is not None:
        yield first, last


def _range_text(first: Binding, last: Binding) -> str:
    if first is last:
        return f"{first.host}->{first.key}{first.limit}"
    ports = f"{first.host_port}-{last.host_port}"
    return f"{bracketed(first.host_address)}:{ports}->{ports}/{first.protocol}{first.limit}"
