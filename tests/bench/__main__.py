"""``python -m tests.bench [--quick] [NAME [OPTION...]]``: one benchmark, or all; a report in ``build/bench``.

They judge nothing. With ``--quick`` each does a little of its work, so that it cannot rot.
"""

import importlib
import sys

from tests.bench.report import REPORT

QUICK = {
    "cni": ["--count=3", "--burst=10"],
    "scale": ["--endpoints=20", "--reference=10", "--rounds=2"],
    "ports": ["--rounds=1", "--connections=40", "--among=10"],
    "start": ["--rounds=2", "--endpoints=10"],
    "peers": ["--peers", "10", "--rounds", "2"],
    "overlay": ["--drivers=vxlan", "--rounds=1", "--seconds=1"],
    "dns": ["--rounds=1", "--seconds=0.3", "--names=3"],
}
"""The benchmarks in their order, and what they are told for a quick run."""


def main() -> None:
    """Run what the command line names."""
    words = sys.argv[1:]
    quick = words[:1] == ["--quick"]
    words = words[quick:]
    chosen, options = words[:1] or list(QUICK), words[1:]
    for name in chosen:
        if name not in QUICK:
            raise SystemExit(f"no benchmark {name!r}; there are: {', '.join(QUICK)}")
    for name in chosen:
        importlib.import_module(f"tests.bench.{name}").main([*(QUICK[name] if quick else []), *options])
    if "--inside" not in options:
        REPORT.write()


main()
