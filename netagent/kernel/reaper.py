"""Deletes retired links in the background, all that wait together in one request.

Deleting a veth pair blocks its caller for 16 to 20 ms while the kernel waits for RCU; a group of them costs the same
as one. So links are retired into a group (``links.delete_links``), and this thread deletes the group.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from netagent import failpoint
from netagent.errors import NetagentError
from netagent.kernel import encode
from netagent.kernel.netlink import Refusal
from netagent.kernel.rtnl import Rtnl

_log = logging.getLogger("netagent.kernel")

FAILPOINTS = ("kernel.reap.before", "kernel.reap.after")

PAUSES_S = (0.1, 0.3, 0.6)
"""How long it waits before it tries once more what the kernel has refused."""


class Reaper:
    """One thread that deletes retired links whenever it is woken."""

    def __init__(self, prepare_thread: Callable[[], None]) -> None:
        self._executor = ThreadPoolExecutor(1, "netagent-reaper", initializer=prepare_thread)
        self._rtnl: Rtnl | None = None
        self._lock = threading.Lock()
        self._is_queued = False

    def wake(self) -> None:
        """Have the group deleted soon; returns at once."""
        with self._lock:
            if self._is_queued:
                return
            self._is_queued = True
        self._executor.submit(self._reap_and_log)

    def drained(self) -> "Future[None]":
        """Return a future that is done when all that was asked for until now has happened."""
        return self._executor.submit(lambda: None)

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        self._executor.submit(self._close_socket)
        self._executor.shutdown(wait=True)

    def _close_socket(self) -> None:
        if self._rtnl is not None:
            self._rtnl.close()

    def _reap_and_log(self) -> None:
        with self._lock:
            self._is_queued = False
        try:
            # A crash may have left some that are still ports of their bridge.
            is_first = self._rtnl is None
            if self._rtnl is None:
                self._rtnl = Rtnl()
            reap_patiently(self._rtnl, is_free=not is_first)
        except (NetagentError, OSError) as error:
            _log.warning("deleting retired links failed, they stay until the next one: %s", error)


def reap_patiently(rtnl: Rtnl, *, is_free: bool) -> None:
    """Delete them as ``reap`` does, and what is refused (EBUSY) once more after each of some pauses."""
    for pause_s in (*PAUSES_S, 0.0):
        if reap(rtnl, is_free=is_free):
            return
        time.sleep(pause_s)


def reap(rtnl: Rtnl, *, is_free: bool = True) -> bool:
    """Delete every link of ours in the group GROUP_DYING; if strangers are in it, ours one by one.

    Return whether all are gone.

    With ``is_free`` only those without a master are looked for, which a retired link has not.
    """
    members = rtnl.links_in(encode.GROUP_DYING, is_free=is_free)
    if is_free and len(members) > 1:
        # The group is deleted as a whole: who else is in it?
        members = rtnl.links_in(encode.GROUP_DYING)
    ours = [record for record in members if record.is_ours]
    if not ours:
        return True
    failpoint.reach(FAILPOINTS[0])
    if len(ours) == len(members) > 1:
        requests = [encode.delete_group(encode.GROUP_DYING)]
    else:
        requests = [encode.delete_link(record.index) for record in ours]
    is_done = not _log_refusals(rtnl.transact(requests))
    failpoint.reach(FAILPOINTS[1])
    return is_done


def delete_half_made(rtnl: Rtnl) -> None:
    """Delete links that a crash left between their creation and their marking."""
    half_made = [record for record in rtnl.links_in(encode.GROUP_MAKING) if record.is_half_made]
    _log_refusals(rtnl.transact([encode.delete_link(record.index) for record in half_made]))


def _log_refusals(refusals: list[Refusal | None]) -> bool:
    """Tell whether anything was refused but what is gone anyhow."""
    told = [refusal.text for refusal in refusals if refusal is not None and refusal.errno != errno.ENODEV]
    for text in told:
        _log.warning("deleting retired links: %s", text)
    return bool(told)
