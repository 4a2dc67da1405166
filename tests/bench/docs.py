"""``make bench-docs``: what the last runs have left in ``build/bench`` into docs/performance.md, its plots beside it.

A block of the page that begins with ``<!-- bench: PART -->`` and ends with ``<!-- bench end -->`` is replaced by the
plots and the tables of that part; ``about`` is the machine and the versions, ``goals`` the goals of all parts. A part
that has not been measured keeps its block.
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.report import DIRECTORY, goal_table, markdown, read_parts

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
PLOTS = PAGE.parent / "plots"
_BLOCK = re.compile(r"<!-- bench: (?P<name>[\w-]+) -->\n.*?<!-- bench end -->", re.DOTALL)


def main(arguments: list[str]) -> None:
    """Write the page and copy the plots."""
    argparse.ArgumentParser(prog="python -m tests.bench docs", description=__doc__).parse_args(arguments)
    text = PAGE.read_text()
    names = [found["name"] for found in _BLOCK.finditer(text)]
    parts = {name: part for name, part in read_parts(names).items() if "sections" in part}
    if not parts:
        raise SystemExit("nothing has been measured; `make bench` does it")
    content = {name: _block(part) for name, part in parts.items()}
    content |= {"about": _about(parts), "goals": goal_table(parts) or "A quick run judges nothing."}

    def replace(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in content:
            return found[0]
        return f"<!-- bench: {name} -->\n\n{content[name]}\n\n<!-- bench end -->"

    PAGE.write_text(_BLOCK.sub(replace, text))
    PLOTS.mkdir(exist_ok=True)
    for part in parts.values():
        for section in part["sections"]:
            if "plot" in section:
                drawn = (DIRECTORY / f"{section['plot']}.svg").read_text()
                (PLOTS / f"{section['plot']}.svg").write_text(drawn)
    print(f"{PAGE}: {', '.join(content)}")


def _about(parts: Mapping[str, Mapping[str, Any]]) -> str:
    last = max(parts.values(), key=lambda part: str(part["machine"]["time"]))
    machine, versions = last["machine"], last["versions"]
    loads = ", ".join(f"{name} {part['machine']['load before']}" for name, part in parts.items())
    sizes = {str(part["machine"]["sizes"]) for part in parts.values()}
    measured = (
        f"Measured {machine['time'][:10]} on {machine['machine']}: {machine['cpus']} CPUs ({machine['cpu']}), "
        f"{machine['memory']}, Linux {machine['kernel']}, Python {machine['python']}, netagent {machine['netagent']} "
        f"at {machine['commit']}. Sizes: {', '.join(sorted(sizes))}. Load before each part: {loads}."
    )
    peers = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{measured}\n\nBeside it: {peers}."


def _block(part: Mapping[str, Any]) -> str:
    """Return the plots of a part, and its tables folded."""
    plots = [markdown(section, "plots/") for section in part["sections"] if "plot" in section]
    tables = [markdown(section) for section in part["sections"] if "plot" not in section]
    lines = [*plots, *(f"**Not measured**: {line}" for line in part["missing"])]
    if tables:
        lines += ["<details><summary>Figures</summary>", *tables, "</details>"]
    return "\n\n".join(lines)
