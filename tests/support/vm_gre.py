"""What ``tests/kernel/test_vm_gre.py`` runs in a machine whose kernel has GRE.

Prints one line of JSON: what worked, and what crossed h1's wire (pcap, base64).
"""

import asyncio
import base64
import json
import struct
import subprocess
import time
import traceback
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from netagent.drivers.gre import gre_mac
from netagent.kernel import ovs
from tests.support import vm_paths, vm_tracking
from tests.support.vm_hosts import (
    KEYS,
    add_containers,
    address_of,
    bring_up,
    host,
    inside,
    lay_cables,
    pings,
    sh,
    snapshot,
    start_switch,
)


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def forged(key: int, source: str, target: str) -> bytes:
    """Return a GRE header with the key, and a datagram to port 9999 of ``target`` in a frame for h1."""
    addresses = IPv4Address(source).packed + IPv4Address(target).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 36, 1, 0, 64, 17, 0) + addresses
    packet = head[:10] + struct.pack("!H", checksum(head)) + head[12:] + struct.pack("!HHHH", 7, 9999, 16, 0) + bytes(8)
    mac = bytes.fromhex(gre_mac(host(1).id).replace(":", ""))
    return struct.pack("!HHI", 0x2000, 0x6558, key) + mac + b"\2\0\0\0\0\1" + b"\x08\x00" + packet


def arrives(sender: str, key: int, source: str, container: str, target: str, *, within: float = 2) -> bool:
    """Tell whether a container of h1 receives a datagram that ``sender`` forges with that key and inner source."""
    before = received(container)
    code = (
        "import socket,sys; s=socket.socket(socket.AF_INET,socket.SOCK_RAW,47);"
        "s.sendto(bytes.fromhex(sys.argv[1]),('198.18.0.1',0))"
    )
    inside(sender, "python3", "-I", "-S", "-c", code, forged(key, source, target).hex())
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if received(container) > before:
            return True
        time.sleep(0.1)
    return False


def received(container: str) -> int:
    lines = inside(container, "grep", "^Udp:", "/proc/net/snmp").stdout.splitlines()
    return int(lines[1].split()[2])


def capture() -> str:
    """Return what crosses h1's wire while containers of three hosts talk."""
    command = ("ip", "netns", "exec", "h1", "tcpdump", "-i", "eth0", "-n", "-U", "--immediate-mode", "-Z", "root")
    with subprocess.Popen([*command, "-w", "/run/h1.pcap", "not arp"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        pings("net1", address_of(2, "net"))
        pings("net1", address_of(2, "net", 6))
        pings("six1", address_of(2, "six"))
        pings("net1", address_of(3, "net"))
        last = IPv4Address(address_of(3, "net")).packed + IPv4Address(address_of(1, "net")).packed
        deadline = time.monotonic() + 60
        while last not in Path("/run/h1.pcap").read_bytes() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.terminate()
    return base64.b64encode(Path("/run/h1.pcap").read_bytes()).decode()


def look(found: dict[str, Any]) -> None:
    full = ("-M", "do", "-s", str(1458 - 28))
    target = address_of(1, "net")
    found["kernel to kernel, IPv4"] = pings("net1", address_of(2, "net"))
    found["kernel to kernel, IPv6"] = pings("net1", address_of(2, "net", 6))
    found["kernel to kernel, back"] = pings("net2", target)
    found["kernel to kernel, full size"] = pings("net1", address_of(2, "net"), *full)
    found["kernel to kernel over IPv6"] = pings("six1", address_of(2, "six"))
    found["kernel to Open vSwitch, IPv4"] = pings("net1", address_of(3, "net"))
    found["kernel to Open vSwitch, IPv6"] = pings("net1", address_of(3, "net", 6))
    found["Open vSwitch to kernel, full size"] = pings("net3", target, *full)
    peer = address_of(2, "net")
    found["a peer's packet arrives"] = arrives("h2", KEYS["net"], peer, "net1", target, within=60)
    found["a stranger's packet arrives"] = arrives("h4", KEYS["net"], peer, "net1", target)
    found["a packet for another network arrives"] = arrives("h2", KEYS["net"], peer, "six1", address_of(1, "six"))
    found["a packet from another peer's address arrives"] = arrives(
        "h2", KEYS["net"], address_of(3, "net"), "net1", target
    )
    found["a packet from nobody's address arrives"] = arrives("h2", KEYS["net"], "8.8.8.8", "net1", target)


def main() -> None:
    found: dict[str, Any] = {}
    # An emulated machine is slow, and stands still whenever the one that emulates it is busy.
    ovs._TIMEOUT_S = 60
    try:
        for module in ("ip_gre", "ip6_gre", "openvswitch", "vport_gre"):
            sh("modprobe", module)
        lay_cables({"h1": 1, "h2": 2, "h3": 3, "h4": 4})
        start_switch()
        for number in (1, 2, 3):
            add_containers(snapshot(number))
            found[f"left to do on h{number}"] = asyncio.run(bring_up(snapshot(number)))
        found["routes"] = inside("h1", "ip", "route").stdout
        look(found)
        found["frames"] = capture()
        found["ways"] = {}
        asyncio.run(vm_paths.look(found["ways"]))
        found["full table"] = {}
        asyncio.run(vm_tracking.look(found["full table"]))
    except Exception as error:
        found["error"] = f"{traceback.format_exc()} {getattr(error, 'stderr', '')}"
    print("\nfound", json.dumps(found))


if __name__ == "__main__":
    main()
