from dataclasses import replace

import pytest

from netagent.ipam.usage import count_usage
from netagent.model.address import parse_address, parse_prefix
from netagent.model.network import Subnet
from tests.support.world import a_subnet

RANGED = replace(a_subnet("172.18.0.0/16"), ip_range=parse_prefix("172.18.5.0/24"))
AUXILIARY = replace(a_subnet("172.18.0.0/24"), auxiliary=(("router", parse_address("172.18.0.9")),))


@pytest.mark.parametrize(
    ("subnet", "held", "in_use", "available"),
    [
        (a_subnet("172.18.0.0/16"), [], 3, 65533),
        (a_subnet("172.18.0.0/16"), ["172.18.0.2", "172.18.9.9", "10.1.1.1", "fd00::1"], 5, 65531),
        (a_subnet("172.18.0.0/30"), ["172.18.0.2"], 4, 0),
        (RANGED, ["172.18.5.7", "172.18.0.2"], 5, 255),
        (AUXILIARY, [], 4, 252),
        (a_subnet("fd00::/64"), ["fd00::2"], 3, 2**64 - 3),
        # The first block is for fixed addresses alone; each host's own address is in use.
        (a_subnet("192.168.0.0/16", block_length=24), ["192.168.1.0", "192.168.0.9"], 5, 65536 - 256 - 2),
    ],
)
def test_usage_counts_as_docker_does(subnet: Subnet, held: list[str], in_use: int, available: int) -> None:
    usage = count_usage(subnet, map(parse_address, held))
    assert (usage.in_use, usage.available) == (in_use, available)
