"""What a user types means one thing or is refused."""

from dataclasses import dataclass

import pytest

from netagent.errors import InvalidRequest, NotFound
from netagent.services.names import find_by_name, natural_key


@dataclass(frozen=True)
class Thing:
    id: str
    name: str


WEB, API = Thing("ab12" + "0" * 60, "web"), Thing("ab34" + "0" * 60, "api")
IMPOSTOR = Thing("cd00" + "0" * 60, "ab12")


def find(text: str, *things: Thing) -> Thing:
    return find_by_name(text, things or (WEB, API), what="container", missing=f"No such container: {text}", hint="ps")


@pytest.mark.parametrize("text", ["web", WEB.id, WEB.id[:12], "ab1"])
def test_a_name_an_id_and_a_unique_beginning_mean_the_thing(text: str) -> None:
    assert find(text) is WEB


def test_a_full_name_wins_over_the_beginning_of_an_id() -> None:
    assert find("ab12", WEB, IMPOSTOR) is IMPOSTOR


def test_an_ambiguous_beginning_is_refused_with_the_number_of_matches() -> None:
    with pytest.raises(InvalidRequest, match=r"container ab is ambiguous \(2 matches found based on ID prefix\)"):
        find("ab")


@pytest.mark.parametrize("text", ["we", "AB12", "zz", "*", WEB.id + "0"])
def test_anything_else_is_not_found(text: str) -> None:
    with pytest.raises(NotFound) as caught:
        find(text)
    assert (caught.value.message, caught.value.hint) == (f"No such container: {text}", "ps")


def test_nothing_is_no_name() -> None:
    with pytest.raises(InvalidRequest, match="invalid container name or ID: value is empty"):
        find("")


def test_natural_order() -> None:
    names = ["net10", "net2", "net", "10", "9", "a1b10", "a1b9", "²"]
    assert sorted(names, key=natural_key) == ["9", "10", "a1b9", "a1b10", "net", "net2", "net10", "²"]
