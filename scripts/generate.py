#!/usr/bin/env python3
"""Generate the Python code of proto/ into netagent/, or with ``--check`` tell whether what is committed is up to date.

``proto/netagent/v1`` becomes ``netagent.v1`` with gRPC stubs; ``proto/netagent/etcd`` becomes
``netagent.store.etcd.proto``, messages only. Needs grpcio-tools and mypy-protobuf at the versions of constraints.txt:
generated code differs between versions.
"""

import argparse
import difflib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Source folder, package as a folder, whether with gRPC stubs. protoc sees each source under its package's path, so
# that the imports it writes are absolute and the descriptors' file names are like those of nobody else.
PACKAGES = (
    ("proto/netagent/v1", "netagent/v1", True),
    ("proto/netagent/etcd", "netagent/store/etcd/proto", False),
)


def generate(into: Path) -> None:
    """Write the code of all packages below ``into``."""
    for source, package, with_stubs in PACKAGES:
        names = sorted(path.name for path in (ROOT / source).glob("*.proto"))
        if not names:
            continue
        outputs = [f"--python_out={into}", f"--mypy_out=quiet:{into}"]
        if with_stubs:
            outputs += [f"--grpc_python_out={into}", f"--mypy_grpc_out=quiet:{into}"]
        subprocess.run(
            [
                *(sys.executable, "-m", "grpc_tools.protoc"),
                f"--proto_path={package}={ROOT / source}",
                *outputs,
                *(f"{package}/{name}" for name in names),
            ],
            check=True,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"},
        )


def is_generated(path: Path) -> bool:
    """Tell whether ``path`` is named like an output of protoc."""
    return path.stem.endswith(("_pb2", "_pb2_grpc")) and path.suffix in (".py", ".pyi")


def outputs_below(root: Path) -> dict[str, str]:
    """Return the text of every generated file below ``root``, by its relative path."""
    return {
        str(path.relative_to(root)): path.read_text()
        for _, package, _ in PACKAGES
        for path in sorted((root / package).glob("*"))
        if is_generated(path)
    }


def main() -> int:
    """Generate, or compare; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the committed code differs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        generate(Path(directory))
        fresh = outputs_below(Path(directory))
    committed = outputs_below(ROOT)
    if arguments.check:
        for name in sorted(fresh.keys() | committed.keys()):
            old, new = committed.get(name, ""), fresh.get(name, "")
            sys.stdout.writelines(
                difflib.unified_diff(
                    old.splitlines(True), new.splitlines(True), f"committed/{name}", f"generated/{name}"
                )
            )
        return int(fresh != committed)
    for name in committed.keys() - fresh.keys():
        (ROOT / name).unlink()
    for name, text in fresh.items():
        (ROOT / name).write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
