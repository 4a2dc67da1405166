"""Errors -> gRPC status and trailing metadata, in one place for all services."""

from typing import Any, Never

import grpc

from netagent.errors import (
    AlreadyExists,
    Conflict,
    EnvironmentProblem,
    Exhausted,
    InvalidRequest,
    NetagentError,
    NotFound,
    NotPermitted,
    Unavailable,
)
from netagent.v1 import ERROR_EXIT_STATUS, ERROR_HINT, ERROR_KIND

_STATUS: dict[type[NetagentError], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    NotPermitted: grpc.StatusCode.PERMISSION_DENIED,
    Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    EnvironmentProblem: grpc.StatusCode.FAILED_PRECONDITION,
}
"""Every other class, KernelRejected and Bug among them, is INTERNAL."""

_TEXT_LIMIT = 1300
"""Bytes of a message or a hint. gRPC writes a byte as up to three, and clients take 8 KiB of metadata in all."""


def status_of(error: NetagentError) -> grpc.StatusCode:
    """Return the status for the class of ``error`` or for the nearest class it is derived from."""
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), grpc.StatusCode.INTERNAL)


def metadata_of(error: NetagentError) -> tuple[tuple[str, str | bytes], ...]:
    """Return what goes with the status, as ``netagent.v1`` names it."""
    metadata: list[tuple[str, str | bytes]] = [(ERROR_KIND, type(error).__name__)]
    if error.hint:
        metadata.append((ERROR_HINT, _cut(error.hint).encode()))
    if (exit_status := error.facts.get("exit_status")) is not None:
        metadata.append((ERROR_EXIT_STATUS, str(exit_status)))
    return tuple(metadata)


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: NetagentError) -> Never:
    """End the call with the status, message and metadata of ``error``."""
    await context.abort(status_of(error), _cut(error.message), metadata_of(error))


def _cut(text: str) -> str:
    encoded = text.encode()
    return text if len(encoded) <= _TEXT_LIMIT else encoded[:_TEXT_LIMIT].decode(errors="ignore") + "…"
