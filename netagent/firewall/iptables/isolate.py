"""Isolation (``firewall.isolate``): which interfaces may forward to which.

From ``PATHS`` on it is one decision: the chains go to each other and do not jump, so RETURN in any leaves them all.
"""

from collections.abc import Iterator

from netagent.firewall.apart import MARK as MARK_BIT
from netagent.firewall.iptables import apart
from netagent.firewall.iptables.pieces import PREFIX, Frame, Piece, frames, parts, rules
from netagent.firewall.iptables.routed import NAMES, REMOTE_NAMES

ANSWERS = "-m conntrack --ctstate RELATED,ESTABLISHED"
TRANSLATED = "-m conntrack --ctstate DNAT"
GRE = {"ip": "0x6&0xff=0x2f", "ip6": "0x3&0xff=0x2f"}
"""Protocol 47, as ``u32`` reads it: by name or by number it would be listed as the machine's /etc/protocols has it."""
GREPEERS = {family: f"{PREFIX}grepeers{version}" for family, version in (("ip", 4), ("ip6", 6))}
VXLAN = "-p udp -m udp --dport 4789"

FRAMES: tuple[Frame, ...] = (
    *(
        frame
        for family, gre in GRE.items()
        for frame in frames(
            "FORWARD",
            table="mangle",
            hooks=("FORWARD",),
            families=(family,),
            head=(
                f"{VXLAN} -j {PREFIX}LEAVING",
                f'-m u32 --u32 "{gre}" -m set --match-set {GREPEERS[family]} dst -j {PREFIX}LEAVING',
                f"-j {PREFIX}SEPARATE",
                f"{TRANSLATED} -m physdev ! --physdev-is-bridged -j {PREFIX}NEIGHBOURS",
                f"-j {PREFIX}PATHS",
            ),
        )
    ),
    *frames("LEAVING", table="mangle"),
    *(
        frame
        for family, gre in GRE.items()
        for frame in frames(
            "LEAVING-BY",
            table="mangle",
            families=(family,),
            tail=(f'-m u32 --u32 "{gre}" -j DROP', f"-j {PREFIX}VNIS"),
        )
    ),
    *frames("SEPARATE", table="mangle"),
    *frames("SEPARATE-TO", table="mangle"),
    *frames(
        "APART",
        table="mangle",
        head=(
            f"{TRANSLATED} -j MARK --set-xmark {apart.PROVEN}",
            f"{TRANSLATED} -j RETURN",
            f"{ANSWERS} -j RETURN",
            f"-g {PREFIX}LINKED",
        ),
    ),
    *frames("LINKED", table="mangle", tail=("-j DROP",)),
    *frames("NEIGHBOURS", table="mangle"),
    *(
        frame
        for family, remote in REMOTE_NAMES.items()
        for frame in frames(
            "PATHS",
            table="mangle",
            families=(family,),
            tail=(
                f"-m set --match-set {remote} src,dst -g {PREFIX}WAYS-IN",
                f"-m set --match-set {remote} dst,src -g {PREFIX}WAYS-OUT",
                f"-g {PREFIX}BEYOND",
            ),
        )
    ),
    *frames("BEYOND", table="mangle", head=(f"-j {PREFIX}INTERNAL", f"{ANSWERS} -j RETURN", f"-g {PREFIX}INSIDE")),
    *frames("INTERNAL", table="mangle"),
    *(
        frame
        for family, routed in NAMES.items()
        for frame in frames(
            "INSIDE",
            table="mangle",
            families=(family,),
            tail=(
                f"-j {PREFIX}TUNNELS",
                f"-m set --match-set {routed} src -j DROP",
                f"-m set --match-set {routed} dst -j DROP",
            ),
        )
    ),
    *frames("ENTER", table="mangle", head=(f"{TRANSLATED} -j RETURN", f"-g {PREFIX}DIRECT")),
    *frames("TUNNELS", table="mangle"),
)

MARK = f"{MARK_BIT:#x}/{MARK_BIT:#x}"
"""What a translated packet between two interfaces of one network gets on its way to POSTROUTING.

iptables cannot match the inbound interface there. It is set after routing and on such packets alone.
"""


def inside(element: str) -> Iterator[Piece]:
    """Yield what holds for packets that enter or leave by an interface of a network."""
    yield from rules("LEAVING", f"-i {element} -j {PREFIX}LEAVING-BY", table="mangle")
    yield from rules("LEAVING-BY", f"-o {element} -j RETURN", table="mangle")
    yield from rules("INSIDE", f"-o {element} -g {PREFIX}ENTER", table="mangle")
    yield from rules("OPEN", f"-i {element} -j DROP", table="mangle")
    yield from rules("REDIRECTS", f"-o {element} -j DROP", table="mangle")
    yield from rules("RECEIVED", f"-o {element} -j {PREFIX}RECEIVED-PORT", table="mangle")
    yield from rules("SENT", f"-i {element} -j {PREFIX}SENT-PORT", table="mangle")
    yield from rules("OUTWARD", f"-o {element} -j RETURN", table="nat")
    yield from rules("LOOPBACK", f"-o {element} -j MASQUERADE", table="nat", families=("ip",))


def tunnels(element: str) -> Iterator[Piece]:
    """Yield the two checks of what comes out of a tunnel: its source lies behind it, and it goes to a container."""
    for family, remote in REMOTE_NAMES.items():
        stranger = f"-i {element} -m set ! --match-set {remote} src,src -m rpfilter --invert -j DROP"
        yield from rules("SOURCES", stranger, table="raw", families=(family,))
    yield from rules("TUNNELS", f"-i {element} -j DROP", table="mangle")


def internal(element: str) -> Iterator[Piece]:
    """Yield the drops, both ways, of a network that has no outside."""
    yield from rules("INTERNAL", f"-i {element} -j DROP", table="mangle")
    yield from rules("INTERNAL", f"-o {element} -j DROP", table="mangle")


def separate(element: str) -> Iterator[Piece]:
    """Yield what keeps the containers of a network without ICC apart."""
    yield from rules("SEPARATE", f"-i {element} -j {PREFIX}SEPARATE-TO", table="mangle")
    yield from rules("SEPARATE-TO", f"-o {element} -j {PREFIX}APART", table="mangle")


def paths(element: str) -> Iterator[Piece]:
    """Yield the way between two interfaces of one network, and the mark of published ports used on it."""
    source, target = parts(element)
    yield from rules("PATHS", f"-i {source} -o {target} -j RETURN", table="mangle")
    yield from rules("NEIGHBOURS", f"-i {source} -o {target} -j MARK --set-xmark {MARK}", table="mangle")
