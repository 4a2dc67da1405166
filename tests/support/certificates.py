"""Certificates for tests, made by the script that is shipped for it."""

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "deploy" / "examples" / "etcd" / "make-certificates"


def make_certificates(directory: Path, *entries: str, days: int = 30) -> Path:
    """Run ``make-certificates DIRECTORY ENTRIES``; what is made ends in ``days``, before now if negative."""
    subprocess.run([SCRIPT, directory, *entries], check=True, env={**os.environ, "DAYS": str(days)})
    return directory
