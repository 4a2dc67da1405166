"""The network between the machines of a lab: a bridge in a namespace of its own, and a cable to each of them."""

from netagent.lab.command import ip_batch, run
from netagent.lab.layout import UNDERLAY_V4, UNDERLAY_V6, Layout, Seat

UNDERLAY_INTERFACE = "eth0"
_BRIDGE = "br0"

# A switch has no firewall: without this its frames pass br_netfilter, which every new namespace switches on.
_PLAIN_SWITCH = """
cd /proc/sys/net/bridge 2>/dev/null || exit 0
for setting in bridge-nf-call-iptables bridge-nf-call-ip6tables bridge-nf-call-arptables; do echo 0 > $setting; done
"""


def build_switch(layout: Layout) -> None:
    """Make the namespaces of all machines, and the switch between them, still without cables."""
    ip_batch(f"netns add {netns}" for netns in layout.namespaces)
    run(["nsenter", f"--net=/run/netns/{layout.switch}", "sh", "-ec", _PLAIN_SWITCH])
    ip_batch(
        [
            "link set lo up",
            f"link add {_BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set {_BRIDGE} mtu {layout.mtu} addrgenmode none up",
        ],
        netns=layout.switch,
    )


def plug_in(layout: Layout, seat: Seat) -> None:
    """Lay the cable of one machine and give its end the addresses of its seat.

    Both ends are made where they belong: nothing appears in the machine's own namespace, not for a moment.
    """
    port, mtu, end = seat.name, layout.mtu, f"name {UNDERLAY_INTERFACE} address {seat.mac}"
    ip_batch(
        [
            f"link add {port} mtu {mtu} type veth peer {end} mtu {mtu} netns {seat.netns}",
            f"link set {port} master {_BRIDGE} addrgenmode none up",
        ],
        netns=layout.switch,
    )
    ip_batch(
        [
            "link set lo up",
            # Nobody else has them: duplicate address detection would only hold them back for a second.
            *(
                f"address add {address} dev {UNDERLAY_INTERFACE}{' nodad' if ':' in address else ''}"
                for address in underlay_addresses(layout, seat)
            ),
            f"link set {UNDERLAY_INTERFACE} up",
        ],
        netns=seat.netns,
    )


def underlay_addresses(layout: Layout, seat: Seat) -> list[str]:
    """Return the addresses of a machine's underlay interface, with their prefix lengths."""
    ipv6 = f"{seat.ipv6}/{UNDERLAY_V6.prefixlen}"
    return [ipv6] if layout.underlay == "ipv6" else [f"{seat.ipv4}/{UNDERLAY_V4.prefixlen}", ipv6]


def unplug(layout: Layout, seat: Seat) -> None:
    """Pull the cable of one machine: both its ends are gone when this returns."""
    ip_batch([f"link del {seat.name}"], netns=layout.switch)


def remove_namespaces(namespaces: list[str]) -> None:
    """Delete those namespaces, and with them all interfaces in them."""
    ip_batch([f"netns del {netns}" for netns in namespaces], force=True)


def complete_checksums(netns: str, interface: str) -> None:
    """Let the machine fill in checksums itself: Open vSwitch's userspace datapath takes what is on a veth as it is."""
    run(["nsenter", f"--net=/run/netns/{netns}", "ethtool", "-K", interface, "tx", "off"])
