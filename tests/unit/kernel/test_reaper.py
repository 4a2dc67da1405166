"""Retired links that the kernel does not let go of at once are tried again, and not for ever."""

import errno
from typing import cast

import pytest

from netagent.kernel import encode, reaper
from netagent.kernel.decode import LinkRecord
from netagent.kernel.netlink import Refusal, Request
from netagent.kernel.reaper import PAUSES_S, reap_patiently
from netagent.kernel.rtnl import Rtnl
from netagent.model.address import Mac

RETIRED = LinkRecord(
    index=7,
    name="na-7",
    up=False,
    mtu=1500,
    mac=Mac("02:00:00:00:00:07"),
    master=0,
    alias="netagent:7",
    group=encode.GROUP_DYING,
    kind="veth",
    peer=0,
    peer_nsid=None,
    vxlan=None,
    hairpin=False,
    learns_from_groups=False,
)


class BusyKernel:
    """Has one retired link, and refuses to delete it for the first ``refusals`` times."""

    def __init__(self, refusals: int) -> None:
        self.left, self.tries = refusals, 0

    def links_in(self, group: int, *, is_free: bool = False) -> list[LinkRecord]:
        return [RETIRED] if self.left >= 0 else []

    def transact(self, requests: list[Request]) -> list[Refusal | None]:
        self.tries, self.left = self.tries + 1, self.left - 1
        return [Refusal(errno.EBUSY, "Device or resource busy") if self.left >= 0 else None for _ in requests]


@pytest.mark.parametrize(("refusals", "tries"), [(0, 1), (2, 3), (99, len(PAUSES_S) + 1)])
def test_what_is_busy_is_deleted_when_it_is_not_any_more(
    refusals: int, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(reaper.time, "sleep", waited.append)
    kernel = BusyKernel(refusals)
    reap_patiently(cast(Rtnl, kernel), is_free=True)
    assert kernel.tries == tries
    assert sum(waited) <= 1.0
