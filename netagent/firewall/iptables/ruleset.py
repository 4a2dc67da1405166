"""The translations put together: which function is for which set, and all frames.

A new set of ``firewall.ruleset`` needs a line in ``TRANSLATIONS``, or in ``UNTRANSLATED`` the reason why it has none.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from netagent.firewall.counting import RECEIVED, SENT
from netagent.firewall.iptables import (
    apart,
    counting,
    direct,
    isolate,
    linked,
    masquerade,
    neighbour_filter,
    publish,
    redirect,
    resolve,
    routed,
    spoof,
    tunnel,
)
from netagent.firewall.iptables.pieces import Frame, Ipset, Piece

FRAMES: tuple[Frame, ...] = (
    *publish.FRAMES,
    *masquerade.FRAMES,
    *isolate.FRAMES,
    *direct.FRAMES,
    *redirect.FRAMES,
    *resolve.FRAMES,
    *routed.FRAMES,
    *tunnel.FRAMES,
    *spoof.FRAMES,
    *apart.FRAMES,
    *counting.FRAMES,
)

IPSETS: tuple[Ipset, ...] = masquerade.IPSETS + routed.IPSETS + tunnel.IPSETS + counting.IPSETS
"""Those that frames name, whether they have members or not."""

TRANSLATIONS: Mapping[str, Callable[[str], Iterable[Piece]]] = MappingProxyType(
    {
        "inside": isolate.inside,
        "tunnels": isolate.tunnels,
        "internal": isolate.internal,
        "separate": isolate.separate,
        "paths": isolate.paths,
        "trusted": direct.trusted,
        "open4": direct.open4,
        "open6": direct.open6,
        "served4": direct.served4,
        "served6": direct.served6,
        "linked4": linked.linked4,
        "linked6": linked.linked6,
        "ways": routed.ways,
        "routed4": routed.routed4,
        "routed6": routed.routed6,
        "remote4": routed.remote4,
        "remote6": routed.remote6,
        "masquerade4": masquerade.masquerade4,
        "masquerade6": masquerade.masquerade6,
        "kept4": masquerade.kept4,
        "kept6": masquerade.kept6,
        "outbound4": masquerade.outbound4,
        "outbound6": masquerade.outbound6,
        "hairpin4": masquerade.hairpin4,
        "hairpin6": masquerade.hairpin6,
        **publish.TRANSLATIONS,
        "resolve4": resolve.resolve4,
        "resolve6": resolve.resolve6,
        "vnis": tunnel.vnis,
        "peers4": tunnel.peers4,
        "peers6": tunnel.peers6,
        "grepeers4": tunnel.grepeers4,
        "grepeers6": tunnel.grepeers6,
        "anykey": tunnel.anykey,
        **tunnel.BEHIND,
        "bridge/macs": spoof.macs,
        "bridge/sources4": spoof.sources4,
        "bridge/sources6": spoof.sources6,
        "bridge/separate": apart.separate,
    }
)
"""Set -> what one element of it becomes."""

UNTRANSLATED: Mapping[str, str] = MappingProxyType(
    {
        "lanes": "they accept sooner what is accepted in any case",
        **dict.fromkeys(("near4", "near6"), "lanes alone ask them; ``remote4`` and ``remote6`` say the same"),
        neighbour_filter.SET_NAME: "a program at each port does what ebtables cannot",
        **dict.fromkeys(RECEIVED + SENT, "rules make its elements"),
    }
)
"""Set -> why its elements become nothing."""


def translate(set_name: str, element: str) -> tuple[Piece, ...]:
    """Return the rules, ipsets and members that one element becomes."""
    function = TRANSLATIONS.get(set_name)
    return tuple(function(element)) if function else ()
