"""What all benchmarks share: medians and percentiles, tables, and the files that keep the figures."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

DIRECTORY = Path(__file__).parents[2] / "build" / "bench"


def median(samples: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(samples)


def p99(samples: Sequence[float]) -> float:
    """Return the 99th percentile by nearest rank: of fewer than 100 samples the largest."""
    return sorted(samples)[ceil(len(samples) * 0.99) - 1]


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; all columns but the first are figures."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def keep(name: str, figures: dict[str, Any]) -> None:
    """Write ``build/bench/<name>.json`` with the machine's description beside the figures."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    machine = {"kernel": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version()}
    content = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine, **figures}
    (DIRECTORY / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
