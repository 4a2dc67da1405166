"""Identities and names.

Ids are 64 lower-case hex digits, shown as 12, as Docker's are. Names follow Docker's rule for containers.
"""

import re
from typing import NewType

from netagent.errors import InvalidRequest

NetworkId = NewType("NetworkId", str)
EndpointId = NewType("EndpointId", str)
ContainerId = NewType("ContainerId", str)
HostId = NewType("HostId", str)

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_HEX = re.compile(r"[0-9a-f]+")
NAME_LIMIT = 128
INTERFACE_NAME_LIMIT = 15
"""Bytes of an interface name without its NUL: IFNAMSIZ - 1, include/uapi/linux/if.h."""


def parse_name(text: str, *, what: str) -> str:
    """Return ``text`` if it is a usable name for ``what`` ("network", "container", "alias"); else InvalidRequest."""
    if not _NAME.fullmatch(text) or len(text) > NAME_LIMIT:
        raise InvalidRequest(
            f"invalid {what} name {text!r}",
            hint=f"use up to {NAME_LIMIT} of [a-zA-Z0-9_.-], starting with a letter or digit",
        )
    return text


def parse_alias(text: str) -> str:
    """Return ``text`` if it is a usable DNS alias: a name, or ``*.NAME`` for everything below it."""
    parse_name(text.removeprefix("*."), what="alias")
    return text


def parse_interface_name(text: str) -> str:
    """Return ``text`` if the kernel takes it as an interface name (``dev_valid_name``, net/core/dev.c)."""
    wrong = (
        not text
        or len(text.encode()) > INTERFACE_NAME_LIMIT
        or text in (".", "..")
        or any(letter in "/:" or letter.isspace() or ord(letter) < 0x21 or ord(letter) == 0x7F for letter in text)
    )
    if wrong:
        raise InvalidRequest(
            f"invalid interface name {text!r}",
            hint=f"use 1 to {INTERFACE_NAME_LIMIT} bytes without '/', ':' or white space",
        )
    return text


def short(full_id: str) -> str:
    """Return the 12 digits under which an id is shown."""
    return full_id[:12]


def is_id_prefix(text: str) -> bool:
    """Tell whether ``text`` could be the beginning of an id."""
    return len(text) <= 64 and _HEX.fullmatch(text) is not None
