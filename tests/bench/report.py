"""What all benchmarks share: medians and percentiles, tables, plots, and the files that keep them."""

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from netagent import __version__
from tests.bench import plot

DIRECTORY = Path(__file__).parents[2] / "build" / "bench"
_RATIOS = ("ratio", "of by hand")


def median(samples: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(samples)


def p99(samples: Sequence[float]) -> float:
    """Return the 99th percentile by nearest rank: of fewer than 100 samples the largest."""
    return sorted(samples)[ceil(len(samples) * 0.99) - 1]


def machine() -> dict[str, Any]:
    """Return where and with what the figures were taken."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    return {
        "netagent": __version__,
        "machine": platform.node(),
        "cpu": model.partition(": ")[2] or platform.machine(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


class Report:
    """The tables and plots of one run, written as ``<name>.json``, ``<name>-<n>.svg`` and ``report.md``."""

    def __init__(self) -> None:
        self._sections: list[str] = []
        self._tables: list[dict[str, Any]] = []
        self._plots = 0

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table and take it in, what is a ratio first; all columns but the first are figures."""
        shown = Table(title=title, title_justify="left")
        order = [0, *sorted(range(1, len(columns)), key=lambda i: not columns[i].startswith(_RATIOS))]
        for index in order:
            shown.add_column(columns[index], justify="left" if index == 0 else "right")
        sorted_rows = [[row[index] for index in order] for row in rows]
        for row in sorted_rows:
            shown.add_row(*row)
        Console().print(shown)
        head = [columns[index] for index in order]
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *sorted_rows]
        self._sections += [f"## {title}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
        self._tables.append({"title": title, "columns": head, "rows": sorted_rows})

    def plot(self, name: str, title: str, drawn: str) -> None:
        """Write a plot and take it in."""
        self._plots += 1
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        (DIRECTORY / f"{name}.svg").write_text(drawn)
        self._sections.append(f"![{title}]({name}.svg)")

    def keep(self, name: str, figures: Mapping[str, Any]) -> None:
        """Write the figures behind what has been shown since the last time."""
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        content = {"machine": machine(), "tables": self._tables, **figures}
        (DIRECTORY / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
        self._tables = []

    def write(self) -> None:
        """Write the report, if anything was shown."""
        if not self._sections:
            return
        about = machine()
        head = [
            "# netagent beside its peers",
            "Ratios first. In each run the sides take turns on the same work. Times are this machine's.",
            "\n".join(f"- {key}: {value}" for key, value in about.items()),
        ]
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        path = DIRECTORY / "report.md"
        path.write_text("\n\n".join([*head, *self._sections]) + "\n")
        Console().print(f"report: {path}")


REPORT = Report()


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table and put it into the report."""
    REPORT.table(title, columns, rows)


def keep(name: str, figures: Mapping[str, Any]) -> None:
    """Write ``build/bench/<name>.json`` with the machine's description and the tables beside the figures."""
    REPORT.keep(name, figures)


def draw_bars(name: str, title: str, unit: str, values: Mapping[str, float]) -> None:
    """Put bars into the report as ``build/bench/<name>.svg``."""
    with suppress(ValueError):
        REPORT.plot(name, title, plot.bars(title, unit, list(values.items())))


def draw_lines(
    name: str, title: str, across: str, unit: str, series: Mapping[str, Sequence[tuple[float, float]]]
) -> None:
    """Put lines over a growing number into the report as ``build/bench/<name>.svg``."""
    REPORT.plot(name, title, plot.lines(title, across, unit, series))
