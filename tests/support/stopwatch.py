"""How long something takes, without the time for which a busy machine kept this process from running at all."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

TICK_S = 0.01
LONGEST_TICK_S = 0.05
"""What a tick counts for at most: the rest of a longer one this process stood still."""


@asynccontextmanager
async def running_time() -> AsyncIterator[Callable[[], float]]:
    """Yield a function that returns the seconds since then in which the event loop went round."""
    counted = 0.0

    async def count() -> None:
        nonlocal counted
        while True:
            before = time.monotonic()
            await asyncio.sleep(TICK_S)
            counted += min(time.monotonic() - before, LONGEST_TICK_S)

    counting = asyncio.create_task(count())
    try:
        yield lambda: counted
    finally:
        counting.cancel()
        with suppress(asyncio.CancelledError):
            await counting
