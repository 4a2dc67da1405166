"""What iptables-legacy-save prints, in the words of libnftables-json(5), so that one reader judges both.

A match that is not known here stays one that may or may not be so.
"""

import shlex
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

_PRIORITIES: Mapping[str, int] = MappingProxyType(
    {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
)
"""NF_IP_PRI_RAW and so on (linux/netfilter_ipv4.h)."""
_PAYLOADS = {4: "ip", 6: "ip6"}
_WITHOUT_VALUE = frozenset({"--syn", "--physdev-is-bridged", "--physdev-is-in", "--physdev-is-out", "--invert"})
_TARGETS: Mapping[str, str] = MappingProxyType({"ACCEPT": "accept", "DROP": "drop", "RETURN": "return"})

Entry = dict[str, Any]


class SavedRules:
    """The chains and rules of one family as entries of a listing; ``texts`` are the rules as they were saved."""

    def __init__(self, saved: str, version: int) -> None:
        self.listing: list[Entry] = []
        self.texts: dict[tuple[str, str, int], str] = {}
        self._family, self._version = _PAYLOADS[version], version
        table = ""
        for number, line in enumerate(saved.splitlines(), 1):
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith(":"):
                name, policy = line[1:].split()[:2]
                self.listing.append({"chain": self._chain(table, name, policy)})
            elif line.startswith("-A "):
                _, chain, *words = shlex.split(line)
                place = {"family": self._family, "table": _name(table), "chain": chain, "handle": number}
                self.listing.append({"rule": {**place, "expr": list(self._expressions(words))}})
                self.texts[self._family, _name(table), number] = line.split(" ", 2)[-1]

    def _chain(self, table: str, name: str, policy: str) -> Entry:
        chain: Entry = {"family": self._family, "table": _name(table), "name": name}
        if policy == "-":
            return chain
        kind = "nat" if table == "nat" else "filter"
        hook = {"type": kind, "hook": name.lower(), "prio": _PRIORITIES.get(table, 0), "policy": policy.lower()}
        return {**chain, **hook}

    def _expressions(self, words: list[str]) -> Iterator[Entry]:
        protocol = "th"
        for is_negated, option, value in _options(words):
            match option:
                case "-m" | "--comment" | "--reject-with":
                    continue
                case "-j" | "-g":
                    yield _target(value, goes=option == "-g")
                    return
                case "-p":
                    protocol = value
            expression = _match(option, value, protocol, self._version)
            if expression is None:
                yield {"xt": {"type": "match", "name": option}}
                continue
            left, right = expression
            yield {"match": {"op": "!=" if is_negated else "==", "left": left, "right": right}}


def _name(table: str) -> str:
    return f"{table} (legacy)"


def _options(words: list[str]) -> Iterator[tuple[bool, str, str]]:
    """Yield whether an option is negated, its name and its value; further values belong to options unknown here."""
    is_negated, number = False, 0
    while number < len(words):
        word = words[number]
        number += 1
        if word == "!":
            is_negated = True
        elif word.startswith("-"):
            has_value = word not in _WITHOUT_VALUE and number < len(words) and not words[number].startswith("-")
            yield is_negated, word, words[number] if has_value else ""
            number += has_value
            is_negated = False


def _target(name: str, *, goes: bool) -> Entry:
    if name in _TARGETS:
        return {_TARGETS[name]: None}
    if name == "REJECT":
        return {"reject": {}}
    # What changes or tells, and lets go on, is written in capitals as well; a chain that is not there has no rules.
    return {"goto" if goes else "jump": {"target": name}}


def _match(option: str, value: str, protocol: str, version: int) -> tuple[Entry, Any] | None:
    """Return the left and right side of a comparison, None if the option is not known."""
    match option:
        case "-i" | "-o":
            return {"meta": {"key": "iifname" if option == "-i" else "oifname"}}, _interface(value)
        case "-s" | "-d":
            field = "saddr" if option == "-s" else "daddr"
            return {"payload": {"protocol": _PAYLOADS[version], "field": field}}, _prefix(value)
        case "-p":
            return {"meta": {"key": "l4proto"}}, int(value) if value.isdecimal() else value
        case "--dport" | "--dports":
            ports = [_port(text) for text in value.split(",")]
            return {"payload": {"protocol": protocol, "field": "dport"}}, {"set": ports}
        case "--ctorigdstport":
            return {"ct": {"key": "proto-dst", "dir": "original"}}, _port(value)
        case "--ctstate" | "--state" if value == "DNAT":
            return {"ct": {"key": "status"}}, "dnat"
        case "--ctstate" | "--state" if not {"DNAT", "SNAT"} & set(value.split(",")):
            return {"ct": {"key": "state"}}, {"set": value.lower().split(",")}
        case "--dst-type":
            return {"fib": {"result": "type", "flags": ["daddr"]}}, value.lower()
        case _:
            return None


def _interface(value: str) -> str:
    return f"{value[:-1]}*" if value.endswith("+") else value


def _prefix(value: str) -> Entry:
    address, _, length = value.partition("/")
    return {"prefix": {"addr": address, "len": int(length) if length.isdecimal() else length}}


def _port(value: str) -> int | Entry | str:
    first, _, last = value.partition(":")
    if not first.isdecimal():
        return value
    return {"range": [int(first), int(last)]} if last.isdecimal() else int(first)
