"""Errors -> CNI error codes and objects, in one place for all verbs."""

from collections.abc import Iterator
from enum import IntEnum
from typing import Any

from netagent.errors import (
    AlreadyExists,
    Conflict,
    Exhausted,
    InvalidRequest,
    NetagentError,
    NotFound,
    Unavailable,
)

TEXT_LIMIT = 2000
"""Characters of ``msg`` and ``details``; they end up in the runtimes' logs and in Kubernetes events."""


class CniCode(IntEnum):
    """Codes below 100 are the CNI specification's, section "Error"; 8 is libcni's (pkg/types, ``ErrInvalidNetNS``)."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    """The runtime need not call DEL, so only where nothing was changed."""
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    DECODE_FAILURE = 6
    INVALID_CONFIGURATION = 7
    INVALID_NETNS = 8
    TRY_AGAIN_LATER = 11
    NOT_AVAILABLE = 50
    """STATUS: ADD cannot succeed now."""
    LIMITED = 51
    """STATUS: as 50, and containers that are attached may not reach all they should."""
    ALREADY_ATTACHED = 100
    PORT_CONFLICT = 101
    ADDRESS_IN_USE = 102
    POOL_EXHAUSTED = 103
    INTERFACE_EXISTS = 104
    DIFFERENT = 110
    """CHECK: the attachment is not as ADD made it."""
    INTERNAL = 199


class CniError(Exception):
    """A refusal as the runtime reads it: code, one line that names the thing, and the way out."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg
        self.details = details


def cni_error(error: NetagentError) -> CniError:
    """Return how a service's error is told to a runtime."""
    return CniError(code_of(error), error.message, error.hint)


def code_of(error: NetagentError) -> CniCode:
    """Return the code for the class of ``error`` and for the things that its facts name."""
    match error:
        case NotFound() if "netns" in error.facts:
            return CniCode.UNKNOWN_CONTAINER
        case InvalidRequest() if "netns" in error.facts:
            return CniCode.INVALID_NETNS
        case Conflict() if "port" in error.facts:
            return CniCode.PORT_CONFLICT
        case Conflict() if "address" in error.facts:
            return CniCode.ADDRESS_IN_USE
        case Conflict() | AlreadyExists() if "interface" in error.facts:
            return CniCode.INTERFACE_EXISTS
        case InvalidRequest() | NotFound() | Conflict():
            return CniCode.INVALID_CONFIGURATION
        case AlreadyExists():
            return CniCode.ALREADY_ATTACHED
        case Exhausted():
            return CniCode.POOL_EXHAUSTED
        case Unavailable():
            return CniCode.TRY_AGAIN_LATER
    return CniCode.INTERNAL


def error_object(error: CniError, version: str) -> dict[str, Any]:
    """Return the JSON object that a plugin prints for ``error``."""
    answer = {"cniVersion": version, "code": int(error.code), "msg": _one_line(error.msg)}
    return answer | ({"details": _one_line(error.details)} if error.details else {})


def _one_line(text: str) -> str:
    """Return ``text`` cut, and without control characters: it may repeat what a tenant wrote."""
    return "".join(_printable(text[:TEXT_LIMIT]))


def _printable(text: str) -> Iterator[str]:
    for letter in text:
        yield letter if letter.isprintable() else letter.encode("unicode_escape").decode()
