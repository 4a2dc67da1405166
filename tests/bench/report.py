"""What all benchmarks share: medians and percentiles, tables, plots, goals, and the files that keep them.

Each part leaves ``<part>.json`` and its plots in ``build/bench``; the report is put together from all that are there,
so that a part can be measured again by itself.
"""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from netagent import __version__
from tests.bench import plot

DIRECTORY = Path(__file__).parents[2] / "build" / "bench"
PEERS = (
    *("containernetworking-plugins", "docker.io", "netavark", "podman", "iproute2", "iptables", "nftables"),
    *("dnsmasq-base", "etcd-server", "openvswitch-switch", "iperf3"),
)
"""Debian's packages that are measured, or measured with."""
SIZES = "NETAGENT_BENCH_SIZES"
"""The environment variable that says ``quick`` or ``full`` to all processes of a run."""
_RATIOS = ("ratio", "of by hand", "of plain")
_CONSOLE = Console(stderr=True)
_BEGUN = time.monotonic()


def median(samples: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(samples)


def p99(samples: Sequence[float]) -> float:
    """Return the 99th percentile by nearest rank: of fewer than 100 samples the largest."""
    return sorted(samples)[ceil(len(samples) * 0.99) - 1]


def say(line: str, *, style: str = "") -> None:
    """Tell how far the run is; on standard error, as standard output may be for figures."""
    seconds = int(time.monotonic() - _BEGUN)
    _CONSOLE.print(Text.assemble((f"{seconds // 60}:{seconds % 60:02}", "dim"), " ", (line, style)))


def machine() -> dict[str, Any]:
    """Return where and with what the figures were taken."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    memory = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "netagent": __version__,
        "commit": _said("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"),
        "machine": platform.node(),
        "cpu": model.partition(": ")[2] or platform.machine(),
        "cpus": os.cpu_count(),
        "memory": f"{memory / 2**20:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sizes": os.environ.get(SIZES, "default"),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Return the versions of the peers, as Debian's packages."""
    said = _said("dpkg-query", "-W", "-f", "${Package} ${Version}\n", *PEERS)
    return dict(line.split(" ", 1) for line in said.splitlines() if " " in line.strip())


def _said(*command: str) -> str:
    with suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What was to be reached, and what was; both in ``unit``, ``limit`` is the most or, with ``least``, the least.

    ``between`` are the ends of the interval in which the value surely lies, if that is known.
    """

    text: str
    value: float
    limit: float
    unit: str
    least: bool = False
    limited_by: str = ""
    between: Sequence[float] = ()

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.value >= self.limit if self.least else self.value <= self.limit

    @property
    def verdict(self) -> str:
        """The verdict, and by how much it was missed."""
        word = "met" if self.met else f"missed by {number(abs(self.value - self.limit))} {self.unit}".strip()
        unsure = self.between and min(self.between) <= self.limit <= max(self.between)
        return f"{word}, not for sure" if unsure else word

    @property
    def bound(self) -> str:
        """The limit."""
        return f"{'≥' if self.least else '≤'} {number(self.limit)} {self.unit}".strip()

    @property
    def reached(self) -> str:
        """What was measured."""
        sure = f" ({' to '.join(map(number, self.between))})" if self.between else ""
        return f"{number(self.value)} {self.unit}".strip() + sure


def number(value: float) -> str:
    """Return a figure with three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


class Report:
    """What one part shows, until it is kept in a file."""

    def __init__(self) -> None:
        self._machine = machine()
        self._clear()

    def _clear(self) -> None:
        self._sections: list[dict[str, Any]] = []
        self._goals: list[Goal] = []
        self._missing: list[str] = []

    def begin(self) -> None:
        """Forget what an earlier part has shown but not kept, and look at the machine anew."""
        self._machine = machine()
        self._clear()

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> None:
        """Print a table and take it in, what is a ratio first; all columns but the first are figures."""
        shown = Table(title=title, title_justify="left", caption=note or None, caption_justify="left")
        order = [0, *sorted(range(1, len(columns)), key=lambda i: not columns[i].startswith(_RATIOS))]
        for index in order:
            shown.add_column(columns[index], justify="left" if index == 0 else "right")
        sorted_rows = [[row[index] for index in order] for row in rows]
        for row in sorted_rows:
            shown.add_row(*row)
        Console().print(shown)
        head = [columns[index] for index in order]
        self._sections.append({"title": title, "columns": head, "rows": sorted_rows, "note": note})

    def plot(self, name: str, title: str, drawn: str) -> None:
        """Write a plot and take it in."""
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        (DIRECTORY / f"{name}.svg").write_text(drawn)
        self._sections.append({"plot": name, "title": title})

    def goal(self, reached: Goal) -> None:
        """Take a goal in."""
        self._goals.append(reached)
        say(f"goal: {reached.text}: {reached.reached}, {reached.verdict}")

    def missing(self, line: str) -> None:
        """Take in that something could not be measured."""
        self._missing.append(line)
        say(line, style="yellow")

    def keep(self, name: str, figures: Mapping[str, Any]) -> None:
        """Write what has been shown since the last time, and the figures behind it."""
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        content = {
            "machine": self._machine,
            "versions": versions(),
            "goals": [asdict(goal) for goal in self._goals],
            "missing": self._missing,
            "sections": self._sections,
            **figures,
        }
        (DIRECTORY / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
        self._clear()

    def broken(self, name: str, why: str) -> None:
        """Keep that a whole part could not be measured, with what it has shown until then."""
        self.missing(f"{name}: not measured to its end: {why}")
        self.keep(name, {})


REPORT = Report()


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, note: str = "") -> None:
    """Print a table and put it into the report; ``note`` is a line below it."""
    REPORT.table(title, columns, rows, note)


def keep(name: str, figures: Mapping[str, Any]) -> None:
    """Write ``build/bench/<name>.json`` with the machine's description and the tables beside the figures."""
    REPORT.keep(name, figures)


def missing(line: str) -> None:
    """Put into the report that a peer, or a part of the work, could not be measured, and why."""
    REPORT.missing(line)


def goal(
    text: str,
    value: float,
    limit: float,
    unit: str = "",
    *,
    least: bool = False,
    limited_by: str = "",
    between: Sequence[float] = (),
) -> None:
    """Put a goal into the report, except a quick run's: ``value`` should be at most ``limit``, or at ``least`` that."""
    if os.environ.get(SIZES) != "quick":
        reached = Goal(
            text=text, value=value, limit=limit, unit=unit, least=least, limited_by=limited_by, between=between
        )
        REPORT.goal(reached)


def draw_bars(
    name: str, title: str, unit: str, values: Mapping[str, float] | Mapping[str, Mapping[str, float]]
) -> None:
    """Put bars, or groups of bars, into the report as ``build/bench/<name>.svg``."""
    flat = {label: value for label, value in values.items() if not isinstance(value, Mapping)}
    grouped = {label: value for label, value in values.items() if isinstance(value, Mapping)}
    if flat or any(grouped.values()):
        REPORT.plot(name, title, plot.bars(title, unit, {"": flat} if flat else grouped))


def draw_lines(
    name: str,
    title: str,
    across: str,
    unit: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    log: bool = False,
) -> None:
    """Put lines over a growing number into the report as ``build/bench/<name>.svg``; values by logarithm on demand."""
    shown = {label: points for label, points in series.items() if points}
    if shown:
        REPORT.plot(name, title, plot.lines(title, across, unit, shown, log=log))


def markdown(section: Mapping[str, Any], plots: str = "") -> str:
    """Return a table or a plot of a part as Markdown; ``plots`` is the way to the plots' directory."""
    if "plot" in section:
        return f"![{section['title']}]({plots}{section['plot']}.svg)"
    lines = [section["columns"], ["---", *["---:"] * (len(section["columns"]) - 1)], *section["rows"]]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join(part for part in (f"**{section['title']}**", table, section.get("note", "")) if part)


def goal_table(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the goals of all parts as Markdown: those that were met, and by how much others were not."""
    goals = [Goal(**each) for part in parts.values() for each in part.get("goals", ())]
    lines = ["| goal | measured | at least / most | |", "| --- | ---: | ---: | --- |"]
    for each in goals:
        why = f"; {each.limited_by}" if each.limited_by and not each.met else ""
        lines.append(f"| {each.text} | {each.reached} | {each.bound} | {each.verdict}{why} |")
    return "\n".join(lines) if goals else ""


def read_parts(order: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what the parts have left in ``build/bench``, in that order."""
    found = {}
    for name in order:
        with suppress(FileNotFoundError):
            found[name] = json.loads((DIRECTORY / f"{name}.json").read_text())
    return found


def write(order: Sequence[str]) -> None:
    """Put the report together from what the parts have left."""
    parts = {name: part for name, part in read_parts(order).items() if "sections" in part}
    if not parts:
        return
    last = max(parts.values(), key=lambda part: str(part["machine"]["time"]))
    about = {**last["machine"], "peers": ", ".join(f"{name} {v}" for name, v in last["versions"].items())}
    head = [
        "# netagent beside its peers",
        "Ratios first. In each part the sides take turns on the same work. Times are this machine's.",
        "\n".join(f"- {key}: {value}" for key, value in about.items()),
    ]
    if goals := goal_table(parts):
        head += ["## Goals", goals]
    for name, part in parts.items():
        taken = part["machine"]
        head += [f"## {name}", f"Taken {taken['time']}, load before {taken['load before']}."]
        head += [f"**Not measured**: {line}" for line in part["missing"]]
        head += [markdown(section) for section in part["sections"]]
    path = DIRECTORY / "report.md"
    path.write_text("\n\n".join(head) + "\n")
    Console().print(f"report: {path}")
