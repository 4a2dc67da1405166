"""What netagent asks of other people's firewalls: an accept where each of them has a place for such, marked as ours.

An accept in a table of ours cannot overrule a drop in somebody else's. Into a network everything is let pass there,
because netagent's own rules decide about it. Out of a network, new connections are let pass towards the outside only:
what protects other programs' containers on this host from ours stays in force.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from netagent.plan.desired import LINK_PREFIX

MARK = "netagent"
"""The comment of our rules, the name of our zone, the beginning of our policies' names."""

DNS_PORT, VXLAN_PORT = 53, 4789
DOCKER_CHAIN = "DOCKER-USER"
UFW_CHAINS = ("ufw-user-forward", "ufw-user-input")
MARKED_CHAINS = frozenset({DOCKER_CHAIN, *UFW_CHAINS})
"""Chains of other programs in which our marks are rules."""

INSIDE = f"{LINK_PREFIX}+"
"""All interfaces of ours, as iptables, ufw and firewalld write it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What other firewalls must let pass. ``inside`` and ``outside`` are interfaces, ``INSIDE`` among the former.

    ``tunnels`` are the kinds of tunnel packets that come from other hosts: "vxlan", "gre".
    """

    inside: tuple[str, ...] = (INSIDE,)
    outside: tuple[str, ...] = ()
    tunnels: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """What can be seen of other programs' rules: pairs of where (a family of nftables, or "legacy4") and chain.

    ``legacy``: there are tables of iptables-legacy, whose chains must be asked for.
    """

    chains: frozenset[tuple[str, str]] = frozenset()
    legacy: bool = False


def docker_rules(needs: Needs) -> tuple[str, ...]:
    """Return the rules for the chain DOCKER-USER, as ``iptables -S`` writes them, without their ``-A DOCKER-USER``."""
    mark = f"-m comment --comment {MARK} -j ACCEPT"
    return (
        *(f"-o {name} {mark}" for name in needs.inside),
        *(f"-i {name} -m conntrack --ctstate RELATED,ESTABLISHED {mark}" for name in needs.inside),
        *(f"-i {name} -o {out} {mark}" for name in needs.inside for out in needs.outside),
    )


def ufw_rules(needs: Needs) -> tuple[str, ...]:
    """Return ufw's rules as ``ufw show added`` writes them, without the comment."""
    tunnels = {"vxlan": f"ufw allow {VXLAN_PORT}/udp", "gre": "ufw allow to any proto gre"}
    return (
        *(f"ufw route allow out on {name}" for name in needs.inside),
        *(f"ufw route allow in on {name} out on {out}" for name in needs.inside for out in needs.outside),
        *(f"ufw allow in on {name} to any port {DNS_PORT}" for name in needs.inside),
        *(tunnels[kind] for kind in sorted(needs.tunnels)),
    )


def firewalld_files(needs: Needs) -> dict[str, str]:
    """Return firewalld's configuration files of ours, by path below its directory (firewalld.zone(5), …policy(5)).

    The zone lets containers ask for names and nothing else of the host; what is forwarded is left to policies.
    """
    interfaces = (f'<interface name="{name}"/>' for name in needs.inside)
    tunnels = {"vxlan": f'<port port="{VXLAN_PORT}" protocol="udp"/>', "gre": '<protocol value="gre"/>'}
    opened = [tunnels[kind] for kind in sorted(needs.tunnels)]
    files = {
        f"zones/{MARK}.xml": _document("zone", "", ('<service name="dns"/>', *interfaces, "<forward/>")),
        f"policies/{MARK}-in.xml": _policy("ACCEPT", "ANY", MARK, ()),
        f"policies/{MARK}-out.xml": _policy("ACCEPT", MARK, "ANY", ()),
        f"policies/{MARK}-tunnels.xml": _policy("CONTINUE", "ANY", "HOST", opened),
    }
    return files if opened else {path: text for path, text in files.items() if "tunnels" not in path}


def firewalld_chains(files: Iterable[str]) -> frozenset[tuple[str, str]]:
    """Return chains that firewalld has while it has loaded ``files``, with the backend nftables."""
    chains = set()
    for path in files:
        kind, _, name = path.removesuffix(".xml").partition("/")
        hook = "IN" if name.endswith("-tunnels") else "FWD"
        chains.add(("inet", f"filter_{hook}_{name}" if kind == "zones" else f"filter_{hook}_policy_{name}"))
    return frozenset(chains)


def _policy(target: str, ingress: str, egress: str, content: Iterable[str]) -> str:
    zones = (f'<ingress-zone name="{ingress}"/>', f'<egress-zone name="{egress}"/>')
    return _document("policy", f' target="{target}"', (*zones, *content))


def _document(kind: str, attributes: str, content: Iterable[str]) -> str:
    lines = (
        '<?xml version="1.0" encoding="utf-8"?>',
        f"<{kind}{attributes}>",
        f"  <short>{MARK}</short>",
        "  <description>Made by netagent; changes are overwritten. See coexist in agent.toml.</description>",
        *(f"  {line}" for line in content),
        f"</{kind}>",
    )
    return "\n".join(lines) + "\n"
