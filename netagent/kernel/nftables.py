"""The tables ``inet netagent`` and ``bridge netagent``, through libnftables. For the worker thread only.

Structure (sets and chains) is replaced as a whole in one transaction. Its hash is each table's comment, so that a look
at the kernel tells whether the table is this program's or an older one's; the number of rules in each chain tells
whether somebody flushed it. Elements are added and deleted in transactions of their own.

libnftables binds a context to the network namespace it was made in, and a context is not safe for two threads.
"""

import ctypes
import errno
import hashlib
import json
import logging
import os
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from netagent.errors import EnvironmentProblem, KernelRejected
from netagent.kernel.netlink import NetlinkSocket, Request, decode_attributes, encode_attribute
from netagent.kernel.uapi import (
    NETLINK_NETFILTER,
    NFNL_SUBSYS_NFTABLES,
    NFPROTO_BRIDGE,
    NFPROTO_INET,
    NFT_MSG_GETTABLE,
    NFTA_TABLE_NAME,
    NFTA_TABLE_USERDATA,
)
from netagent.plan.desired import Chain, ElementSet, Ruleset
from netagent.plan.operation import AddAdminChains, AddElements, DeleteElements, Operation, ReplaceRuleset

_log = logging.getLogger("netagent.kernel")

TABLE = "netagent"
ADMIN_TABLE = "netagent-admin"
"""The administrator's own, in the family inet."""
FAMILIES: Mapping[str, int] = MappingProxyType({"inet": NFPROTO_INET, "bridge": NFPROTO_BRIDGE})
"""The families that have a table of ours. What names none is in the first."""

_LIBRARY = "libnftables.so.1"
_OUTPUT_JSON = 1 << 4
"""NFT_CTX_OUTPUT_JSON, nftables/libnftables.h."""
_OUTPUT_STATELESS_WITH_HANDLES = 1 << 2 | 1 << 3
"""NFT_CTX_OUTPUT_STATELESS and NFT_CTX_OUTPUT_HANDLE."""
_ERRNO_BY_TEXT = {os.strerror(number): number for number in errno.errorcode} | {
    # Interval sets are compared in libnftables itself (src/intervals.c), in words of its own.
    "element does not exist": errno.ENOENT,
}
NFGENMSG = struct.Struct("=BBH")
"""struct nfgenmsg, linux/netfilter/nfnetlink.h: family, version, resource id."""
_DYNAMIC_SIZE = 0x10000
"""How many elements rules may make in a set; nft wants to know."""
_USERDATA_COMMENT = 0
"""NFTNL_UDATA_TABLE_COMMENT, libnftnl/udata.h: type, length, text with its NUL."""


