"""``--format``: the forms of Go's text/template that Docker's manuals and tutorials use, parsed and then evaluated.

Known are ``{{.A.B}}``, variables, ``range``, ``if``, ``with``, ``else``, ``end``, pipelines, parentheses, ``{{-`` and
``-}}``, comments and the functions of ``template_values``. Everything else is an error that names the place as
``line:column``. A field that does not exist is an error too: an empty word in a script's output helps nobody.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Never

from netagent.cli.template_nodes import (
    Expression,
    Part,
    Scope,
    assign,
    call_of,
    choose,
    constant,
    leave,
    literal,
    look_up,
    mistake_at,
    range_over,
    write,
)
from netagent.cli.template_printf import printf
from netagent.cli.template_values import FUNCTIONS
from netagent.errors import InvalidRequest

_ACTION = re.compile(
    r"\{\{(?P<left>-(?=\s))?(?P<body>(?:\"(?:\\.|[^\"\\\n])*\"|`[^`]*`|(?!\}\}).)*?)(?P<right>\s-)?\}\}", re.DOTALL
)
_TOKEN = re.compile(
    r"\s*(?:(?P<text>\"(?:\\.|[^\"\\\n])*\"|`[^`]*`)|(?P<number>-?\d+)|(?P<field>(?:\.[A-Za-z_]\w*)+)|(?P<dot>\.)"
    r"|(?P<variable>\$\w*)|(?P<word>[A-Za-z_]\w*)|(?P<mark>:=|[=|(),]))"
)
_ESCAPE = re.compile(r"\\(?:([abfnrtv\\\"'])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4}))")
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "'": "'"}
_NUMBER_DIGITS = 18
"""What fits into 64 bits, as Go's numbers do."""
_TOO_DEEP = "it is nested too deeply"
_CONSTANTS = {"true": True, "false": False, "nil": None}
_KEYWORDS = frozenset({"range", "if", "else", "end", "with", "define", "template", "block", "break", "continue"})
_FUNCTIONS = {**FUNCTIONS, "printf": printf}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


class Template:
    """A parsed ``--format``. InvalidRequest if it is not one of the known forms."""

    def __init__(self, text: str) -> None:
        self._source = text
        try:
            self._parts = _Parser(text).parse()
        except RecursionError:
            raise mistake_at(text, 0, _TOO_DEEP) from None

    def render(self, data: Any) -> str:
        """Return the text for ``data``; InvalidRequest if it does not have what the template asks for."""
        written: list[str] = []
        scope = Scope(dot=data, variables={"$": [data]})
        try:
            for part in self._parts:
                part(scope, written)
        except RecursionError:
            raise mistake_at(self._source, 0, _TOO_DEEP) from None
        return "".join(written)


