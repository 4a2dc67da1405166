"""Counters of published ports (``firewall.counting``): ipsets that rules fill, by a container's address and port."""

from collections.abc import Iterable, Mapping

from netagent.firewall.counting import RECEIVED, SENT, ServedPort, ports_in
from netagent.firewall.iptables.pieces import BOTH, IPSET_FAMILIES, PREFIX, Frame, Ipset, frames
from netagent.model.address import parse_address
from netagent.model.port import PROTOCOLS

IPSETS = tuple(
    Ipset(name=f"{PREFIX}{name}", kind=f"hash:ip,port family {IPSET_FAMILIES[int(name[-1])]}", counters=True)
    for name in RECEIVED + SENT
)
NAMES = frozenset(ipset.name for ipset in IPSETS)


def _frames(chain: str, hook: str, direction: str, end: str, names: tuple[str, ...]) -> tuple[Frame, ...]:
    return tuple(
        frame
        for family, name in zip(BOTH, names, strict=True)
        for frame in (
            *frames(
                f"COUNT-{chain}",
                table="mangle",
                hooks=(hook,),
                families=(family,),
                head=(f"-m conntrack --ctstate DNAT --ctdir {direction} -j {PREFIX}{chain}",),
            ),
            *frames(chain, table="mangle", families=(family,)),
            *frames(
                f"{chain}-PORT",
                table="mangle",
                families=(family,),
                # A member that is there is counted by the match; putting it again would begin at nothing.
                head=(
                    f"-m set --match-set {PREFIX}{name} {end},{end} -j RETURN",
                    f"-j SET --add-set {PREFIX}{name} {end},{end}",
                ),
            ),
        )
    )


FRAMES: tuple[Frame, ...] = (
    *_frames("RECEIVED", "POSTROUTING", "ORIGINAL", "dst", RECEIVED),
    *_frames("SENT", "PREROUTING", "REPLY", "src", SENT),
)


def parse_counted(saved: str) -> dict[ServedPort, tuple[int, int]]:
    """Return the bytes and packets by port out of what ``ipset save`` prints of one of the ipsets."""
    found: dict[ServedPort, tuple[int, int]] = {}
    for line in saved.splitlines():
        verb, _, member, *words = line.split()
        address, _, service = member.rpartition(",")
        protocol, _, port = service.partition(":")
        if verb == "add" and protocol in PROTOCOLS:
            values = dict(zip(words[::2], words[1::2], strict=False))
            found[parse_address(address), protocol, int(port)] = (int(values["bytes"]), int(values["packets"]))
    return found


def forget_counted(gone: Mapping[str, Iterable[str]]) -> str:
    """Return what ``ipset restore`` must be given so that counting begins anew for the ports of these elements."""
    ports = {port for set_name, elements in gone.items() for port in ports_in(set_name, elements)}
    return "".join(
        f"del {PREFIX}{way[address.version == 6]} {address},{protocol}:{port}\n"
        for address, protocol, port in sorted(ports, key=str)
        for way in (RECEIVED, SENT)
    )
