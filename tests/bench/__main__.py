"""``python -m tests.bench [--quick | --full] [NAME [OPTION...]]``: one benchmark, or all; a report in ``build/bench``.

They judge nothing. With ``--quick`` each does a little of its work, so that it cannot rot, with ``--full`` the largest
sizes. A part that fails leaves a line in the report, and the others are measured.
"""

import compileall
import importlib
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import NoReturn

import netagent
from tests.bench import report
from tests.support.cni import build_plugin

QUICK = {
    "cni": ["--count=1", "--burst=4"],
    "scale": ["--endpoints=12", "--reference=4", "--rounds=2", "--burst=4"],
    "publish": ["--most=1", "--slow=0"],
    "ports": ["--rounds=1", "--connections=40", "--among=10", "--seconds=0.2"],
    "start": ["--rounds=2", "--endpoints=10", "--restarts=1", "--seconds=3", "--idle=0.5"],
    "peers": ["--peers", "10", "--rounds", "2", "--idle", "1"],
    "overlay": ["--paths", "vxlan", "swarm", "--rounds=1", "--turns=2", "--seconds=1"],
    "emulated": ["--turns=1", "--megabytes=10"],
    "dns": ["--rounds=1", "--seconds=0.3", "--names=3"],
    "profile": ["--endpoints=10", "--count=5"],
}
"""The benchmarks in their order, and what they are told for a quick run."""
SLOW = ("emulated",)
"""Boots a machine: no part of a quick run, unless it is named."""
DOCS = "docs"
"""No benchmark: puts what they have left into the documentation."""
FULL = {
    "cni": ["--count=100"],
    "scale": ["--reference=3000", "--rounds=30"],
    "publish": ["--slow=1000", "--rounds=3"],
    "ports": ["--rounds=50", "--connections=20000"],
    "overlay": ["--rounds=10", "--turns=40", "--stream=2", "--seconds=3"],
    "emulated": ["--turns=10", "--megabytes=200"],
}
"""What they are told for a run of the largest sizes; nothing means their defaults."""


def main() -> None:
    """Run what the command line names."""
    words = sys.argv[1:]
    size = {"--quick": QUICK, "--full": FULL}.get(words[0] if words else "")
    words = words if size is None else words[1:]
    parts = [name for name in QUICK if size is not QUICK or name not in SLOW]
    chosen, options = words[:1] or parts, words[1:]
    if size is not None:
        os.environ[report.SIZES] = "quick" if size is QUICK else "full"
    for name in chosen:
        if name not in (*QUICK, DOCS):
            raise SystemExit(f"no benchmark {name!r}; there are: {', '.join(QUICK)}")
    if "--inside" in options or chosen == [DOCS]:
        importlib.import_module(f"tests.bench.{chosen[0]}").main(options)
        return
    # What the parts have started is ended on the way out, whoever ends them.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    build_plugin()
    # As an installation has it: a start from sources alone would be a compiler's time.
    compileall.compile_dir(Path(netagent.__file__).parent, quiet=1)
    failed = [name for name in chosen if not _measure(name, [*(size or {}).get(name, []), *options])]
    report.write(list(QUICK))
    if failed:
        raise SystemExit(f"not measured to the end: {', '.join(failed)}")


def _measure(name: str, options: list[str]) -> bool:
    """Run one part; False if it failed, which is in the report then."""
    report.say(name, style="bold")
    report.REPORT.begin()
    try:
        importlib.import_module(f"tests.bench.{name}").main(options)
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and not error.code:
            raise
        traceback.print_exc()
        report.REPORT.broken(name, " ".join(str(error).split())[:300] or type(error).__name__)
        return False
    return True


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)


main()
