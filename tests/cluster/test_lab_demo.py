"""`make demo`: it works, and it leaves nothing behind, also when it is interrupted."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import netagent
from netagent.lab import record
from netagent.lab.lab import Lab
from tests.support.lab import unique_name

pytestmark = pytest.mark.cluster

SOURCE = Path(netagent.__file__).parents[1]


@pytest.fixture
def name() -> Iterator[str]:
    """The name of the demo's lab; the lab, if the test leaves one, is taken down."""
    name = unique_name()
    yield name
    if name in record.names():
        Lab.open(name).down()


def start_demo(name: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-uc", "import sys; from netagent.lab.demo import main; sys.exit(main(sys.argv[1]))", name]
    return subprocess.Popen(argv, cwd=SOURCE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def left_behind(name: str) -> list[Path]:
    return [*Path("/run/netns").glob(f"nalab-{name}-*"), *Path("/run/netagent-lab").glob(f"*{name}*")]


def test_demo_shows_pings_the_page_and_the_blocks(name: str) -> None:
    with start_demo(name) as demo:
        shown, _ = demo.communicate(timeout=280)
    assert demo.returncode == 0, shown
    assert shown.count("\nHello from the container web\n") == 3
    assert all(text in shown for text in ("c3 on h3", "192.168.0.2", "0.0.0.0:4000->80/tcp", "Blocks of staticnet"))
    assert left_behind(name) == []


def test_interrupted_demo_takes_everything_down(name: str) -> None:
    with start_demo(name) as demo:
        assert demo.stdout is not None
        assert any("Containers on every host" in line for line in demo.stdout)
        assert left_behind(name)
        demo.send_signal(signal.SIGINT)
        demo.stdout.read()
        assert demo.wait(timeout=120) == 130
    assert left_behind(name) == []
