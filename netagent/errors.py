"""Everything netagent refuses or fails with, sorted by who must act.

::

    NetagentError
    ├── InvalidRequest      the caller: the request itself is wrong
    ├── NotFound            the caller: the named thing does not exist
    ├── AlreadyExists       the caller: the name or thing is there already
    ├── Conflict            the caller: something else holds what is asked for
    ├── NotPermitted        the caller: its role does not include the call
    ├── Exhausted           the operator: a pool or a kernel limit is used up
    ├── Unavailable         nobody, or the operator: try again later (store, peer, agent away)
    ├── EnvironmentProblem  the operator: privilege, kernel feature, missing program
    ├── KernelRejected      the operator: the kernel said no to a planned operation
    └── Bug                 us

The class decides the gRPC status, the CNI code and the exit status; see ``api/errors.py`` and ``api/cni.py``.
"""

from typing import Any


class NetagentError(Exception):
    """One refusal or failure: what failed, on which object, with which value, and the way out.

    ``message`` is one line; ``hint`` is one line that says what to do, or empty. ``facts`` carry the objects
    by name for logs.
    """

    def __init__(self, message: str, *, hint: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts = facts

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidRequest(NetagentError):
    """The request can never succeed as it is written."""


class NotFound(NetagentError):
    """The named object does not exist."""


class AlreadyExists(NetagentError):
    """The name is taken."""


class Conflict(NetagentError):
    """Another object holds what the request needs."""


class NotPermitted(NetagentError):
    """The caller's role does not allow the call."""


class Exhausted(NetagentError):
    """A pool has no free element, or a kernel limit is reached."""


class Unavailable(NetagentError):
    """A needed service does not answer now; the same request may succeed later."""


class EnvironmentProblem(NetagentError):
    """This machine lacks a privilege, a kernel feature or a program."""


class KernelRejected(NetagentError):
    """The kernel refused a planned operation."""

    def __init__(self, operation: str, errno: int, text: str, *, hint: str = "") -> None:
        super().__init__(f"kernel refused {operation!r}: {text}", hint=hint, operation=operation, errno=errno)
        self.operation = operation
        self.errno = errno


class Bug(NetagentError):
    """A state that the code holds to be impossible."""