class _Parser:
    """Turns a template into parts that write, one token after the other."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._pieces = self._split()
        self._position = 0
        self._tokens: list[_Token] = []
        self._names = [{"$"}]
        self._ranges = 0

    def _fail(self, at: int, words: str) -> Never:
        raise mistake_at(self._source, at, words)

    # Text and actions

    def _split(self) -> list[tuple[str, str, int]]:
        """Return the pieces ``("text" or "action", content, where)``, with white space trimmed as asked."""
        pieces: list[tuple[str, str, int]] = []
        end, trim = 0, False
        for match in _ACTION.finditer(self._source):
            text = self._source[end : match.start()]
            text = text.lstrip() if trim else text
            pieces.append(("text", text.rstrip() if match["left"] else text, end))
            body = match["body"]
            if not (body.strip().startswith("/*") and body.strip().endswith("*/")):
                pieces.append(("action", body, match.start("body")))
            end, trim = match.end(), bool(match["right"])
        rest = self._source[end:]
        if "{{" in rest:
            self._fail(end + rest.index("{{"), "this {{ has no }}")
        pieces.append(("text", rest.lstrip() if trim else rest, end))
        return [piece for piece in pieces if piece[0] == "action" or piece[1]]

    def parse(self) -> list[Part]:
        parts, ending = self._block(opened_at=None)
        assert ending == ""
        return parts

    def _block(self, opened_at: int | None) -> tuple[list[Part], str]:
        """Return the parts up to the ``else`` or ``end`` that closes the block, and which of them it was."""
        parts: list[Part] = []
        self._names.append(set(self._names[-1]))
        while self._position < len(self._pieces):
            kind, content, at = self._pieces[self._position]
            self._position += 1
            if kind == "text":
                parts.append(literal(content.replace("\\t", "\t").replace("\\n", "\n")))
                continue
            self._tokens = self._tokenize(content, at)
            self._action_at = at
            word = self._tokens[0].text if self._tokens and self._tokens[0].kind == "word" else ""
            if word in ("end", "else"):
                if opened_at is None:
                    self._fail(at, f"{word} without range, if or with")
                self._tokens.pop(0)
                if word == "end":
                    self._finish()
                self._names.pop()
                return parts, word
            parts.append(self._action(word))
        if opened_at is not None:
            self._fail(opened_at, "this block has no {{end}}")
        return parts, ""

    def _action(self, word: str) -> Part:
        if word in ("range", "if", "with"):
            self._tokens.pop(0)
            return self._control(word)
        if word in ("break", "continue"):
            if not self._ranges:
                self._fail(self._tokens[0].at, f"{word} outside range")
            self._tokens.pop(0)
            self._finish()
            return leave(goes_on=word == "continue")
        if word in _KEYWORDS:
            self._fail(self._tokens[0].at, f"{word} is not supported")
        changed = self._changed()
        names = self._declared()
        value = self._pipeline()
        self._finish()
        if changed:
            return assign(changed, value, new=False)
        if names:
            if len(names) > 1:
                self._fail(self._action_at, "only range gives two variables")
            self._names[-1].add(names[0])
            return assign(names[0], value, new=True)
        return write(value)

    def _control(self, word: str) -> Part:
        at = self._action_at
        names = self._declared()
        value = self._pipeline()
        self._finish()
        self._names.append({*self._names[-1], *names})
        self._ranges += word == "range"
        inside, ending = self._block(at)
        self._ranges -= word == "range"
        self._names.pop()
        otherwise: list[Part] = []
        if ending == "else":
            if self._tokens and self._tokens[0].text in ("if", "with"):
                otherwise = [self._control(self._tokens.pop(0).text)]
            else:
                self._finish()
                otherwise, ending = self._block(at)
                if ending == "else":
                    self._fail(self._action_at, "a second else")
        if word == "range":
            return range_over(names, value, inside, otherwise, self._mistake_at(at))
        if len(names) > 1:
            self._fail(at, "only range gives two variables")
        return choose(names, value, inside, otherwise, moves=word == "with")

    def _changed(self) -> str:
        """Take ``$a =`` off the tokens; return the variable or ''."""
        if len(self._tokens) < 2 or self._tokens[0].kind != "variable" or self._tokens[1].text != "=":
            return ""
        name = self._tokens[0]
        if name.text not in self._names[-1]:
            self._fail(name.at, f"undefined variable {name.text!r}")
        del self._tokens[:2]
        return name.text

    def _declared(self) -> list[str]:
        """Take ``$a :=`` or ``$k, $v :=`` off the tokens."""
        texts = [token.text for token in self._tokens[:4]]
        if len(texts) > 1 and self._tokens[0].kind == "variable" and texts[1] == ":=":
            del self._tokens[:2]
            return texts[:1]
        if len(texts) > 3 and self._tokens[0].kind == self._tokens[2].kind == "variable" and texts[1::2] == [",", ":="]:
            del self._tokens[:4]
            return [texts[0], texts[2]]
        return []

    # Expressions

    def _tokenize(self, body: str, start: int) -> list[_Token]:
        tokens: list[_Token] = []
        at = 0
        stripped = body.rstrip()
        while at < len(stripped):
            match = _TOKEN.match(stripped, at)
            if match is None or match.lastgroup is None:
                skipped = len(stripped[at:]) - len(stripped[at:].lstrip())
                self._fail(start + at + skipped, f"unexpected {stripped[at + skipped]!r}")
            tokens.append(_Token(match.lastgroup, match[match.lastgroup], start + match.start(match.lastgroup)))
            at = match.end()
        return tokens

    def _finish(self) -> None:
        if self._tokens:
            self._fail(self._tokens[0].at, f"unexpected {self._tokens[0].text!r}")

    def _pipeline(self) -> Expression:
        value = self._command(None)
        while self._tokens and self._tokens[0].text == "|":
            self._tokens.pop(0)
            value = self._command(value)
        return value

    def _command(self, piped: Expression | None) -> Expression:
        """Parse a function or a single value with what follows it; ``piped`` becomes the last argument."""
        if not self._tokens:
            self._fail(self._action_at, "an expression is missing")
        first = self._tokens[0]
        function: Expression | None = None
        if first.kind == "word" and first.text not in _CONSTANTS:
            self._tokens.pop(0)
            if first.text not in _FUNCTIONS:
                known = ", ".join(sorted(_FUNCTIONS))
                self._fail(first.at, f"function {first.text!r} is not known; there are {known}")
            called = _FUNCTIONS[first.text]
            arguments = self._arguments()
        else:
            function, called = self._operand(), None
            arguments = self._arguments()
        if piped is not None:
            arguments.append(piped)
        return call_of(first.text, called, function, arguments, self._mistake_at(first.at))

    def _arguments(self) -> list[Expression]:
        arguments = []
        while self._tokens and self._tokens[0].text not in ("|", ")"):
            arguments.append(self._operand())
        return arguments

    def _operand(self) -> Expression:
        token = self._tokens.pop(0)
        match token.kind:
            case "text":
                return constant(self._unquote(token))
            case "number":
                if len(token.text) > _NUMBER_DIGITS:
                    self._fail(token.at, "a number with too many digits")
                return constant(int(token.text))
            case "dot":
                return lambda scope: scope.dot
            case "field":
                return self._fields(lambda scope: scope.dot, token)
            case "variable":
                if token.text not in self._names[-1]:
                    self._fail(token.at, f"undefined variable {token.text!r}")
                return self._with_fields(lambda scope: scope.variables[token.text][0])
            case "word" if token.text in _CONSTANTS:
                return constant(_CONSTANTS[token.text])
            case "word" if token.text in _FUNCTIONS:
                return call_of(token.text, _FUNCTIONS[token.text], None, [], self._mistake_at(token.at))
            case "mark" if token.text == "(":
                value = self._pipeline()
                if not self._tokens or self._tokens.pop(0).text != ")":
                    self._fail(token.at, "this ( has no )")
                return self._with_fields(value)
        raise self._mistake_at(token.at)(f"unexpected {token.text!r}")

    def _with_fields(self, value: Expression) -> Expression:
        """Add the fields that follow ``$x`` or ``(…)`` without a space."""
        if self._tokens and self._tokens[0].kind == "field":
            token = self._tokens[0]
            if token.at and not self._source[token.at - 1].isspace():
                return self._fields(value, self._tokens.pop(0))
        return value

    def _fields(self, value: Expression, token: _Token) -> Expression:
        fail = self._mistake_at(token.at)

        def look(scope: Scope) -> Any:
            found = value(scope)
            for name in token.text[1:].split("."):
                found = look_up(found, name, fail)
            return found

        return look

    def _unquote(self, token: _Token) -> str:
        inner = token.text[1:-1]
        if token.text[0] == "`":
            return inner
        if "\\" in _ESCAPE.sub("", inner):
            self._fail(token.at, f"unknown escape in {token.text}")
        return _ESCAPE.sub(lambda m: _ESCAPED[m[1]] if m[1] else chr(int(m[2] or m[3], 16)), inner)

    def _mistake_at(self, at: int) -> Callable[[str], InvalidRequest]:
        return lambda words: mistake_at(self._source, at, words)
