"""The service ``Events``."""

# ruff: noqa: N802 - the methods have the names that the contract gives them

from collections.abc import AsyncIterator

from netagent.api.convert import encode_event
from netagent.services.events import EventBus
from netagent.v1 import events_pb2, events_pb2_grpc


class EventsServicer(events_pb2_grpc.EventsServicer):
    """What happened, and what happens."""

    def __init__(self, events: EventBus) -> None:
        self._events = events

    async def Watch(self, request: events_pb2.WatchEventsRequest, context: object) -> AsyncIterator[events_pb2.Event]:
        """Stream the recent events, then, if asked, those to come."""
        if request.follow:
            async for event in self._events.follow():
                yield encode_event(event)
        else:
            for event in self._events.recent():
                yield encode_event(event)
