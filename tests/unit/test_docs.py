"""The pages say what the program does: commands parse, links lead somewhere, tests that are named exist."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from netagent.cli.main import cli
from netagent.daemon.config import Config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SESSIONS = [page for page in PAGES if page.name not in ("cli.md", "cni.md")]
"""Pages with terminal sessions of the command line; the plugin of cni.md has its name, but is another program."""

_PROMPT = re.compile(r"(?:h\d)?[#$] (?:sudo )?")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def _id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _blocks(page: Path) -> Iterator[str]:
    yield from re.findall(r"^```\w*\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def _prose(page: Path) -> str:
    return re.sub(r"^```\w*\n.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def _commands(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of every ``netagent …`` that is typed in a session, also one that another one runs."""
    for block in _blocks(page):
        for line in block.splitlines():
            prompt = _PROMPT.match(line)
            if prompt:
                yield from _netagent_in(_words(line[prompt.end() :]))


def _words(line: str) -> list[str]:
    """Return the words of a shell's line up to the first operator."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    return words[: next((i for i, word in enumerate(words) if set(word) <= set("|&;<>()")), len(words))]


def _netagent_in(words: list[str]) -> Iterator[list[str]]:
    if words and Path(words[0]).name == "netagent":
        yield words[1:]
        if "--" in words:
            yield from _netagent_in(words[words.index("--") + 1 :])


def _parse(arguments: list[str]) -> None:
    """Resolve a command and parse its options and arguments as the program would, without running it."""
    command: click.Command = cli
    context, rest = click.Context(cli, info_name="netagent"), arguments
    while isinstance(command, click.Group):
        _, rest, _ = command.make_parser(context).parse_args(list(rest))
        assert rest, f"{context.command_path}: no command"
        child = command.get_command(context, rest[0])
        assert child is not None, f"{context.command_path} has no command {rest[0]}"
        command, name, rest = child, rest[0], rest[1:]
        context = (
            click.Context(command, info_name=name, parent=context)
            if isinstance(command, click.Group)
            else command.make_context(name, list(rest), parent=context)
        )


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "docs.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"run scripts/docs.py\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(_prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in _anchors(found), target


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", SESSIONS, ids=_id)
def test_commands_in_sessions_parse(page: Path) -> None:
    for arguments in _commands(page):
        try:
            _parse(arguments)
        except click.UsageError as error:
            pytest.fail(f"netagent {shlex.join(arguments)}: {error.format_message()}")


def test_sessions_are_found() -> None:
    found = {command[0] for page in ("README.md", "docs/quickstart.md") for command in _commands(ROOT / page)}
    assert {"agent", "attach", "exec", "lab", "network", "run"} <= found
    with pytest.raises(click.UsageError):
        _parse(["run", "--no-such-option", "--", "true"])
    with pytest.raises(AssertionError, match="netagent network has no command fly"):
        _parse(["network", "fly"])


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_commands_in_the_text_exist(page: Path) -> None:
    for text in re.findall(r"`netagent ([^`]+)`", _prose(page)):
        command: click.Command | None = cli
        for word in text.split():
            if isinstance(command, click.Group) and not word.startswith("-"):
                command = command.get_command(click.Context(command), word)
                assert command is not None, f"netagent {text}"


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_tests_that_are_named_exist(page: Path) -> None:
    for path, name in _TEST.findall(page.read_text()):
        assert (ROOT / path).exists(), path
        assert not name or f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"


def test_every_failure_says_what_shows_it() -> None:
    rows = [line for line in (ROOT / "docs/failure.md").read_text().splitlines() if line.startswith("| ")]
    for row in rows:
        if not row.startswith("| what"):
            last = row.rstrip(" |").rpartition(" | ")[2]
            assert _TEST.search(last) or last.startswith(("---", "no test yet", "the same")), row


def test_configuration_keys_and_defaults_are_complete() -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", page, re.MULTILINE)
    assert rows == [(name, msgspec.json.encode(default).decode()) for name, default in _defaults(Config())]


def _defaults(options: msgspec.Struct, prefix: str = "") -> Iterator[tuple[str, str]]:
    for field in msgspec.structs.fields(options):
        value = getattr(options, field.name)
        if isinstance(value, msgspec.Struct):
            yield from _defaults(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
