"""The chains ``NETAGENT-…`` of iptables, ip6tables and ebtables, and the ipsets they use. For the worker thread only.

What was put is remembered between looks, so that adding or deleting an element runs one program a family and no more.
A notification makes the next pass look again, and so does any refusal. iptables-legacy has no notifications: what
others do to its rules is seen at the next comparison of everything.
"""

import errno
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType

from netagent.errors import KernelRejected, Unavailable
from netagent.firewall import counting
from netagent.firewall.counting import ServedPort, counters_of_ports
from netagent.firewall.elements import element_key
from netagent.firewall.iptables import admin, script
from netagent.firewall.iptables.counting import forget_counted, parse_counted
from netagent.firewall.iptables.listing import (
    Elements,
    Listing,
    elements_in,
    has_admin_chains,
    is_intact,
)
from netagent.firewall.iptables.neighbour_filter import SET_NAME, by_port
from netagent.firewall.iptables.pieces import ADMIN_PREFIX, PREFIX
from netagent.firewall.iptables.ruleset import FRAMES
from netagent.firewall.iptables.script import Scripts
from netagent.kernel.port_filters import PortFilters
from netagent.kernel.rtnl import Rtnl
from netagent.kernel.uapi import (
    NFPROTO_BRIDGE,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    NFT_MSG_DELCHAIN,
    NFT_MSG_DELRULE,
    NFT_MSG_DELTABLE,
    NFT_MSG_NEWRULE,
    NFTA_CHAIN_NAME,
    NFTA_RULE_CHAIN,
    NFTA_TABLE_NAME,
)
from netagent.kernel.xtables import LockHeldError, ProgramRefusalError, Programs
from netagent.model.counters import Counters
from netagent.plan.desired import Ruleset
from netagent.plan.operation import AddAdminChains, AddElements, DeleteElements, ReplaceRuleset

_log = logging.getLogger("netagent.kernel")

FAMILIES: Mapping[str, int] = {"ip": NFPROTO_IPV4, "ip6": NFPROTO_IPV6, "bridge": NFPROTO_BRIDGE}
_TABLES = frozenset((FAMILIES[frame.family], frame.table) for frame in (*FRAMES, *admin.FRAMES))
_HOOKS = frozenset(
    (FAMILIES[frame.family], frame.table, hook) for frame in (*FRAMES, *admin.FRAMES) for hook in frame.hooks
)
_ADMIN_HOOKS = frozenset((FAMILIES[frame.family], frame.table, hook) for frame in admin.FRAMES for hook in frame.hooks)


