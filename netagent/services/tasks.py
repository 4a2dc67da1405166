"""Where services start what goes on after their answer: in the agent's one task group, each task with a name."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger("netagent.tasks")


class Tasks:
    """Background tasks of the services; all are cancelled when the agent stops."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str, essential: bool = False) -> None:
        """Run ``work`` beside everything else until it ends or the agent stops.

        A failure of ``essential`` work ends the agent, for its supervisor to start it anew; another one is logged.
        """
        task = self._group.create_task(work if essential else _guarded(work, name), name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def cancel(self) -> None:
        """Cancel everything that still runs."""
        for task in self._running:
            task.cancel()


async def _guarded(work: Coroutine[Any, Any, None], name: str) -> None:
    """Run ``work``; a failure ends this task, not the agent."""
    try:
        await work
    except Exception:
        log.exception("task %s failed", name)
