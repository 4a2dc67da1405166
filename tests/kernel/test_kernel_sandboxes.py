"""Namespaces: opened with care, made, kept by a mount, and let go."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from netagent.errors import AlreadyExists, InvalidRequest, NotFound
from netagent.kernel.kernel import Kernel
from tests.support.netns import Namespace

pytestmark = pytest.mark.kernel


def _fifo(path: Path) -> str:
    os.mkfifo(path)
    return str(path)


def _file(path: Path) -> str:
    path.write_text("not a namespace")
    return str(path)


NOT_SANDBOXES: dict[str, Callable[[Path], str]] = {
    "fifo": _fifo,
    "regular-file": _file,
    "directory": lambda path: str(path.parent),
    "device": lambda _: "/dev/zero",
    "user-namespace": lambda _: "/proc/self/ns/user",
    "pid-namespace": lambda _: "/proc/self/ns/pid",
    "proc-file": lambda _: "/proc/self/status",
    "name-with-nul": lambda _: "/proc/self/ns\0/net",
    "empty": lambda _: "\0",
}


@pytest.mark.parametrize("make", NOT_SANDBOXES.values(), ids=NOT_SANDBOXES.keys())
async def test_what_is_no_network_namespace_is_refused_at_once(
    kernel: Kernel, tmp_path: Path, make: Callable[[Path], str]
) -> None:
    path = make(tmp_path / "thing")
    async with asyncio.timeout(60):
        with pytest.raises(InvalidRequest):
            await kernel.sandbox_inode(path)


@pytest.mark.parametrize("path", ["/run/netns/natest-absent", "/proc/999999999/ns/net", "/etc/passwd/net", ""])
async def test_an_absent_namespace_is_not_found(kernel: Kernel, path: str) -> None:
    with pytest.raises(NotFound):
        await kernel.sandbox_inode(path)


async def test_a_dangling_symlink_is_not_found(kernel: Kernel, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/run/netns/natest-absent")
    with pytest.raises(NotFound):
        await kernel.sandbox_inode(str(link))


async def test_a_symlink_to_a_namespace_is_followed(kernel: Kernel, tmp_path: Path, host: Namespace) -> None:
    other = Namespace()
    try:
        link = tmp_path / "link"
        link.symlink_to(other.path)
        assert await kernel.sandbox_inode(str(link)) == other.inode
    finally:
        other.delete()


async def test_a_sandbox_is_made_with_loopback_up_and_deleted_twice(kernel: Kernel, tmp_path: Path) -> None:
    path = str(tmp_path / "below" / "box")
    inode = await kernel.create_sandbox(path)
    try:
        assert await kernel.sandbox_inode(path) == inode
        shown = subprocess.run(["nsenter", f"--net={path}", "ip", "link"], capture_output=True, text=True, check=True)
        assert "LOOPBACK,UP" in shown.stdout
        with pytest.raises(AlreadyExists):
            await kernel.create_sandbox(path)
    finally:
        await kernel.delete_sandbox(path)
        await kernel.delete_sandbox(path)
    assert not Path(path).exists()


async def test_an_empty_file_left_by_a_crash_is_used(kernel: Kernel, tmp_path: Path) -> None:
    path = tmp_path / "box"
    path.touch()
    inode = await kernel.create_sandbox(str(path))
    try:
        assert await kernel.sandbox_inode(str(path)) == inode
    finally:
        await kernel.delete_sandbox(str(path))


async def test_deleting_spares_what_is_no_sandbox(kernel: Kernel, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("keep me")
    await kernel.delete_sandbox(str(path))
    assert path.read_text() == "keep me"
    with pytest.raises(AlreadyExists):
        await kernel.create_sandbox(str(path))


async def test_working_in_sandboxes_leaves_the_process_where_it_was(kernel: Kernel, tmp_path: Path) -> None:
    before = Path("/proc/self/ns/net").stat().st_ino
    path = str(tmp_path / "box")
    await kernel.create_sandbox(path)
    try:
        await kernel.sandbox_inode(path)
    finally:
        await kernel.delete_sandbox(path)
    assert Path(f"/proc/self/task/{os.getpid()}/ns/net").stat().st_ino == before
