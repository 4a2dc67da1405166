"""What commands print: Docker's tables, JSON, and errors as one line each."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from netagent.cli.client import Client
from netagent.errors import InvalidRequest, NetagentError, NotFound

if TYPE_CHECKING:
    from netagent.cli.template import Template

Json = dict[str, Any]

_COLUMN_WIDTH, _COLUMN_GAP = 10, 3
"""As Docker's tabwriter has them (docker/cli ``formatter.go``)."""
_TABLE_PREFIX = "table "
_DIGITS = re.compile(r"(\d+)")


def format_option(*, default: str = "table") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option ``--format``, which the command gets as ``form``; with JSON alone there is nothing to get."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(["json"] if default == "json" else [default, "json"]),
        default=default,
        show_default=True,
        expose_value=default != "json",
        help="How to print.",
    )


class _Format(click.ParamType[str]):
    """``--format`` where templates are taken: one of ``words``, or a template."""

    name = "format"

    def __init__(self, *words: str) -> None:
        self._words = words

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return what help calls the value."""
        return f"[{'|'.join(self._words)}|TEMPLATE]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value; InvalidRequest if it is a template that cannot be parsed."""
        if "{{" in value:
            _template(value.removeprefix(_TABLE_PREFIX))
        elif value not in self._words:
            self.fail(f"{value!r} is neither a template nor one of {', '.join(self._words)}", param, ctx)
        return value


def _template(text: str) -> "Template":
    """Return a parsed template; their language is loaded for those who use it."""
    from netagent.cli.template import Template

    return Template(text)


def template_option(*words: str, flags: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option ``--format`` with Go templates, which the command gets as ``form``; the first word is usual."""
    return click.option(
        *flags, "--format", "form", type=_Format(*words), default=words[0], show_default=True, help="How to print."
    )


def print_listing(form: str, rows: Sequence[Json], headers: Mapping[str, Any], columns: Sequence[str]) -> None:
    """Print rows as ``form`` says. ``headers`` has what stands above each field, ``columns`` those usually shown."""
    if form == "json":
        print_json_lines({key: value for key, value in row.items() if not callable(value)} for row in rows)
    elif form == "table":
        print_table([headers[key] for key in columns], [[row[key] for key in columns] for row in rows])
    elif form.startswith(_TABLE_PREFIX):
        template = _template(form.removeprefix(_TABLE_PREFIX))
        _print_columns([template.render(row).split("\t") for row in (headers, *rows)])
    else:
        template = _template(form)
        for row in rows:
            click.echo(template.render(row))


def label_header(name: str) -> str:
    """Return the header of a label's column, as Docker makes it: the last part of its name, in words."""
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def label_text(labels: Mapping[str, str]) -> str:
    """Return labels as Docker's listings show them, in one cell."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _print_columns(lines: Sequence[Sequence[str]]) -> None:
    """Print lines of cells; a line's last cell needs no width, and lines may have different numbers of cells."""
    widths = [
        max([_COLUMN_WIDTH, *(len(line[i]) + _COLUMN_GAP for line in lines if i < len(line) - 1)])
        for i in range(max(map(len, lines)))
    ]
    for line in lines:
        click.echo("".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip())


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows below their header, in columns."""
    lines = [header, *rows]
    widths = [max(_COLUMN_WIDTH, *(len(line[i]) + _COLUMN_GAP for line in lines)) for i in range(len(header))]
    for line in lines:
        click.echo("".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_json_lines(objects: Iterable[Json]) -> None:
    """Print one object a line, as Docker's listings do."""
    for item in objects:
        click.echo(json.dumps(item, ensure_ascii=False, separators=(",", ":")))


def print_json(value: Any) -> None:
    """Print a value over several lines, as ``docker inspect`` does."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=4))


def print_name(name: str, form: str) -> None:
    """Print the name of something that was dealt with, as Docker does."""
    if form == "json":
        print_json_lines([{"Name": name}])
    else:
        click.echo(name)


def complain(error: NetagentError) -> None:
    """Print an error to standard error."""
    click.echo(f"netagent: {' '.join(str(error).splitlines())}", err=True)


def not_utf8(error: UnicodeEncodeError) -> InvalidRequest:
    """Return the error for an argument that no message can carry, because its bytes are no text."""
    return InvalidRequest(f"{error.object!r} is not valid UTF-8", hint="write names, labels and options in UTF-8")


def for_each(client: Client, names: Iterable[str], act: Callable[[str], None]) -> None:
    """Do something with every name, going on after an error; exit with 1 in the end if there was one."""
    client.connect()
    has_failed = False
    for name in names:
        try:
            act(name)
        except NetagentError as error:
            complain(error)
            has_failed = True
    if has_failed:
        raise click.exceptions.Exit(1)


def print_found(names: Iterable[str], inspect: Callable[[str], Json], form: str = "json") -> None:
    """Print what ``inspect`` returns for the names; then complain of those not found, and exit with 1.

    Without a template it is one array, with one a line for each.
    """
    found: list[Json] = []
    missing: list[NotFound] = []
    for name in names:
        try:
            found.append(inspect(name))
        except NotFound as error:
            missing.append(error)
    if form == "json":
        print_json(found)
    else:
        template = _template(form)
        for shape in found:
            click.echo(template.render(shape))
    for refusal in missing:
        complain(refusal)
    if missing:
        raise click.exceptions.Exit(1)


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key by which ``9/tcp`` comes before ``80/tcp``."""
    parts = _DIGITS.split(text)
    return tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts)


def since(time: str) -> float:
    """Return how many seconds ago an RFC 3339 time was."""
    return (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()


def human_duration(seconds: float) -> str:
    """Return a length of time in Docker's words (docker/go-units ``duration.go``)."""
    whole = int(seconds)
    minutes, hours = whole // 60, int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"


def human_size(octets: int) -> str:
    """Return a number of bytes as ``docker stats`` does, in steps of 1000 with three digits (go-units ``size.go``)."""
    size = float(octets)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.3g}{unit}"
        size /= 1000
    return f"{size:.4g}PB"


def go_time(time: str) -> str:
    """Return an RFC 3339 time in UTC as Go prints it, which Docker's listings do."""
    return time.replace("T", " ").replace("Z", " +0000 UTC")


def parse_pairs(texts: Iterable[str]) -> dict[str, str]:
    """Return what options of the form ``K=V`` give; ``K`` alone stands for an empty value, as in Docker."""
    return {key: value for key, _, value in (text.partition("=") for text in texts)}
