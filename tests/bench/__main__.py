"""``python -m tests.bench [NAME [OPTION...]]``: one benchmark, or all. They print figures and assert nothing."""

import importlib
import sys

NAMES = ("cni", "scale", "ports", "overlay", "dns")


def main() -> None:
    """Run what the command line names."""
    chosen, arguments = sys.argv[1:2] or NAMES, sys.argv[2:]
    for name in chosen:
        if name not in NAMES:
            raise SystemExit(f"no benchmark {name!r}; there are: {', '.join(NAMES)}")
        importlib.import_module(f"tests.bench.{name}").main(arguments)


main()
