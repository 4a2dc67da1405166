"""The netlink codec, without a socket."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from netagent.kernel.netlink import decode_attributes, decode_messages, encode_attribute, encode_nested

ATTRIBUTES = st.dictionaries(st.integers(1, 100), st.binary(max_size=50), max_size=8)


@given(ATTRIBUTES)
def test_attributes_are_read_back_as_they_were_written(attributes: dict[int, bytes]) -> None:
    body = b"".join(encode_attribute(kind, payload) for kind, payload in attributes.items())
    assert len(body) % 4 == 0
    assert {kind: bytes(payload) for kind, payload in decode_attributes(memoryview(body)).items()} == attributes


@given(ATTRIBUTES)
def test_nested_attributes_are_read_back_under_their_plain_type(attributes: dict[int, bytes]) -> None:
    parts = (encode_attribute(kind, payload) for kind, payload in attributes.items())
    outer = decode_attributes(memoryview(encode_nested(18, *parts)))
    assert list(outer) == [18]
    assert {kind: bytes(payload) for kind, payload in decode_attributes(outer[18]).items()} == attributes


@given(st.binary(max_size=100))
def test_any_bytes_are_survived_as_attributes(body: bytes) -> None:
    decode_attributes(memoryview(body))


def test_messages_of_one_datagram_come_one_by_one() -> None:
    one = struct.pack("=IHHII", 20, 16, 2, 7, 99) + b"abcd"
    other = struct.pack("=IHHII", 19, 3, 0, 8, 0) + b"xyz\0"
    messages = list(decode_messages(one + other))
    assert [(m.kind, m.flags, m.sequence, m.sender, bytes(m.body)) for m in messages] == [
        (16, 2, 7, 99, b"abcd"),
        (3, 0, 8, 0, b"xyz"),
    ]


@given(st.binary(max_size=64))
def test_any_bytes_are_survived_as_messages(data: bytes) -> None:
    list(decode_messages(data))
