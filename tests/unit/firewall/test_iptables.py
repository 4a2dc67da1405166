"""The translation to iptables: every set has one, or a reason why not, and what is put is what is read back."""

import pytest

from netagent.firewall.iptables.listing import elements_in, is_intact, parse
from netagent.firewall.iptables.ruleset import TRANSLATIONS, UNTRANSLATED, translate
from netagent.firewall.iptables.script import add_elements, delete_elements, remove_all, replace_all
from netagent.firewall.ruleset import SETS

ELEMENTS = {
    "inside": frozenset({"nab1", "nav1"}),
    "publish4": frozenset({"tcp . 4000 : 10.1.0.2 . 80"}),
    "bridge/sources4": frozenset({"nae1 . 02:00:00:00:00:01 . 10.1.0.2"}),
}


def test_every_set_is_translated_or_it_is_written_why_not() -> None:
    names = {declared.name for declared in SETS}
    assert TRANSLATIONS.keys() | UNTRANSLATED.keys() == names
    assert not TRANSLATIONS.keys() & UNTRANSLATED.keys()


@pytest.mark.parametrize(
    ("set_name", "element", "expected"),
    [
        ("publish4", "tcp . 4000 : 10.1.0.2 . 80", "-p tcp -m tcp --dport 4000 -j DNAT --to-destination 10.1.0.2:80"),
        (
            "publish6_at",
            "fd00::1 . udp . 53 : fd00::2 . 5353",
            "-d fd00::1/128 -p udp -m udp --dport 53 -j DNAT --to-destination [fd00::2]:5353",
        ),
        (
            "ranges6",
            "tcp . 8000-8100 : fd00::2",
            "-p tcp -m tcp --dport 8000:8100 -j DNAT --to-destination fd00::2",
        ),
        ("limited4", "0.0.0.0/0 . tcp . 80", "-p tcp -m tcp --dport 80 -j NETAGENT-ALLOWED"),
        (
            "allowed4",
            "10.0.0.7 . 1.2.3.4 . tcp . 80",
            "-s 10.0.0.7/32 -d 1.2.3.4/32 -p tcp -m tcp --dport 80 -j RETURN",
        ),
    ],
)
def test_a_port_becomes_one_rule(set_name: str, element: str, expected: str) -> None:
    (piece,) = translate(set_name, element)
    assert getattr(piece, "text", "") == expected


def test_nothing_of_ours_is_nothing() -> None:
    listing = parse(
        {"ip": "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j DOCKER-USER\nCOMMIT\n"}, "create theirs hash:ip\n"
    )
    assert not listing


def test_what_is_put_is_read_back_and_found_whole() -> None:
    saved, ipsets = _as_saved(replace_all(parse({}, ""), ELEMENTS).restore), _ipsets()
    listing = parse(saved, ipsets)
    assert elements_in(listing) == ELEMENTS
    assert is_intact(listing, ELEMENTS)


@pytest.mark.parametrize(
    "line",
    [
        "-A NETAGENT-ENTER -g NETAGENT-DIRECT",
        "-A NETAGENT-DIRECT -j DROP",
        "-A FORWARD -j NETAGENT-FORWARD",
        "-A NETAGENT-MACS -j NETAGENT-REFUSE",
        '-A NETAGENT-INSIDE -o nab1 -m comment --comment "inside nab1" -g NETAGENT-ENTER',
    ],
)
def test_a_rule_that_is_missing_is_noticed(line: str) -> None:
    saved = _as_saved(replace_all(parse({}, ""), ELEMENTS).restore)
    assert any(line in text for text in saved.values())
    damaged = {family: text.replace(f"{line}\n", "", 1) for family, text in saved.items()}
    listing = parse(damaged, _ipsets())
    assert not is_intact(listing, elements_in(listing))


def test_an_element_is_deleted_by_the_rule_that_added_it() -> None:
    added, deleted = add_elements(ELEMENTS).restore, delete_elements(ELEMENTS).restore
    assert {line.split(" ", 2)[0] for text in added.values() for line in text.splitlines()} <= {
        "-A",
        "-I",
        "*raw",
        "*mangle",
        "*nat",
        "*filter",
        "COMMIT",
    }
    rules = [line for text in deleted.values() for line in text.splitlines() if line.startswith("-D ")]
    assert len(rules) == sum(text.count("\n-A ") + text.count("\n-I ") for text in added.values())


def test_removing_leaves_the_administrators_rules() -> None:
    own = "*filter\n:NETAGENT-ADMIN-FORWARD - [0:0]\n:NETAGENT-ADMIN-INPUT - [0:0]\n:NETAGENT-FORWARD - [0:0]\n"
    rules = "-A FORWARD -j NETAGENT-ADMIN-FORWARD\n-A FORWARD -j NETAGENT-FORWARD\n-A NETAGENT-ADMIN-FORWARD -j DROP\n"
    text = remove_all(parse({"ip": own + rules + "COMMIT\n"}, ""), ("ip", "ip6", "bridge")).restore["ip"]
    assert "-X NETAGENT-FORWARD" in text
    assert "-X NETAGENT-ADMIN-INPUT" in text
    assert "ADMIN-FORWARD" not in text


def _as_saved(scripts: object) -> dict[str, str]:
    """Return scripts as the save programs would show them once they were carried out."""
    assert isinstance(scripts, dict)
    saved: dict[str, str] = {}
    for family, text in scripts.items():
        lines = [
            f"-A {line.split()[1]} {line.split(' ', 3)[3]}" if line.startswith("-I ") else line
            for line in text.splitlines()
        ]
        saved[family] = "\n".join(lines) + "\n"
    return saved


def _ipsets() -> str:
    return replace_all(parse({}, ""), ELEMENTS).ipsets_before
