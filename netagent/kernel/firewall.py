"""What the worker thread asks of a firewall, whichever programs or libraries it goes through."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from netagent.firewall import counting
from netagent.firewall.counting import ServedPort, counters_of_ports
from netagent.kernel import counted, nftables
from netagent.kernel.elements import ElementWriter
from netagent.kernel.uapi import NFT_MSG_DELTABLE, NFTA_TABLE_NAME
from netagent.model.counters import Counters
from netagent.plan.desired import Ruleset
from netagent.plan.operation import AddAdminChains, AddElements, DeleteElements, ReplaceRuleset


class Firewall(Protocol):
    """The sets and chains of the plan in one network namespace. For the worker thread only, but for ``concerns``."""

    def replace(self, operation: ReplaceRuleset) -> None:
        """Put everything in place of whatever is there of ours; nothing passes unfiltered in between."""

    def add_admin_chains(self, operation: AddAdminChains) -> None:
        """Make the administrator's chains where they are missing."""

    def add(self, operations: Sequence[AddElements]) -> None:
        """Add elements. One that is there with other data raises KernelRejected with EEXIST."""

    def delete(self, operations: Sequence[DeleteElements]) -> None:
        """Delete elements; absent ones are no error."""

    def guard(self, ports: Iterable[str]) -> None:
        """Put in place what can only be there once these links are: made, but not up yet."""

    def is_in_place(self) -> bool:
        """Tell whether anything of ours is there."""

    def observe(self, desired: Ruleset | None) -> Ruleset | None:
        """Return what is there of ours, None if nothing is.

        ``sets`` and ``chains`` are those of ``desired`` if all that is constant is in place; else they are empty.
        """

    def elements(self, set_name: str) -> frozenset[str]:
        """Return the elements of one set or map; none if it does not exist."""

    def served(self) -> Mapping[ServedPort, Counters]:
        """Return what published ports have received and sent, those of which anything has passed."""

    def has_admin_chains(self) -> bool:
        """Tell whether the administrator's chains are there."""

    def concerns(self, kind: int, family: int, attributes: Mapping[int, memoryview | bytes]) -> bool:
        """Tell whether an nfnetlink notification of nftables is about something of ours. From any thread."""

    def is_own(self, process: int) -> bool:
        """Tell whether the thread or process that made a transaction was at work for this firewall. From any thread."""

    def remove(self) -> None:
        """Remove all that is ours, and of the administrator's chains what is empty."""

    def close(self) -> None:
        """Close what this object opened."""


class NftablesFirewall:
    """The tables ``inet netagent`` and ``bridge netagent``."""

    def __init__(self, nft: nftables.Nftables) -> None:
        self._nft = nft
        self._writer = ElementWriter()
        self._thread = threading.get_native_id()

    def replace(self, operation: ReplaceRuleset) -> None:
        """Replace both tables in one transaction."""
        nftables.replace_ruleset(self._nft, operation)
        self._writer.learn(operation.ruleset.sets)

    def add_admin_chains(self, operation: AddAdminChains) -> None:
        """Make the administrator's table, unless it is there."""
        nftables.add_admin_chains(self._nft, operation)

    def add(self, operations: Sequence[AddElements]) -> None:
        """Add elements in one transaction."""
        if not self._writer.add(operations):
            nftables.add_elements(self._nft, operations)

    def delete(self, operations: Sequence[DeleteElements]) -> None:
        """Delete elements in one transaction."""
        if not self._writer.delete(operations):
            nftables.delete_elements(self._nft, operations)
        ports = {port for o in operations for port in counting.ports_in(o.set_name, o.elements)}
        if ports:
            counted.forget_counted(self._nft, self._writer, ports)

    def guard(self, ports: Iterable[str]) -> None:
        """Do nothing: rules know links by their names, made or not."""

    def is_in_place(self) -> bool:
        """Tell whether one of the tables is there."""
        return any(nftables.has_table(family) for family in nftables.FAMILIES)

    def observe(self, desired: Ruleset | None) -> Ruleset | None:
        """Return what the tables hold."""
        observed = nftables.observe_ruleset(self._nft, desired)
        if observed is not None and observed.sets:
            self._writer.learn(observed.sets)
        return observed

    def elements(self, set_name: str) -> frozenset[str]:
        """Return the elements of one set or map."""
        return nftables.list_elements(self._nft, set_name)

    def served(self) -> Mapping[ServedPort, Counters]:
        """Return what the dynamic sets have counted."""
        return counters_of_ports(
            counted.read_counted(self._nft, counting.RECEIVED), counted.read_counted(self._nft, counting.SENT)
        )

    def has_admin_chains(self) -> bool:
        """Tell whether the administrator's table is there."""
        return nftables.has_admin_table(self._nft)

    def concerns(self, kind: int, family: int, attributes: Mapping[int, memoryview | bytes]) -> bool:
        """Tell whether it is about our tables, or says that the administrator's is gone."""
        # Attribute 1 is the table's name in the messages of every kind of object.
        name = bytes(attributes.get(NFTA_TABLE_NAME, b"")).rstrip(b"\0").decode(errors="replace")
        return name == nftables.TABLE or (name == nftables.ADMIN_TABLE and kind == NFT_MSG_DELTABLE)

    def is_own(self, process: int) -> bool:
        """Tell whether it is the worker thread."""
        return process == self._thread

    def remove(self) -> None:
        """Delete the tables; the administrator's only if no rule is in it."""
        nftables.remove_tables(self._nft)

    def close(self) -> None:
        """Close what was opened here; the context is its maker's."""
        self._writer.close()
