"""Which cluster's store is heard: the first one, and from then on no other, until an operator says so."""

from pathlib import Path

import pytest

from netagent.errors import InvalidRequest
from netagent.store.pin import ClusterPin, ForeignCluster


def test_the_first_cluster_is_ours_and_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "cluster-id"
    ClusterPin(path).check("a1", "etcd at a")
    assert ClusterPin(path).expected == "a1"
    assert path.read_text() == "a1\n"


def test_another_one_is_refused_told_once_and_forgotten_when_ours_is_back(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    pin = ClusterPin(tmp_path / "cluster-id", on_refused=lambda found, expected: told.append((found, expected)))
    pin.check("a1", "etcd at a")
    for _ in range(3):
        with pytest.raises(ForeignCluster, match="etcd at b is cluster b2, and this host belongs to cluster a1"):
            pin.check("b2", "etcd at b")
    assert (told, pin.refused) == ([("b2", "a1")], "b2")
    pin.check("a1", "etcd at a")
    assert pin.refused == ""


def test_one_that_is_accepted_is_ours_and_only_one_that_was_refused_can_be(tmp_path: Path) -> None:
    pin = ClusterPin(tmp_path / "cluster-id")
    pin.check("a1", "etcd at a")
    with pytest.raises(InvalidRequest, match="no other cluster's store was refused"):
        pin.accept()
    with pytest.raises(ForeignCluster):
        pin.check("b2", "etcd at b")
    assert pin.accept() == "b2"
    pin.check("b2", "etcd at b")
    assert ClusterPin(tmp_path / "cluster-id").expected == "b2"
