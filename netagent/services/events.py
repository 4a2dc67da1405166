"""Events: what happened on this host, for those who ask later and for those who listen now."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType

RECENT_LIMIT = 1000
"""Events kept for those who ask later."""

BACKLOG_LIMIT = 1000
"""Events that a slow listener may lag behind before it loses the oldest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened: ``type`` and ``action`` as in ``docker events``; ``time`` in RFC 3339, UTC."""

    time: str
    type: str
    action: str
    id: str
    attributes: Mapping[str, str]


class EventBus:
    """Takes events from the services and hands them to listeners; publishing never waits. ``now`` tells the time."""

    def __init__(self, now: Callable[[], str]) -> None:
        self._now = now
        self._recent: deque[Event] = deque(maxlen=RECENT_LIMIT)
        self._listeners: set[asyncio.Queue[Event]] = set()

    def publish(self, type: str, action: str, id: str, **attributes: str) -> None:  # noqa: A002
        """Note that ``action`` happened to the object ``id``."""
        event = Event(time=self._now(), type=type, action=action, id=id, attributes=MappingProxyType(attributes))
        self._recent.append(event)
        for queue in self._listeners:
            if queue.full():
                with suppress(asyncio.QueueEmpty):
                    queue.get_nowait()
            queue.put_nowait(event)

    def recent(self) -> list[Event]:
        """Return the last events, oldest first."""
        return list(self._recent)

    async def follow(self) -> AsyncIterator[Event]:
        """Yield the recent events, then those to come."""
        queue: asyncio.Queue[Event] = asyncio.Queue(BACKLOG_LIMIT + RECENT_LIMIT)
        for event in self._recent:
            queue.put_nowait(event)
        self._listeners.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)
