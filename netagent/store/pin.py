"""Which cluster's store this host belongs to: learnt at the first contact, kept, and from then on no other is heard.

An address may come to lead to another etcd: a typing error, a reused machine, DNS. Its content would be taken for the
cluster's, and our claims be made where nobody looks. So another cluster is refused until an operator accepts it.
"""

import os
from collections.abc import Callable
from pathlib import Path

from netagent.errors import InvalidRequest, Unavailable


class ForeignCluster(Unavailable):
    """What answers is another cluster's store; nothing was read from it or written to it."""


class ClusterPin:
    """The id of the cluster, in the file ``path``. ``on_refused`` is called with each other id that answers, once."""

    def __init__(self, path: Path, *, on_refused: Callable[[str, str], None] = lambda found, expected: None) -> None:
        self._path = path
        self._on_refused = on_refused
        self.expected = path.read_text().strip() if path.exists() else ""
        self.refused = ""
        """The id of the other cluster that answered last; empty if ours did."""

    def check(self, found: str, where: str) -> None:
        """Take ``found`` for ours if there was none before; ForeignCluster if it is another one."""
        if not self.expected:
            self._keep(found)
        if found == self.expected:
            self.refused = ""
            return
        if found != self.refused:
            self.refused = found
            self._on_refused(found, self.expected)
        raise ForeignCluster(
            f"{where} is cluster {found}, and this host belongs to cluster {self.expected}",
            hint="correct --store; or, if its etcd was replaced, netagent store accept on every host",
            reason="another cluster",
            maybe_applied=False,
        )

    def accept(self) -> str:
        """Belong to the cluster that answered last, and return its id; InvalidRequest if none was refused."""
        if not self.refused:
            raise InvalidRequest("no other cluster's store was refused", hint="netagent info shows the store")
        self._keep(self.refused)
        self.refused = ""
        return self.expected

    def _keep(self, cluster: str) -> None:
        aside = self._path.with_name(f"{self._path.name}.new")
        with aside.open("w") as file:
            file.write(f"{cluster}\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._path)
        self.expected = cluster
