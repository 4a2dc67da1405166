import pytest
from hypothesis import given
from hypothesis import strategies as st

from netagent.errors import InvalidRequest
from netagent.model.ids import NAME_LIMIT, is_id_prefix, parse_interface_name, parse_name, short


@pytest.mark.parametrize("text", ["web", "9", "a.b-c_d", "A" * NAME_LIMIT])
def test_usable_names(text: str) -> None:
    assert parse_name(text, what="network") == text


@pytest.mark.parametrize(
    "text", ["", "-web", ".hidden", "_x", "a b", "a/b", "ä", "web\n", "a" * (NAME_LIMIT + 1), "a\0", "$(x)"]
)
def test_other_names_are_refused_with_what_they_are_for(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^invalid network name") as caught:
        parse_name(text, what="network")
    assert "\n" not in caught.value.message


@given(st.text(max_size=20))
def test_any_text_is_a_name_of_plain_letters_or_refused(text: str) -> None:
    try:
        name = parse_name(text, what="alias")
    except InvalidRequest:
        return
    assert name.isascii()
    assert name.isprintable()
    assert "/" not in name


@pytest.mark.parametrize("text", ["eth0", "a" * 15, "ä" * 7, "net1.7", "..."])
def test_interface_names_that_the_kernel_takes(text: str) -> None:
    assert parse_interface_name(text) == text


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\x7f", "\x01", "a" * 16, "ä" * 8])
def test_interface_names_that_the_kernel_refuses(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^invalid interface name"):
        parse_interface_name(text)


def test_ids_are_shown_as_twelve_digits_and_found_by_any_beginning() -> None:
    assert short("0123456789abcdef" * 4) == "0123456789ab"
    assert is_id_prefix("0")
    assert is_id_prefix("0123456789abcdef" * 4)
    for text in ("", "g", "AB", "0" * 65, "0\n"):
        assert not is_id_prefix(text)
