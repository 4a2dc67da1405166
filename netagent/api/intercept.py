"""What happens around every call: errors become a status, and the log says what was asked and how long it took."""

# The generics of grpc exist for the type checker only.
from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any

import grpc

from netagent.api.errors import abort
from netagent.api.roles import Roles
from netagent.errors import Bug, NetagentError, Unavailable

log = logging.getLogger(__name__)

_OURS = "/netagent.v1."
_PATIENT = frozenset({"Containers/Wait", "Events/Watch", "Networks/Remove"})
"""Calls that may wait for the world; a server that stops does not wait for them."""


class Interceptor(grpc.aio.ServerInterceptor):
    """Goes around the calls of netagent's own services; health and reflection are left as they are.

    With ``roles`` it admits clients by their certificates, and the log says who changed something.
    """

    def __init__(self, roles: Roles | None = None) -> None:
        self._roles = roles
        self._patient: set[asyncio.Task[Any]] = set()
        self._is_stopping = False

    def interrupt(self) -> None:
        """End the calls that only wait: their clients learn that the agent is stopping."""
        self._is_stopping = True
        for task in self._patient:
            task.cancel()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the method's handler, wrapped."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(_OURS):
            return handler
        name = method.removeprefix(_OURS)
        codec = (handler.request_deserializer, handler.response_serializer)
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._wrap_unary(name, handler.unary_unary), *codec)
        assert handler.unary_stream is not None
        return grpc.unary_stream_rpc_method_handler(self._wrap_stream(name, handler.unary_stream), *codec)

    def _wrap_unary(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(request: Any, context: Any) -> Any:
            async with self._answering(name, context):
                self._admit(name, context)
                with self._interruptible(name):
                    return await method(request, context)

        return call

    def _wrap_stream(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            async with self._answering(name, context):
                self._admit(name, context)
                async with aclosing(method(request, context)) as responses:
                    while True:
                        with self._interruptible(name):
                            response = await anext(responses, None)
                        if response is None:
                            return
                        yield response

        return call

    def _admit(self, name: str, context: Any) -> None:
        if self._roles is None:
            return
        who = self._roles.admit(name, context.auth_context())
        if self._roles.changes(name):
            log.info("%s from %s calls %s", who, context.peer(), name)

    @asynccontextmanager
    async def _answering(self, name: str, context: Any) -> AsyncIterator[None]:
        """Turn what is raised inside into the call's status. A client that has gone away is no error."""
        begun = time.perf_counter()
        outcome = "cancelled"
        try:
            yield
            outcome = "ok"
        except NetagentError as error:
            outcome = f"{type(error).__name__}: {error}"
            await abort(context, error)
        except Exception:
            incident = secrets.token_hex(4)
            outcome = f"incident {incident}"
            log.exception("%s failed, incident %s", name, incident)
            await abort(context, Bug(f"internal error {incident}", hint="the agent's log says more under this number"))
        finally:
            log.debug("%s took %.1f ms: %s", name, (time.perf_counter() - begun) * 1000, outcome)

    @contextmanager
    def _interruptible(self, name: str) -> Iterator[None]:
        """Let ``interrupt`` end what is awaited inside, if the call is a patient one.

        A cancellation that hit gRPC's own sending would leave the call without a status, and the server waiting for it.
        """
        task = asyncio.current_task()
        assert task is not None
        if name in _PATIENT:
            if self._is_stopping:
                raise _stopping()
            self._patient.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not (self._is_stopping and task in self._patient):
                raise
            task.uncancel()
            raise _stopping() from None
        finally:
            self._patient.discard(task)


def _stopping() -> Unavailable:
    return Unavailable("the agent is stopping", hint="ask again when it is back")