class NftRefusalError(Exception):
    """A transaction that was refused as a whole: the error number and nft's words."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.errno = number
        self.text = text


class Nftables:
    """One libnftables context, bound to the namespace of the thread that made it."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError:
            raise EnvironmentProblem(f"{_LIBRARY} is missing", hint="install libnftables1") from None
        for name in ("nft_ctx_new", "nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(self._library, name).restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.nft_ctx_new(0))
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def close(self) -> None:
        """Free the context."""
        self._library.nft_ctx_free(self._context)

    def run(self, script: str, *, as_json: bool = False) -> str:
        """Run ``script`` as one transaction; NftRefusalError means that nothing was done.

        Return its output: libnftables-json(5), or text without counters and with handles.
        """
        flags = _OUTPUT_JSON if as_json else _OUTPUT_STATELESS_WITH_HANDLES
        self._library.nft_ctx_output_set_flags(self._context, ctypes.c_uint(flags))
        status = self._library.nft_run_cmd_from_buffer(self._context, ctypes.c_char_p(script.encode()))
        output = self._read(self._library.nft_ctx_get_output_buffer)
        problem = self._read(self._library.nft_ctx_get_error_buffer)
        if status:
            raise NftRefusalError(_errno_in(problem), problem.strip())
        return output

    def _read(self, function: Any) -> str:
        return ctypes.string_at(function(self._context)).decode(errors="replace")


def _errno_in(problem: str) -> int:
    first = problem.partition("\n")[0]
    return next((number for text, number in _ERRNO_BY_TEXT.items() if first.endswith(text)), errno.EINVAL)


# Rendering


def structure_hash(ruleset: Ruleset) -> str:
    """Return a short hash of the sets and chains, the same for the same text."""
    parts = [*map(_set_text, ruleset.sets), *map(_chain_text, ruleset.chains), *_families_named(ruleset)]
    text = "\n".join(parts)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def render_script(ruleset: Ruleset) -> str:
    """Return the transaction that puts ``ruleset`` in the place of whatever the tables held."""
    # Adding first makes the deletion succeed where there is no table; nft 1.0.6 has no "destroy".
    lines = [f"{verb} table {family} {TABLE}" for family in FAMILIES for verb in ("add", "delete")]
    lines.extend(_table_text(ruleset, family) for family in FAMILIES if family in _families(ruleset))
    lines.extend(elements_text("add", name, sorted(group)) for name, group in ruleset.elements.items() if group)
    return "\n".join(lines) + "\n"


def _families(ruleset: Ruleset) -> frozenset[str]:
    """Return the families in which ``ruleset`` has a table: always the first, the others if they hold anything."""
    return frozenset({next(iter(FAMILIES)), *_families_named(ruleset)})


def _families_named(ruleset: Ruleset) -> list[str]:
    names = [*(declared.name for declared in ruleset.sets), *(chain.name for chain in ruleset.chains)]
    return [split_name(name)[0] for name in names]


def split_name(name: str) -> tuple[str, str]:
    """Return the family and the name in it of a set or chain."""
    family, _, rest = name.rpartition("/")
    return family or next(iter(FAMILIES)), rest


def _qualified(family: str, name: str) -> str:
    """Return what ``split_name`` took apart."""
    return name if family == next(iter(FAMILIES)) else f"{family}/{name}"


def _table_text(ruleset: Ruleset, family: str) -> str:
    body = [
        *(_set_text(declared) for declared in ruleset.sets if split_name(declared.name)[0] == family),
        *(_chain_text(chain) for chain in ruleset.chains if split_name(chain.name)[0] == family),
    ]
    return "\n".join([f"table {family} {TABLE} {{", f'comment "{_comment(ruleset)}"', *body, "}"])


def _comment(ruleset: Ruleset) -> str:
    return f"structure {structure_hash(ruleset)}"


def _set_text(declared: ElementSet) -> str:
    name = split_name(declared.name)[1]
    flags = f"flags {','.join(declared.flags)}; " if declared.flags else ""
    if "dynamic" in declared.flags:
        flags += f"size {_DYNAMIC_SIZE}; "
    key = declared.key if declared.key.startswith("typeof ") else f"type {declared.key}"
    if declared.data is None:
        return f"set {name} {{ {key}; {flags}}}"
    return f"map {name} {{ {key} : {declared.data}; {flags}}}"


def _chain_text(chain: Chain) -> str:
    lines = [chain.hook] if chain.hook else []
    return "\n".join([f"chain {split_name(chain.name)[1]} {{", *lines, *chain.rules, "}"])


def elements_text(verb: str, set_name: str, elements: Iterable[str]) -> str:
    """Return the command that adds or deletes elements."""
    family, name = split_name(set_name)
    return f"{verb} element {family} {TABLE} {name} {{ {', '.join(elements)} }}"


# Applying


def replace_ruleset(nft: Nftables, operation: ReplaceRuleset) -> None:
    """Put both tables in place in one transaction."""
    script = render_script(operation.ruleset)
    try:
        nft.run(script)
    except NftRefusalError as refusal:
        numbered = "\n".join(f"{number:4} {line}" for number, line in enumerate(script.splitlines(), 1))
        _log.error("nft refused this script: %s\n%s", refusal.text, numbered)
        raise _rejected(operation, refusal) from None


def add_admin_chains(nft: Nftables, operation: AddAdminChains) -> None:
    """Make the administrator's table and chains, unless the table is there.

    "create" and not "add": that would set the policy of a chain that was made meanwhile.
    """
    lines = [f"create table inet {ADMIN_TABLE}"]
    lines.extend(f"create chain inet {ADMIN_TABLE} {chain.name} {{ {chain.hook} }}" for chain in operation.chains)
    try:
        nft.run("\n".join(lines))
    except NftRefusalError as refusal:
        if refusal.errno != errno.EEXIST:
            raise _rejected(operation, refusal) from None


def remove_tables(nft: Nftables) -> None:
    """Delete both tables, and the administrator's if no rule is in it."""
    listings = {(family, TABLE): _list_table(nft, family) for family in FAMILIES}
    listings["inet", ADMIN_TABLE] = _list_table(nft, "inet", ADMIN_TABLE)
    going = [key for key, listing in listings.items() if listing is not None]
    if any("rule" in entry for entry in listings["inet", ADMIN_TABLE] or ()):
        going.remove(("inet", ADMIN_TABLE))
        _log.warning("the table inet %s has rules and stays", ADMIN_TABLE)
    command = "".join(f"delete table {family} {table}\n" for family, table in going)
    try:
        nft.run(command)
    except NftRefusalError as refusal:
        raise KernelRejected(command, refusal.errno, refusal.text) from None


def add_elements(nft: Nftables, operations: Sequence[AddElements]) -> None:
    """Add all elements in one transaction. One that is there with other data raises KernelRejected with EEXIST."""
    try:
        nft.run("\n".join(elements_text("add", o.set_name, o.elements) for o in operations))
    except NftRefusalError as refusal:
        if len(operations) == 1:
            raise _rejected(operations[0], refusal) from None
        # nft says which line it minds only in words; alone, the operation to blame is refused by itself.
        for operation in operations:
            add_elements(nft, [operation])


def delete_elements(nft: Nftables, operations: Sequence[DeleteElements]) -> None:
    """Delete all elements in one transaction; absent ones are no error."""
    try:
        nft.run("\n".join(elements_text("delete", o.set_name, o.elements) for o in operations))
    except NftRefusalError as refusal:
        if refusal.errno != errno.ENOENT:
            raise _rejected(operations[0], refusal) from None
        _delete_present(nft, operations)


def _delete_present(nft: Nftables, operations: Sequence[DeleteElements]) -> None:
    """Delete of the elements those that exist. A transaction fails as a whole for one that does not."""
    for operation in operations:
        present = {element_key(e) for e in list_elements(nft, operation.set_name)}
        elements = [element for element in operation.elements if element_key(element) in present]
        if not elements:
            continue
        try:
            nft.run(elements_text("delete", operation.set_name, elements))
        except NftRefusalError as refusal:
            raise _rejected(operation, refusal) from None


def _rejected(operation: Operation, refusal: NftRefusalError) -> KernelRejected:
    return KernelRejected(str(operation), refusal.errno, refusal.text.replace("\n", " / "))


def element_key(element: str) -> str:
    """Return the key of an element's text, without a map's data."""
    return element.partition(" : ")[0]


# Observing


def observe_ruleset(nft: Nftables, desired: Ruleset | None) -> Ruleset | None:
    """Return what the tables hold, None if there are none.

    ``sets`` and ``chains`` are those of ``desired`` if the tables were made from the same, and no set, chain or rule
    went missing since; else they are empty.
    """
    listings = {family: listing for family in FAMILIES if (listing := _list_table(nft, family)) is not None}
    if not listings:
        return None
    elements = {
        _qualified(family, declared["name"]): group
        for family, listing in listings.items()
        for entry in listing
        for declared in (entry.get("set") or entry.get("map"),)
        if declared
        for group in (_elements_of(declared),)
        if group
    }
    if desired is None or not _is_intact(listings, desired):
        return Ruleset(elements=MappingProxyType(elements))
    return Ruleset(sets=desired.sets, chains=desired.chains, elements=MappingProxyType(elements))


def has_admin_table(nft: Nftables) -> bool:
    """Tell whether the administrator's table is there."""
    listing = json.loads(nft.run("list tables inet", as_json=True))["nftables"]
    return any(entry["table"]["name"] == ADMIN_TABLE for entry in listing if "table" in entry)


def _list_table(nft: Nftables, family: str, table: str = TABLE) -> Sequence[Mapping[str, Any]] | None:
    command = f"list table {family} {table}"
    try:
        listing: Sequence[Mapping[str, Any]] = json.loads(nft.run(command, as_json=True))["nftables"]
    except NftRefusalError as refusal:
        if refusal.errno == errno.ENOENT:
            return None
        raise KernelRejected(command, refusal.errno, refusal.text) from None
    return listing


def _is_intact(listings: Mapping[str, Sequence[Mapping[str, Any]]], desired: Ruleset) -> bool:
    sets, chains, rules = set[str](), set[str](), Counter[str]()
    for family, listing in listings.items():
        for entry in listing:
            declared = entry.get("set") or entry.get("map")
            if declared:
                sets.add(_qualified(family, declared["name"]))
            elif "chain" in entry:
                chains.add(_qualified(family, entry["chain"]["name"]))
            elif "rule" in entry:
                rules[_qualified(family, entry["rule"]["chain"])] += 1
    return (
        listings.keys() == _families(desired)
        and sets == {declared.name for declared in desired.sets}
        and chains == {chain.name for chain in desired.chains}
        and all(rules[chain.name] == len(chain.rules) for chain in desired.chains)
        and all(_read_comment(family) == _comment(desired) for family in listings)
    )


def list_elements(nft: Nftables, set_name: str) -> frozenset[str]:
    """Return the elements of one set or map; none if it does not exist."""
    family, name = split_name(set_name)
    for kind in ("set", "map"):
        try:
            listing = json.loads(nft.run(f"list {kind} {family} {TABLE} {name}", as_json=True))["nftables"]
        except NftRefusalError:
            continue
        declared = next((entry[kind] for entry in listing if kind in entry), None)
        if declared is not None:
            return _elements_of(declared)
    return frozenset()


def _elements_of(declared: Mapping[str, Any]) -> frozenset[str]:
    is_map = "map" in declared
    elements = (element for element in declared.get("elem", ()) if not _is_made_by_rule(element))
    return frozenset(_element_text(element, is_map=is_map) for element in elements)


def _is_made_by_rule(element: Any) -> bool:
    """Tell whether an element of a dynamic set counts: libnftables 1.0.6 does not list the flag of the set in JSON."""
    return isinstance(element, dict) and "counter" in element.get("elem", ())


def _element_text(element: Any, *, is_map: bool) -> str:
    if is_map:
        key, data = element
        return f"{_value_text(key)} : {_value_text(data)}"
    return _value_text(element)


def _value_text(value: Any) -> str:
    """Return the canonical text of one value of libnftables-json(5); see ``plan.desired.Ruleset``."""
    match value:
        case {"elem": inner}:
            return _value_text(inner["val"])
        case {"concat": parts}:
            return " . ".join(map(_value_text, parts))
        case {"prefix": {"addr": address, "len": length}}:
            return f"{address}/{length}"
        case {"range": [first, last]}:
            return f"{_value_text(first)}-{_value_text(last)}"
        case {"jump": {"target": target}}:
            return f"jump {target}"
        case {"goto": {"target": target}}:
            return f"goto {target}"
        case {**verdict} if len(verdict) == 1:
            return str(next(iter(verdict)))
        case _:
            return str(value)


def has_table(family: str) -> bool:
    """Tell whether there is a table of ours in a family, without reading it."""
    return _get_table(family) is not None


def _read_comment(family: str) -> str:
    """Return the table's comment, '' if it has none; the JSON listing of nft 1.0.6 leaves it out."""
    answer = _get_table(family)
    if answer is None:
        return ""
    data = bytes(decode_attributes(answer[NFGENMSG.size :]).get(NFTA_TABLE_USERDATA, b""))
    while len(data) >= 2:
        kind, length = data[0], data[1]
        if kind == _USERDATA_COMMENT:
            return data[2 : 2 + length].rstrip(b"\0").decode(errors="replace")
        data = data[2 + length :]
    return ""


def _get_table(family: str) -> memoryview | None:
    """Return the kernel's message about our table of a family, None if there is none."""
    netfilter = NetlinkSocket(NETLINK_NETFILTER)
    try:
        body = NFGENMSG.pack(FAMILIES[family], 0, 0) + encode_attribute(NFTA_TABLE_NAME, TABLE.encode() + b"\0")
        return netfilter.get(Request(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE, 0, body))
    except OSError:
        return None
    finally:
        netfilter.close()
