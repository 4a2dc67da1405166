"""The datapaths of the drivers as one would set them up with ip and ovs-vsctl, to measure against.

On hosts without netagent. Of rules there is the one by which containers reach the outside, which makes the kernel track
connections, as in every network of containers; on hosts that are ``checked`` there are those of ``checks`` as well.
"""

from collections.abc import Sequence

from tests.bench.checks import BEGIN, KERNEL_GRE, KEY, VXLAN_PORT, Checked, check_by_hand
from tests.bench.way import End, Place, Way, enter

_MTU = {"vxlan": 1450, "route": 1500, "gre": 1458, KERNEL_GRE: 1458}


def name_by_hand(driver: str, *, checked: bool) -> str:
    """Return the name of a driver's way by hand."""
    return f"{driver} by hand, checks" if checked else f"{driver} by hand"


def way_by_hand(hosts: Sequence[Place], driver: str, number: int, *, plain: str, checked: bool) -> Way:
    """Set the datapath of a driver up between two hosts and return the way between the containers there."""
    for host, peer in (hosts, hosts[::-1]):
        _set_up(host, peer, driver, number, checked=checked)
    client, server = (End(host=host, inside=enter(_container(host, driver))) for host in hosts)
    return Way(
        name=name_by_hand(driver, checked=checked),
        client=client,
        server=server,
        target=f"{_block(hosts[1], number)}.2",
        group=driver,
        closely=True,
        plain=plain,
    )


def _container(host: Place, driver: str) -> str:
    """Return the namespace of the container by hand on a host."""
    return f"{driver}-{host.name}"


def _block(host: Place, number: int) -> str:
    """Return the leading octets of the addresses behind a host."""
    return f"10.6{number}.{host.name[1:]}"


def _set_up(host: Place, peer: Place, driver: str, number: int, *, checked: bool) -> None:
    """Give ``host`` a bridge, a container behind it, and the way to the peer's."""
    if checked and number == 1:
        host.run("nft", "-f", "-", stdin=BEGIN)
    own, far = (_block(each, number) for each in (host, peer))
    container, bridge, mtu = _container(host, driver), f"hb{number}", str(_MTU[driver])
    for command in (
        f"netns add {container}",
        f"link add {bridge} type bridge",
        f"link set {bridge} up",
        f"address add {own}.1/24 dev {bridge}",
        f"link add hc{number} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {container}",
        f"link set hc{number} master {bridge} up",
        f"-n {container} link set eth0 up",
        f"-n {container} address add {own}.2/24 dev eth0",
        f"-n {container} route add default via {own}.1",
    ):
        host.run("ip", *command.split())
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    network = f"10.6{number}.0.0/16"
    host.run("nft", "add table ip by_hand; add chain ip by_hand out { type nat hook postrouting priority srcnat; }")
    host.run("nft", f"add rule ip by_hand out ip saddr {network} ip daddr != {network} masquerade")
    _WAYS[driver](host, peer, own, far)
    if checked:
        check_by_hand(host, driver, Checked(number=number, container=container, own=own, far=far, peer=str(peer.ip)))


def set_up_bridge(host: Place) -> None:
    """Give ``host`` a bridge with the containers ``hand1`` and ``hand2``, 10.68.0.1 and 10.68.0.2."""
    host.run("ip", "link", "add", "hl0", "type", "bridge")
    host.run("ip", "link", "set", "hl0", "up")
    for number in (1, 2):
        name = f"hand{number}"
        for command in (
            f"netns add {name}",
            f"link add hl{number} type veth peer name eth0 netns {name}",
            f"link set hl{number} master hl0 up",
            f"-n {name} link set eth0 up",
            f"-n {name} address add 10.68.0.{number}/24 dev eth0",
        ):
            host.run("ip", *command.split())


def _mac(host: Place) -> str:
    return f"02:00:00:00:77:0{host.name[1:]}"


def _by_route(host: Place, peer: Place, own: str, far: str) -> None:
    host.run("ip", "route", "add", f"{far}.0/24", "via", str(peer.ip))


def _by_vxlan(host: Place, peer: Place, own: str, far: str) -> None:
    kind = f"type vxlan id {KEY} local {host.ip} dstport {VXLAN_PORT} nolearning"
    host.run("ip", *f"link add hv address {_mac(host)} mtu 1450 {kind}".split())
    host.run("ip", "link", "set", "hv", "up")
    host.run("bridge", "fdb", "add", _mac(peer), "dev", "hv", "dst", str(peer.ip))
    _by_device(host, peer, own, far, "hv")


def _by_switch(host: Place, peer: Place, own: str, far: str) -> None:
    host.run(
        *("ovs-vsctl", "add-br", "hg", "--", "set", "bridge", "hg", "datapath_type=netdev"),
        *(f'other-config:hwaddr="{_mac(host)}"', "--", "set", "interface", "hg", "mtu_request=1458"),
        *("--", "add-port", "hg", "hgp", "--", "set", "interface", "hgp", "type=gre"),
        *(f"options:remote_ip={peer.ip}", f"options:key={KEY}"),
    )
    host.run("ip", "link", "set", "hg", "up")
    _by_device(host, peer, own, far, "hg")


def _by_kernel_gre(host: Place, peer: Place, own: str, far: str) -> None:
    host.run("ip", *f"link add hg address {_mac(host)} mtu 1458 type gretap external".split())
    host.run("ip", "link", "set", "hg", "up")
    _by_device(host, peer, own, far, "hg", f"encap ip id {KEY} src {host.ip} dst {peer.ip} key")


def _by_device(host: Place, peer: Place, own: str, far: str, device: str, encap: str = "") -> None:
    host.run("ip", "address", "add", f"{own}.0/32", "dev", device)
    host.run("ip", "neigh", "add", f"{far}.0", "lladdr", _mac(peer), "dev", device, "nud", "permanent")
    way = f"{encap} via {far}.0 dev {device} onlink src {own}.0"
    host.run("ip", "route", "add", f"{far}.0/24", *way.split())


_WAYS = {"vxlan": _by_vxlan, "route": _by_route, "gre": _by_switch, KERNEL_GRE: _by_kernel_gre}
