"""The numbers of networks: VNIs of VXLAN, keys of GRE. ``numbers/<number>`` in the store says whose each is."""

from collections.abc import Collection

from netagent.store import keys

FIRST_VNI = 4097
"""Where automatic numbers begin: those below are what people give by hand."""
LAST_VNI = (1 << 24) - 1


def free_number(taken: Collection[str]) -> int:
    """Return the first number whose key is not ``taken``."""
    return next(number for number in range(FIRST_VNI, LAST_VNI) if keys.number_key(number) not in taken)
