"""Taking netagent's marks out of other people's firewalls, without an agent: before it is uninstalled."""

import asyncio
from collections.abc import Iterator

from netagent.coexist.all import FIREWALLS
from netagent.firewall.marks import Presence
from netagent.kernel.kernel import Kernel


def withdraw_marks() -> Iterator[str]:
    """Yield what was removed, a line each; NetagentError from the first firewall that refuses."""
    presence = asyncio.run(_presence())
    for firewall in FIREWALLS:
        yield from firewall.reconcile(None, presence)


async def _presence() -> Presence:
    kernel = Kernel()
    try:
        return await kernel.foreign_presence()
    finally:
        await kernel.close()
