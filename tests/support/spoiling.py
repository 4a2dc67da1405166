"""An interface that works out checksums wrong, as a program of nftables. Imports next to nothing: machines that are
emulated run it too."""

from ipaddress import ip_address


def spoiling(device: str, match: str, checksum: str, *, protocol: int, source: str, target: str) -> str:
    """Return the script of nft that has checksums worked out wrong which were left to ``device``.

    It concerns IPv4 packets of ``protocol`` from ``source`` to ``target`` that ``match``; ``checksum`` is where theirs
    is. Such a packet has the sum of the pseudo header there (skb_checksum_help, net/core/dev.c): one number for each
    length. It is changed here, before the first device that does not offer it has the kernel do it in its stead. What
    has its checksum already goes through as it is, but for one packet in fifty by chance.
    """
    words = [int.from_bytes(ip_address(a).packed[i : i + 2]) for a in (source, target) for i in (0, 2)]
    sums = sorted(
        {(total & 0xFFFF) + (total >> 16) for length in range(8, 1431) for total in [sum(words) + protocol + length]}
    )
    assert sums[-1] - sums[0] == len(sums) - 1
    chain = f"add chain netdev sums out {{ type filter hook egress device {device} priority 0; }}"
    rule = f"add rule netdev sums out {match} {checksum} {sums[0]}-{sums[-1]} {checksum} set 0xdead"
    return f"add table netdev sums; {chain}; {rule}"
