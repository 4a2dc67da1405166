"""Finding things by what a user types: a name, an id, or a unique beginning of an id."""

import re
from collections.abc import Iterable
from typing import Protocol, TypeVar

from netagent.errors import InvalidRequest, NotFound
from netagent.model.ids import is_id_prefix

_DIGITS = re.compile(r"(\d+)")


class Named(Protocol):
    """What has an id and a name."""

    @property
    def id(self) -> str:
        """64 hex digits."""

    @property
    def name(self) -> str:
        """What users call it."""


_N = TypeVar("_N", bound=Named)


def find_by_name(text: str, candidates: Iterable[_N], *, what: str, missing: str, hint: str) -> _N:
    """Return the candidate that ``text`` means. A full name wins over an id, a full id over a beginning of one.

    ``missing`` is Docker's text for none ("network X not found") and ``hint`` the way out; ``what`` names the kind
    where several match.
    """
    if not text:
        raise InvalidRequest(f"invalid {what} name or ID: value is empty", hint=hint)
    known = tuple(candidates)
    named = next((c for c in known if text in (c.name, c.id)), None)
    if named is not None:
        return named
    matches = [c for c in known if c.id.startswith(text)] if text and is_id_prefix(text) else []
    if len(matches) > 1:
        raise InvalidRequest(
            f"{what} {text} is ambiguous ({len(matches)} matches found based on ID prefix)",
            hint="give more digits of the id, or the name",
        )
    if not matches:
        raise NotFound(missing, hint=hint)
    return matches[0]


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key by which ``net2`` comes before ``net10``."""
    parts = _DIGITS.split(text)
    return tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts)