class IptablesFirewall:
    """The same promises through iptables; ``command`` as for ``xtables.Programs``.

    What ebtables cannot see is for programs at the ports (``PortFilters``).
    """

    def __init__(self, command: str, rtnl: Rtnl) -> None:
        self._programs = Programs(command)
        self._filters = PortFilters(rtnl)
        self.flavour = self._programs.flavour
        self._present: dict[str, dict[str, str]] | None = None
        """Set -> key -> element, as of the last look and what was done since; None: look again."""

    def replace(self, operation: ReplaceRuleset) -> None:
        """Put every chain and ipset in place; each table in one step."""
        elements = operation.ruleset.elements
        self._run(str(operation), script.replace_all(self._look(), elements))
        self._remember(elements)
        self._filters.replace(elements.get(SET_NAME, frozenset()))

    def add_admin_chains(self, operation: AddAdminChains) -> None:
        """Make the administrator's chains that are missing, before ours."""
        self._run(str(operation), script.add_admin_chains(self._look()))

    def add(self, operations: Sequence[AddElements]) -> None:
        """Add the elements that are not there yet, one program a family."""
        present = self._known()
        added: dict[str, set[str]] = {}
        for operation in operations:
            known = present.get(operation.set_name, {})
            for element in operation.elements:
                there = known.get(element_key(element), element)
                if there != element:
                    raise KernelRejected(str(operation), errno.EEXIST, f"{there} is there")
                if element_key(element) not in known:
                    added.setdefault(operation.set_name, set()).add(element)
        self._run(str(operations[0]), script.add_elements({name: frozenset(group) for name, group in added.items()}))
        for name, group in added.items():
            present.setdefault(name, {}).update((element_key(element), element) for element in group)
        self._guard(added.get(SET_NAME, ()))

    def delete(self, operations: Sequence[DeleteElements]) -> None:
        """Delete the elements that are there, one program a family."""
        present = self._known()
        gone: dict[str, set[str]] = {}
        for operation in operations:
            there = present.get(operation.set_name, {})
            keys = {element_key(element) for element in operation.elements} & there.keys()
            gone.setdefault(operation.set_name, set()).update(there[key] for key in keys)
        self._run(str(operations[0]), script.delete_elements({name: frozenset(group) for name, group in gone.items()}))
        for name, elements in gone.items():
            for element in elements:
                present[name].pop(element_key(element), None)
        self._guard(gone.get(SET_NAME, ()))
        with suppress(ProgramRefusalError):
            self._programs.restore_ipsets(forget_counted(gone))

    def guard(self, ports: Iterable[str]) -> None:
        """Put the programs of these ports in place."""
        wanted = by_port(self._known().get(SET_NAME, ()))
        for port in ports:
            self._filters.put(port, wanted.get(port, frozenset()))

    def is_in_place(self) -> bool:
        """Tell whether any of ours is there."""
        return bool(self._look())

    def _guard(self, elements: Iterable[str]) -> None:
        self.guard(by_port(elements))

    def observe(self, desired: Ruleset | None) -> Ruleset | None:
        """Return what the chains and ipsets and the ports' programs stand for."""
        listing = self._look()
        if not listing:
            self._forget()
            return None
        wanted = desired.elements.get(SET_NAME, frozenset()) if desired is not None else frozenset()
        elements = elements_in(listing)
        is_whole = is_intact(listing, elements)
        guarded = self._filters.elements(wanted)
        elements = MappingProxyType({**elements, SET_NAME: guarded} if guarded else elements)
        self._remember(elements)
        if desired is None or not is_whole:
            return Ruleset(elements=elements)
        return Ruleset(sets=desired.sets, chains=desired.chains, elements=elements)

    def elements(self, set_name: str) -> frozenset[str]:
        """Return the elements of one set or map."""
        if set_name == SET_NAME:
            return self._filters.elements()
        return elements_in(self._look()).get(set_name, frozenset())

    def served(self) -> Mapping[ServedPort, Counters]:
        """Return what the ipsets for it have counted."""
        return counters_of_ports(self._counted(counting.RECEIVED), self._counted(counting.SENT))

    def _counted(self, names: Iterable[str]) -> dict[ServedPort, tuple[int, int]]:
        found: dict[ServedPort, tuple[int, int]] = {}
        for name in names:
            found |= parse_counted(self._programs.save_ipset(f"{PREFIX}{name}"))
        return found

    def has_admin_chains(self) -> bool:
        """Tell whether the administrator's chains are there and come by."""
        return has_admin_chains(self._look())

    def concerns(self, kind: int, family: int, attributes: Mapping[int, memoryview | bytes]) -> bool:
        """Tell whether it may have taken something of ours away or put something into it (iptables-nft, ebtables)."""
        table = _text(attributes, NFTA_TABLE_NAME)
        if (family, table) not in _TABLES:
            return False
        chain = _text(attributes, NFTA_CHAIN_NAME if kind == NFT_MSG_DELCHAIN else NFTA_RULE_CHAIN)
        if kind == NFT_MSG_NEWRULE and (family, table, chain) in _ADMIN_HOOKS:
            # Docker puts its chain, with our marks in it, before the administrator's.
            return True
        if kind == NFT_MSG_DELRULE:
            return chain.startswith(PREFIX) or (family, table, chain) in _HOOKS
        is_ours = chain.startswith(PREFIX) and not chain.startswith(ADMIN_PREFIX)
        return kind == NFT_MSG_DELTABLE or (kind in (NFT_MSG_NEWRULE, NFT_MSG_DELCHAIN) and is_ours)

    def is_own(self, process: int) -> bool:
        """Tell whether it is one of the programs started here."""
        return self._programs.is_own(process)

    def remove(self, *, families: Collection[str] = FAMILIES) -> None:
        """Remove chains, and with the family ``bridge`` ipsets and ports' programs.

        Of the administrator's chains only empty ones go.
        """
        listing = self._look()
        self._run("remove the chains NETAGENT-*", script.remove_all(listing, families))
        if "bridge" in families:
            self._filters.replace(())
        self._forget()

    def close(self) -> None:
        """Nothing is kept open: every program ends with what it was asked."""

    def _look(self) -> Listing:
        try:
            return self._programs.list()
        except ProgramRefusalError as refusal:
            raise KernelRejected("list the chains NETAGENT-*", errno.EIO, str(refusal)) from None

    def _known(self) -> dict[str, dict[str, str]]:
        """Return what is there, from memory if it can be trusted."""
        if self._present is None:
            self._remember({**elements_in(self._look()), SET_NAME: self._filters.elements()})
        assert self._present is not None
        return self._present

    def _remember(self, elements: Elements) -> None:
        self._present = {name: {element_key(e): e for e in group} for name, group in elements.items()}

    def _forget(self) -> None:
        self._present = None

    def _run(self, what: str, scripts: Scripts) -> None:
        try:
            self._programs.restore_ipsets(scripts.ipsets_before)
            self._programs.restore(scripts.restore)
            self._programs.restore_ipsets(scripts.ipsets_after)
        except LockHeldError as refusal:
            self._forget()
            raise Unavailable(str(refusal), hint="end it, or try again when it has ended") from None
        except ProgramRefusalError as refusal:
            self._forget()
            _log.error("%s\n%s", refusal, "\n".join(scripts.restore.values()))
            raise KernelRejected(what, errno.ENOENT, str(refusal)) from None


def _text(attributes: Mapping[int, memoryview | bytes], number: int) -> str:
    return bytes(attributes.get(number, b"")).rstrip(b"\0").decode(errors="replace")
