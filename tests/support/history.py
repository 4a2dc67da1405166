"""Who had which address when: a record that several threads write while faults happen, and what must hold of it.

Only what is certain is written down: an address is somebody's from the moment the answer is here until the moment
before it is given back. So two spans that overlap are an address given twice, whatever happened between.
"""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

NEVER = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """``holder`` on ``host`` had ``address`` from ``since`` to ``until``, in seconds of one monotonic clock."""

    address: str
    host: str
    holder: str
    since: float
    until: float = NEVER

    def __str__(self) -> str:
        until = "still" if self.until == NEVER else f"until {self.until:.3f}"
        return f"{self.address} of {self.holder} on {self.host} from {self.since:.3f} {until}"


class History:
    """The spans so far. A host's power cut ends all its spans, and what it answers late does not count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._boots: dict[str, int] = {}
        self._open: dict[str, Span] = {}
        self._closed: list[Span] = []

    def boot(self, host: str) -> int:
        """Return how often a host has lost power: what it answers counts only if that is the same afterwards."""
        with self._lock:
            return self._boots.get(host, 0)

    def take(self, address: str, host: str, holder: str, *, boot: int) -> bool:
        """Note that ``holder`` has got an address; False if the host lost power meanwhile."""
        with self._lock:
            if self._boots.get(host, 0) != boot:
                return False
            self._open[holder] = Span(address=address, host=host, holder=holder, since=time.monotonic())
            return True

    def give_back(self, holder: str) -> None:
        """Note, before it is asked for, that ``holder`` gives its address back."""
        with self._lock:
            self._close(holder)

    def cut_power(self, host: str) -> None:
        """Note that a host and all on it are gone: before it happens, and again once it has happened."""
        with self._lock:
            self._boots[host] = self._boots.get(host, 0) + 1
            for holder in [span.holder for span in self._open.values() if span.host == host]:
                self._close(holder)

    def _close(self, holder: str) -> None:
        span = self._open.pop(holder, None)
        if span is not None:
            until = time.monotonic()
            self._closed.append(
                Span(address=span.address, host=span.host, holder=holder, since=span.since, until=until)
            )

    @property
    def present(self) -> tuple[Span, ...]:
        """The spans that have not ended."""
        with self._lock:
            return tuple(self._open.values())

    @property
    def spans(self) -> tuple[Span, ...]:
        """All spans."""
        with self._lock:
            return (*self._closed, *self._open.values())


def overlaps(spans: Iterable[Span]) -> list[tuple[Span, Span]]:
    """Return each pair of spans, neighbours in time, in which an address had two holders at once."""
    ordered = sorted(spans, key=lambda span: (span.address, span.since))
    found: list[tuple[Span, Span]] = []
    longest: Span | None = None
    for span in ordered:
        if longest is None or longest.address != span.address:
            longest = span
            continue
        if span.since < longest.until:
            found.append((longest, span))
        longest = max(longest, span, key=lambda one: one.until)
    return found
