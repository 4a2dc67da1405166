"""The agent about itself."""

from collections.abc import Mapping
from dataclasses import dataclass

from netagent import __version__
from netagent.model.host import Host
from netagent.reconcile.ports import StoreStatistics
from netagent.services.context import Context
from netagent.services.membership import MembershipService


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentInfo:
    """Who this agent is and how it is doing; ``kernel_error`` is empty if the kernel is as it should be.

    Of the cluster's store: the last revision that was heard, how often all was listed and why, how many changes were
    never told, the seconds that the lease certainly lasts (None without one), and the id of another cluster whose store
    was refused (empty if none was).
    """

    version: str
    host: Host
    store: str
    store_connected: bool
    store_revision: int
    store_listings: Mapping[str, int]
    store_missed: int
    store_statistics: StoreStatistics
    lease_remaining_s: float | None
    foreign_cluster: str
    store_error: str
    kernel_error: str
    refused: Mapping[str, str]
    run_dir: str


class InfoService:
    """Answers ``netagent info``. ``store`` is the store's URL without secrets, or "embedded"."""

    def __init__(self, context: Context, membership: MembershipService, *, store: str, run_dir: str) -> None:
        self._context = context
        self._membership = membership
        self._store = store
        self._run_dir = run_dir

    def info(self) -> AgentInfo:
        """Return the present state."""
        stores = self._context.stores
        views = [access.view for access in stores.all]
        refused = {key: why for view in views for key, why in {**view.misplaced, **view.refused}.items()}
        return AgentInfo(
            version=__version__,
            host=self._context.host,
            store=self._store,
            store_connected=stores.cluster.store.is_connected,
            store_revision=stores.cluster.mirror.revision,
            store_listings={str(why): count for why, count in sorted(stores.cluster.mirror.listings.items())},
            store_missed=stores.cluster.mirror.missed,
            store_statistics=stores.cluster.store.statistics,
            lease_remaining_s=stores.cluster.store.lease_remaining_s,
            foreign_cluster=self._membership.foreign,
            store_error=self._context.knowledge.store_error,
            kernel_error=self._context.engine.status.error or "",
            refused=refused,
            run_dir=self._run_dir,
        )
