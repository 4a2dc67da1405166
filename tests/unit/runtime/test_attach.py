import socket
import subprocess
import sys
from pathlib import Path

import pytest

import netagent
from netagent.errors import NotFound
from netagent.runtime.attach import Streams
from netagent.runtime.layout import Layout


def test_attaching_imports_nothing_heavy() -> None:
    script = "import sys, netagent.runtime.attach; print(*sys.modules)"
    source = Path(netagent.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", script], cwd=source, capture_output=True, text=True, check=True)
    assert not {"asyncio", "grpc", "msgspec", "subprocess"} & set(run.stdout.split())


def test_a_container_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no running container listens at"):
        Streams.connect(tmp_path / "attach")


def test_input_that_nobody_reads_costs_no_output(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ours, conmons = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    ours.send(b"unread")
    for packet in (b"\2out\n", b"\3err\n", b"\2last\n"):
        conmons.send(packet)
    conmons.close()
    with Streams(ours, Layout(tmp_path)) as streams:
        streams.run(terminal=False, interactive=False)
    assert capfd.readouterr() == ("out\nlast\n", "err\n")


def test_files_of_different_places_never_share_a_name() -> None:
    layout = Layout(Path("/run/netagent/containers/x"))
    assert len({layout.text_file(path) for path in ("/a/b", "/a%2Fb", "/a%b")}) == 3


def test_no_exit_status_is_not_zero(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert layout.exit_code() is None
    layout.exit.write_text("0")
    assert layout.exit_code() == 0
