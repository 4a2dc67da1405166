"""Who this host is: a UUID made at the first start and kept, a name, and its place on the network between hosts."""

import os
import socket
import uuid
from pathlib import Path

from netagent.daemon.config import Config
from netagent.errors import EnvironmentProblem, InvalidRequest
from netagent.model.address import Address, Prefix, collapse, host_prefix, parse_underlay
from netagent.model.host import Host, HostFacts
from netagent.model.ids import HostId, parse_name

ROUTES_LIMIT = 256
"""Prefixes of its own that a host tells the others of."""

DEFAULT_MTU = 1500
"""For a host without any interface but loopback (bytes)."""


def load_host_id(state_dir: Path) -> HostId:
    """Return this host's UUID, made and kept in the state directory at the first start."""
    path = state_dir / "host-id"
    try:
        return HostId(str(uuid.UUID(path.read_text().strip())))
    except FileNotFoundError:
        pass
    except ValueError:
        raise EnvironmentProblem(
            f"{path} does not hold a UUID", hint="restore it; a new one would make this host a stranger to its blocks"
        ) from None
    identity = str(uuid.uuid4())
    aside = path.with_suffix(".new")
    with aside.open("w") as file:
        file.write(identity + "\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    return HostId(identity)


def boot_id() -> str:
    """Return what tells this boot of the machine from every other one (proc_sys_kernel(5), random)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def describe_host(host_id: HostId, config: Config, facts: HostFacts) -> Host:
    """Return this host as the others shall know it."""
    name = parse_name(config.host_name or socket.gethostname().partition(".")[0], what="host")
    interface = _underlay_interface(config, facts)
    if interface is None:
        return Host(id=host_id, name=name, underlay=(), mtu=DEFAULT_MTU)
    mtu, addresses = facts.interfaces[interface]
    chosen = (parse_underlay(config.host_ip, what="--host-ip"),) if config.host_ip else ()
    versions = {address.version for address in chosen}
    rest = tuple(a for a in addresses if not a.is_link_local and a.version not in versions)
    on_link = {
        r.prefix
        for r in facts.routes
        if r.device == interface and r.on_link and r.prefix.prefixlen and not r.prefix.is_link_local
    }
    return Host(
        id=host_id,
        name=name,
        underlay=chosen + _one_each(rest),
        mtu=mtu,
        interface=interface,
        on_link=tuple(sorted(on_link, key=lambda p: (p.version, p))),
        features=facts.features,
        routes=_routed(facts),
    )


def _routed(facts: HostFacts) -> tuple[Prefix, ...]:
    """Return what the machine itself routes or has addresses in; the widest if there are too many to tell."""
    prefixes = {route.prefix for route in facts.routes if route.prefix.prefixlen}
    prefixes |= {host_prefix(address) for _, addresses in facts.interfaces.values() for address in addresses}
    found: list[Prefix] = []
    for version in (4, 6):
        own = (p for p in prefixes if p.version == version and not (p.is_link_local or p.is_loopback or p.is_multicast))
        found += collapse(own)
    return tuple(sorted(found, key=lambda p: (p.prefixlen / p.max_prefixlen, p.version, p))[:ROUTES_LIMIT])


def _underlay_interface(config: Config, facts: HostFacts) -> str | None:
    if config.host_ip:
        wanted = parse_underlay(config.host_ip, what="--host-ip")
        for name, (_, addresses) in facts.interfaces.items():
            if wanted in addresses:
                return name
        raise InvalidRequest(
            f"no interface of this host has the address {wanted}", hint="give --host-ip one that `ip address` shows"
        )
    if facts.default_device is not None:
        return facts.default_device
    candidates = (n for n, (_, a) in facts.interfaces.items() if n != "lo" and any(not x.is_link_local for x in a))
    return next(candidates, None)


def _one_each(addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    by_version: dict[int, Address] = {}
    for address in addresses:
        by_version.setdefault(address.version, address)
    return tuple(by_version[version] for version in sorted(by_version))
