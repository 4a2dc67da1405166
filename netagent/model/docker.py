"""What dockerd has asked of this host: its networks, and the address pools that it holds.

Docker has ids of its own for networks and tells no names; an endpoint's id it shares with netagent.
"""

from dataclasses import dataclass

from netagent.model.ids import NetworkId


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerPool:
    """A subnet that Docker's address management was given, ``users`` times.

    ``id`` is what Docker calls it by. ``ip_range`` is where automatic addresses come from, empty for all of it.
    """

    id: str
    subnet: str
    ip_range: str = ""
    users: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerNetwork:
    """A network of this host's dockerd, and the network of netagent that it stands for.

    ``digest`` tells a repeated request from another one for the same ``id``. ``engine`` is the dockerd that was seen
    to have it, as that calls itself; empty while none was.
    """

    id: str
    network_id: NetworkId
    digest: str
    subnets: tuple[str, ...]
    engine: str = ""
