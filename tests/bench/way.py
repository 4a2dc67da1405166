"""A way between two containers that is measured, and the hosts at its ends, whatever those are made of."""

import subprocess
from dataclasses import dataclass
from typing import Any, Protocol

from netagent.model.address import Address


class Place(Protocol):
    """A host as commands on it see it: one of a lab, or a namespace of a virtual machine."""

    @property
    def name(self) -> str:
        """Its name, a letter and its number."""

    @property
    def ip(self) -> Address:
        """Its address on the underlay."""

    def run(
        self, *argv: str, check: bool = True, timeout: float = 60, stdin: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command there to its end, its output as text."""

    def popen(self, *argv: str, **options: Any) -> "subprocess.Popen[str]":
        """Start a command there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """A namespace on a host, entered by ``inside``."""

    host: Place
    inside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way from one end to another, whose address is ``target``.

    Compared with the ways ``plain``, ``by_hand``, and ``checked``, which is by hand with the same checks. Those of one
    ``group`` are measured right after one another; with ``closely`` in many turns, as there is a goal for them.
    """

    name: str
    client: End
    server: End
    target: str
    group: str = ""
    closely: bool = False
    plain: str = ""
    by_hand: str = ""
    checked: str = ""


def enter(namespace: str) -> tuple[str, ...]:
    """Return what runs a command in a network namespace with a name."""
    return ("nsenter", f"--net=/run/netns/{namespace}")
