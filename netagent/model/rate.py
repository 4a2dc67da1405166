"""Rates: how much an endpoint may receive or send, in the units of tc(8)."""

import re
from dataclasses import dataclass
from fractions import Fraction

from netagent.errors import InvalidRequest

LOWEST_BITS = 8_000
HIGHEST_BITS = 1_000_000_000_000
LARGEST_BURST_BYTES = 1 << 30

_RATE = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)([a-z]*)")
_STEPS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_UNITS = {
    **{f"{prefix}bit": 1000**step for prefix, step in _STEPS.items()},
    **{f"{prefix}ibit": 1024**step for prefix, step in _STEPS.items() if prefix},
    **{f"{prefix}bps": 8 * 1000**step for prefix, step in _STEPS.items()},
    **{f"{prefix}ibps": 8 * 1024**step for prefix, step in _STEPS.items() if prefix},
    "": 1,
}
"""Bits in one of each unit (tc(8), PARAMETERS: RATES): of ``bps`` a byte a second, as there, whatever the case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """``bits`` a second; ``burst`` is what may pass at once, in bytes, None for what suits the rate."""

    bits: int
    burst: int | None = None

    def __str__(self) -> str:
        """Return the rate as ``parse_rate`` takes it: in the largest unit that leaves no fraction."""
        for prefix, step in reversed(_STEPS.items()):
            if self.bits % 1000**step == 0:
                return f"{self.bits // 1000**step}{prefix}bit"
        raise AssertionError


def parse_rate(text: str, *, what: str = "rate") -> Rate:
    """Return the rate that ``text`` spells, as tc does: ``10mbit``, ``1gbit``, ``125kbps`` (kilobytes a second)."""
    match = _RATE.fullmatch(text.lower())
    if match is None or match[2] not in _UNITS:
        raise InvalidRequest(f"invalid {what} {text!r}", hint="for example 10mbit, 1.5gbit or 125kbps (kilobytes)")
    return check_rate(Rate(bits=int(Fraction(match[1]) * _UNITS[match[2]])), what=what, text=text)


def check_rate(rate: Rate, *, what: str = "rate", text: str = "") -> Rate:
    """Return ``rate``; InvalidRequest if no interface can be held to it."""
    if not LOWEST_BITS <= rate.bits <= HIGHEST_BITS:
        raise InvalidRequest(f"invalid {what} {text or rate}", hint="from 8kbit to 1tbit")
    if rate.burst is not None and not 0 < rate.burst <= LARGEST_BURST_BYTES:
        raise InvalidRequest(f"invalid burst of {what}: {rate.burst} bytes", hint="from 1 byte to 1 GiB")
    return rate
