"""Watches of a store that lives in this process: who commits a change hands it to all who watch.

A watch that lags by more than ``BACKLOG_LIMIT`` transactions is given the whole state anew, so that a stuck reader
costs no memory.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence

from netagent.reconcile.ports import Change, Changes, Listing, Relisted, WatchEvent

BACKLOG_LIMIT = 1000


class _Subscription:
    """What one watch has not been given yet."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.backlog: deque[Changes] = deque()
        self.must_relist = True
        self.awake = asyncio.Event()
        self.awake.set()

    def add(self, changes: Sequence[Change], revision: int) -> None:
        matching = tuple(change for change in changes if change.key.startswith(self.prefix))
        if not matching or self.must_relist:
            return
        self.backlog.append(Changes(changes=matching, revision=revision))
        if len(self.backlog) > BACKLOG_LIMIT:
            self.relist()
        self.awake.set()

    def relist(self) -> None:
        self.backlog.clear()
        self.must_relist = True
        self.awake.set()


class Subscriptions:
    """All watches of one store. While ``pause`` is in force they wait, and afterwards go on without a gap."""

    def __init__(self) -> None:
        self._subscriptions: set[_Subscription] = set()
        self._is_paused = False
        self._is_closed = False

    def publish(self, changes: Sequence[Change], revision: int) -> None:
        """Hand the changes of one transaction to the watches they concern."""
        for subscription in self._subscriptions:
            subscription.add(changes, revision)

    def relist(self) -> None:
        """Make every watch take the whole state anew."""
        for subscription in self._subscriptions:
            subscription.relist()

    def pause(self) -> None:
        """Let the watches wait."""
        self._is_paused = True

    def resume(self) -> None:
        """Let the watches go on."""
        self._is_paused = False
        self._wake()

    def close(self) -> None:
        """End the watches."""
        self._is_closed = True
        self._wake()

    def _wake(self) -> None:
        for subscription in self._subscriptions:
            subscription.awake.set()

    async def watch(self, prefix: str, take_listing: Callable[[], Listing]) -> AsyncGenerator[WatchEvent, None]:
        """Yield a Relisted made by ``take_listing``, then every transaction that touches ``prefix``."""
        subscription = _Subscription(prefix)
        self._subscriptions.add(subscription)
        try:
            while not self._is_closed:
                if self._is_paused or not (subscription.must_relist or subscription.backlog):
                    subscription.awake.clear()
                    await subscription.awake.wait()
                elif subscription.must_relist:
                    subscription.must_relist = False
                    yield Relisted(listing=take_listing())
                else:
                    yield subscription.backlog.popleft()
        finally:
            self._subscriptions.discard(subscription)
