"""What a container's interfaces are called: as asked for, else by the network's prefix and the next number. Pure."""

from collections.abc import Collection, Sequence
from itertools import count

from netagent.errors import AlreadyExists
from netagent.model.ids import parse_interface_name
from netagent.model.network import Network
from netagent.services.network_texts import NetworkText


def choose_interfaces(
    texts: Sequence[NetworkText], networks: Sequence[Network], *, used: Collection[str] = (), first: str = ""
) -> tuple[str, ...]:
    """Return a name for the interface in each network; ``first`` is that of the first one, if not empty.

    ``used`` are those that the container has already. Raises AlreadyExists if a name is asked for that is taken.
    """
    asked = [parse_interface_name(name) if name else "" for name in (text.interface for text in texts)]
    if first:
        asked[0] = parse_interface_name(first)
    taken = [*used, "lo"]
    for name in filter(None, asked):
        if name in taken:
            raise AlreadyExists(
                f"interface {name} is there already", hint="choose another interface name", interface=name
            )
        taken.append(name)
    chosen: list[str] = []
    for position, (name, network) in enumerate(zip(asked, networks, strict=True)):
        prefix = network.interface_prefix
        start = sum(earlier.interface_prefix == prefix for earlier in networks[:position])
        numbered = (f"{prefix}{number}" for number in count(start))
        chosen.append(name or next(candidate for candidate in numbered if candidate not in taken))
        taken.append(chosen[-1])
    return tuple(chosen)
