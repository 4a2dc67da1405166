"""Which cluster this host belongs to, and the operator's word that it is another one now."""

import logging

from netagent.errors import InvalidRequest
from netagent.services.context import Context
from netagent.store.pin import ClusterPin

log = logging.getLogger("netagent.membership")


class MembershipService:
    """Answers ``netagent store accept``. ``pin`` is None on a host with a store of its own."""

    def __init__(self, context: Context, pin: ClusterPin | None) -> None:
        self._context = context
        self._pin = pin

    @property
    def foreign(self) -> str:
        """The id of another cluster that answered last, and was refused; empty if ours did."""
        return self._pin.refused if self._pin is not None else ""

    def accept(self) -> str:
        """Belong to the cluster that was refused, and return its id; InvalidRequest if there is none.

        What is in use here and not in its store stays, as after a loss of records, until ``store rebuild``.
        """
        if self._pin is None:
            raise InvalidRequest("this host has a store of its own", hint="join a cluster by --store etcd://...")
        before = self._pin.expected
        found = self._pin.accept()
        log.warning("this host belongs to cluster %s now, to %s no more", found, before)
        self._context.events.publish("store", "accept", found, before=before)
        return found
