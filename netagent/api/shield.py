"""Work that goes on when the client who asked for it has gone away, so that nothing is left half made."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class Shield:
    """Runs service calls as tasks of their own. ``drain`` ends them together with the server."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def finish(
        self, work: Coroutine[Any, Any, _T], *, unclaimed: Callable[[_T], Coroutine[Any, Any, None]] | None = None
    ) -> _T:
        """Return the result of ``work``. If the caller is cancelled meanwhile, ``work`` goes on to its end.

        ``unclaimed`` then gets the result that the caller did not.
        """
        task = self._spawn(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._spawn(_settle(task, unclaimed))
            raise

    async def drain(self, grace_s: float) -> None:
        """Wait for all work, cancelling what is not done after ``grace_s``."""
        try:
            async with asyncio.timeout(grace_s):
                while self._tasks:
                    await asyncio.wait(self._tasks)
        except TimeoutError:
            late = tuple(self._tasks)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _settle(task: asyncio.Task[_T], unclaimed: Callable[[_T], Coroutine[Any, Any, None]] | None) -> None:
    """See work to its end that nobody waits for any more; what goes wrong is for the log."""
    try:
        result = await task
        if unclaimed is not None:
            await unclaimed(result)
    except Exception:
        log.warning("work failed whose client had gone away", exc_info=True)
