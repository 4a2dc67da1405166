"""How the agent takes over a kernel: watched before it is looked at, so that nothing is heard by nobody."""

import contextlib
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import cast

import pytest

from netagent.daemon.main import _kernel_in_order
from netagent.daemon.wiring import Agent
from netagent.errors import KernelRejected
from netagent.kernel.fake import FakeKernel
from netagent.model.snapshot import Snapshot
from netagent.plan.desired import State
from netagent.reconcile.engine import Engine
from tests.support.world import a_host


class Kernel(FakeKernel):
    """One that somebody changes, or that refuses, while it is looked at for the first time."""

    def __init__(self, *, is_changed: bool = False, refusal: KernelRejected | None = None) -> None:
        super().__init__()
        self.looks = 0
        self._is_changed, self._refusal = is_changed, refusal
        self._changed: Callable[[], None] = lambda: None

    @contextlib.asynccontextmanager
    async def watched(self, changed: Callable[[], None], **_: object) -> AsyncIterator[None]:
        self._changed = changed
        yield

    async def retire_other_firewalls(self) -> None:
        """Nothing is left of any."""

    async def observe(self, desired: State) -> State:
        self.looks += 1
        state = await super().observe(desired)
        if self._is_changed and self.looks == 1:
            self._changed()
        if self._refusal is not None and self.looks == 1:
            raise self._refusal
        return state


async def _recall() -> None:
    """There is nothing to take over."""


async def _follows(kernel: Kernel) -> bool:
    """Tell whether the engine, after the agent took over, trusts what it saw."""
    engine = Engine(kernel, lambda: Snapshot(host=a_host(1)))
    agent = SimpleNamespace(
        context=SimpleNamespace(engine=engine),
        kernel=kernel,
        probing=SimpleNamespace(recall=_recall),
        coexistence=SimpleNamespace(request=lambda: None),
        uplinks=SimpleNamespace(request=lambda: None),
    )
    async with _kernel_in_order(cast(Agent, agent)):
        return await engine.follow()


async def test_a_start_looks_at_everything_once() -> None:
    kernel = Kernel()
    assert await _follows(kernel)
    assert kernel.looks == 1


@pytest.mark.parametrize(
    "kernel",
    [
        pytest.param(Kernel(is_changed=True), id="changed-by-others"),
        pytest.param(Kernel(refusal=KernelRejected("read its tables", 5, "")), id="refused"),
    ],
)
async def test_a_first_look_that_was_disturbed_is_taken_again(kernel: Kernel) -> None:
    assert not await _follows(kernel)
