"""Who reaches a published port: the host, the LAN, containers everywhere, the container itself; and who must not."""

import os
import subprocess
import sys
from functools import partial
from typing import IO

import pytest

from netagent.lab.lab import Lab
from tests.support.hosts import (
    address,
    client_address_at,
    fetches,
    fetches_inside,
    inside,
    netagent,
    refusal,
    run,
    serve_client_address,
    serve_name,
    telling_client_addresses,
)
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

_HEAR = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
sock.settimeout(20)
print("ready", flush=True)
while (packet := sock.recv(2048))[20:22] != (7001).to_bytes(2):
    pass
print(socket.inet_ntoa(packet[16:20]), flush=True)
"""
_SAY = """
import sys
from scapy.all import IP, TCP, Ether, get_if_hwaddr, getmacbyip, sendp
source, gateway = sys.argv[1:]
for target in ("127.0.0.1", gateway):
    frame = Ether(src=get_if_hwaddr("eth0"), dst=getmacbyip(gateway)) / IP(src=source, dst=target)
    sendp(frame / TCP(sport=7001, dport=80, flags="SF"), iface="eth0", verbose=0)
"""
"""SYN and FIN together belong to no connection: nothing that is decided for connections is asked of such a packet."""


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab, firewall: str) -> Lab:
    lab = make_lab(hosts=2, firewall=firewall)
    h1, h2 = lab.hosts
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "staticnet")
    netagent(h1, "network", "create", "other")
    eventually(lambda: "staticnet" in netagent(h2, "network", "ls").stdout)
    serve_name(h1, "web", "--network", "staticnet", "-p", "4000:80")
    serve_name(h1, "private", "--network", "staticnet", "-p", "127.0.0.1:4001:80")
    serve_name(h1, "hidden", "--network", "staticnet")
    run(h1, "neighbour", "--network", "staticnet")
    run(h1, "stranger", "--network", "other")
    run(h2, "remote", "--network", "staticnet")
    return lab


def test_a_port_published_on_loopback_is_for_the_host_alone(lab: Lab) -> None:
    h1, h2 = lab.hosts
    assert fetches(h1, "http://127.0.0.1:4001/hostname", "private")
    assert not fetches(h2, f"http://{h1.ip}:4001/hostname", "private")
    # A machine on the wire may send packets for 127.0.0.0/8 to us; with route_localnet they would be taken.
    h2.run("ip", "route", "replace", "127.0.0.9/32", "via", str(h1.ip), "table", "local")
    try:
        h2.run("sysctl", "-qw", "net.ipv4.conf.eth0.route_localnet=1")
        assert not fetches(h2, "http://127.0.0.9:4001/hostname", "private")
    finally:
        h2.run("ip", "route", "del", "127.0.0.9/32", "table", "local")
    assert not fetches_inside(h1, "neighbour", "http://192.168.0.1:4001/hostname", "private")


def test_what_belongs_to_no_connection_does_not_reach_the_hosts_loopback_either(lab: Lab) -> None:
    h1 = lab.hosts[0]
    with h1.popen(sys.executable, "-c", _HEAR, stdout=subprocess.PIPE) as hearing:
        assert hearing.stdout is not None
        try:
            assert hearing.stdout.readline() == "ready\n"
            own = address(h1, "neighbour")
            inside(h1, "neighbour", sys.executable, "-c", _SAY, own, "192.168.0.1", check=True)
            assert hearing.stdout.readline() == "192.168.0.1\n", "the second one, to the gateway's own address, does"
        finally:
            hearing.kill()


def test_a_client_on_the_lan_is_seen_with_its_own_address(lab: Lab) -> None:
    h1, h2 = lab.hosts
    serve_client_address(h1, "peek", "--network", "staticnet", "-p", "4010:80")
    ask = client_address_at(str(h1.ip), 4010)
    eventually(lambda: h2.run(*ask, check=False).stdout.strip() == str(h2.ip))
    assert inside(h1, "stranger", *ask).stdout.strip() == address(h1, "stranger")
    netagent(h1, "rm", "-f", "peek")


def test_what_is_not_published_is_not_reached_from_outside_the_network(lab: Lab) -> None:
    h1, h2 = lab.hosts
    hidden = address(h1, "hidden")
    assert fetches_inside(h1, "neighbour", f"http://{hidden}/hostname", "hidden")
    assert fetches_inside(h2, "remote", f"http://{hidden}/hostname", "hidden")
    assert not fetches_inside(h1, "stranger", f"http://{hidden}/hostname", "hidden")
    other = address(h1, "stranger")
    h2.run("ip", "route", "replace", f"{other}/32", "via", str(h1.ip))
    try:
        assert h2.run("ping", "-c", "1", "-W", "1", other, check=False).returncode != 0
    finally:
        h2.run("ip", "route", "del", f"{other}/32")


def test_containers_reach_the_outside_with_the_hosts_address_also_at_a_port_that_is_published_here(lab: Lab) -> None:
    """CVE-2025-67499 was a translation that caught what was meant for another machine."""
    h1, h2 = lab.hosts
    with telling_client_addresses(h2, 4000):
        assert inside(h1, "stranger", *client_address_at(str(h2.ip), 4000)).stdout.strip() == str(h1.ip)
        assert h1.run(*client_address_at(str(h2.ip), 4000)).stdout.strip() == str(h1.ip)


def test_a_published_port_is_shown_and_kept_from_the_hosts_processes(lab: Lab) -> None:
    h1, _ = lab.hosts
    assert netagent(h1, "port", "web").stdout == "80/tcp -> 0.0.0.0:4000\n"
    assert netagent(h1, "port", "web", "80").stdout == "0.0.0.0:4000\n"
    assert refusal(h1, "port", "web", "7890/udp").startswith("no public port '7890/udp' published for web (")
    taken = h1.run("socat", "TCP4-LISTEN:4000,reuseaddr", "STDOUT", check=False, timeout=30)
    assert "Address already in use" in taken.stderr


def test_a_port_of_a_host_process_or_of_a_container_is_refused_by_name(lab: Lab) -> None:
    h1, _ = lab.hosts
    words = refusal(h1, "run", "-d", "-p", "4000:80", "--", "sleep", "1", status=125)
    assert words == (
        "Bind for 0.0.0.0:4000 failed: port is already allocated (container web has it; choose another host port)"
    )
    with telling_client_addresses(h1, 4555):
        words = refusal(h1, "run", "-d", "-p", "4555:80", "--", "sleep", "1", status=125)
    assert words.startswith("failed to bind host port 0.0.0.0:4555/tcp: address already in use")


def test_free_ports_are_chosen_upwards_from_the_kernels_range(lab: Lab) -> None:
    h1, _ = lab.hosts
    first = int(h1.run("cat", "/proc/sys/net/ipv4/ip_local_port_range").stdout.split()[0])
    serve_name(h1, "auto", "--network", "other", "-p", "80", "-p", "81")
    lines = netagent(h1, "port", "auto").stdout.split()
    ports = sorted({int(line.rpartition(":")[2]) for line in lines if ":" in line})
    assert len(ports) == 2
    assert ports[0] >= first
    assert ports[1] == ports[0] + 1
    assert fetches(
        h1, f"http://127.0.0.1:{netagent(h1, 'port', 'auto', '80').stdout.split(':')[1].split()[0]}/hostname", "auto"
    )
    netagent(h1, "rm", "-f", "auto")


def test_udp_is_published_too(lab: Lab) -> None:
    h1, h2 = lab.hosts
    echo = ("socat", "-t", "30", "UDP4-RECVFROM:53,fork", "EXEC:cat")
    netagent(h1, "run", "-d", "--name", "echo", "--network", "other", "-p", "5353:53/udp", "--", *echo)
    ask = f"echo over-udp | socat -t 5 - UDP4:{h1.ip}:5353"
    eventually(lambda: "over-udp" in h2.run("sh", "-c", ask, check=False).stdout)
    netagent(h1, "rm", "-f", "echo")
    assert "over-udp" not in h2.run("sh", "-c", ask, check=False).stdout


def test_a_udp_client_that_never_pauses_reaches_the_container_that_has_its_port_now(lab: Lab) -> None:
    """The client's packets always belong to one tracked connection, which must not keep them at the old container."""
    h1, h2 = lab.hosts
    answers = ("socat", "-T", "60", "UDP4-RECVFROM:53,fork", "SYSTEM:hostname")
    client = h2.popen(sys.executable, "-u", "-c", _RESTLESS_UDP_CLIENT, str(h1.ip), "5355", stdout=subprocess.PIPE)
    assert client.stdout is not None
    os.set_blocking(client.stdout.fileno(), False)
    run(h1, "still", "--network", "other", "-p", "5357:80", command=("socat", "TCP4-LISTEN:80", "PIPE"), listens=80)
    kept = h2.popen("socat", "-", f"TCP4:{h1.ip}:5357", stdin=subprocess.PIPE)
    try:
        eventually(lambda: "ESTABLISHED" in h1.run("conntrack", "-L", "-p", "tcp", "--dport", "5357").stdout)
        for name in ("first", "second"):
            run(h1, name, "--hostname", name, "--network", "other", "-p", "5355:53/udp", command=answers)
            eventually(partial(_says, client.stdout, name))
            netagent(h1, "rm", "-f", name)
        assert "ESTABLISHED" in h1.run("conntrack", "-L", "-p", "tcp", "--dport", "5357").stdout
    finally:
        for process in (client, kept):
            process.kill()
            process.communicate()
        netagent(h1, "rm", "-f", "still", check=False)


def _says(output: IO[str], word: str) -> bool:
    """Tell whether what came on a non-blocking stream since the last call holds ``word``."""
    try:
        return word in os.read(output.fileno(), 1 << 16).decode()
    except BlockingIOError:
        return False


_RESTLESS_UDP_CLIENT = """
import socket, sys, time
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.bind(("", 5999))
client.setblocking(False)
while True:
    try:
        client.sendto(b"?\\n", (sys.argv[1], int(sys.argv[2])))
        print(client.recv(100).decode().strip())
    except OSError:
        pass
    time.sleep(0.02)
"""
