from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netagent.errors import InvalidRequest
from netagent.model.rate import HIGHEST_BITS, LOWEST_BITS, Rate, parse_rate


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("10mbit", 10_000_000),
        ("1gbit", 10**9),
        ("1.5Gbit", 1_500_000_000),
        ("125kBps", 1_000_000),
        ("64000", 64_000),
        ("64000bit", 64_000),
        ("1mbps", 8_000_000),
        ("1mibit", 1 << 20),
        ("1kibps", 8192),
        ("0.0001tbit", 100_000_000),
    ],
)
def test_rates_are_read_as_tc_reads_them(text: str, bits: int) -> None:
    assert parse_rate(text) == Rate(bits=bits)


WRONG = [
    "fast",
    "10 mbit",
    "-1mbit",
    "10mb",
    "1e9",
    "10%",
    ".5mbit",
    "1ibit",
    "\u0661mbit",
    "nan",
    "0",
    "1bit",
    "2tbit",
]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_rate_or_one_that_no_interface_can_keep_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid --rate-in"):
        parse_rate(text, what="--rate-in")


@given(st.integers(LOWEST_BITS, HIGHEST_BITS))
def test_a_rate_is_written_as_it_is_read(bits: int) -> None:
    assert parse_rate(str(Rate(bits=bits))) == Rate(bits=bits)


@given(st.text(max_size=40))
def test_any_text_is_a_rate_or_refused(text: str) -> None:
    with suppress(InvalidRequest):
        assert LOWEST_BITS <= parse_rate(text).bits <= HIGHEST_BITS
