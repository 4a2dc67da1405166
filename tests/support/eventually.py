"""Waiting for what another process or task will do, by looking again and again until a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Found = TypeVar("Found")


async def eventually(probe: Callable[[], Awaitable[Found]], *, within: float = 30.0, every: float = 0.02) -> Found:
    """Return the first truthy result of ``probe``; AssertionError after ``within`` seconds."""
    deadline = time.monotonic() + within
    while not (found := await probe()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still {found!r} after {within} s")
        await asyncio.sleep(every)
    return found
