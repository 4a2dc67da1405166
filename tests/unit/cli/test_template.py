"""Templates of ``--format``: what Docker's manuals show, combinations of it, and errors that name the place."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netagent.cli.template import Template
from netagent.errors import InvalidRequest

CONTAINER: dict[str, Any] = {
    "Name": "/web",
    "Config": {"Missing": [], "Labels": {"com.example.a": "1"}, "Cmd": ["sh", "-c", "true"], "Hostname": "web"},
    "State": {"Running": True, "Pid": 42, "ExitCode": 0, "Error": ""},
    "NetworkSettings": {
        "IPAddress": "172.16.0.2",
        "Ports": {
            "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "4000"}, {"HostIp": "::", "HostPort": "4000"}],
            "8787/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8787"}],
        },
        "Networks": {"app": {"IPAddress": "172.16.0.2", "MacAddress": "02:42:ac:12:00:02", "Aliases": ["a", "b"]}},
    },
}

# From "docker inspect", "Format command and log output" and the network tutorials of docs.docker.com.
MANUALS = {
    "{{.NetworkSettings.IPAddress}}": "172.16.0.2",
    "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}": "172.16.0.2",
    "{{range .NetworkSettings.Networks}}{{.MacAddress}}{{end}}": "02:42:ac:12:00:02",
    "{{range $p, $conf := .NetworkSettings.Ports}} {{$p}} -> {{(index $conf 0).HostPort}} {{end}}": (
        " 80/tcp -> 4000  8787/tcp -> 8787 "
    ),
    '{{(index (index .NetworkSettings.Ports "8787/tcp") 0).HostPort}}': "8787",
    "{{json .Config.Cmd}}": '["sh","-c","true"]',
    '{{join .Config.Cmd " , "}}': "sh , -c , true",
    '{{split .Config.Hostname "e"}}': "[w b]",
    '{{index .Config.Labels "com.example.a"}}': "1",
    "{{range .NetworkSettings.Networks}}{{println .IPAddress}}{{end}}": "172.16.0.2\n",
    "{{lower .Name}} {{upper .Name}} {{title .Config.Hostname}}": "/web /WEB Web",
    "{{pad .Name 1 2}}|{{truncate .Name 2}}": " /web  |/w",
    "{{.State.Pid}}\\t{{.State.Running}}\\n": "42\ttrue\n",
    "{{.Config.Cmd}} {{.State}}": "[sh -c true] map[Error: ExitCode:0 Pid:42 Running:true]",
}

FORMS = {
    "a {{- .Name }} b": "a/web b",
    "{{/* a remark */}}{{.Name}}": "/web",
    "{{if .State.Error}}bad{{else if .State.ExitCode}}code{{else}}well{{end}}": "well",
    "{{with .NetworkSettings.Networks.app}}{{.IPAddress}}{{else}}none{{end}}": "172.16.0.2",
    "{{with $x := .Name}}{{$x}}{{$.State.Pid}}{{end}}": "/web42",
    "{{$n := .Name}}{{range .Config.Cmd}}{{$n}}{{.}};{{end}}": "/websh;/web-c;/webtrue;",
    "{{range $i, $e := .Config.Cmd}}{{if $i}},{{end}}{{$e}}{{end}}": "sh,-c,true",
    "{{range $e := .Config.Cmd}}{{$e}}{{end}}": "sh-ctrue",
    '{{range index .NetworkSettings.Ports "81/tcp"}}x{{else}}none{{end}}': "none",
    "{{.Config.Cmd | len}} {{.Name | upper | json}}": '3 "/WEB"',
    '{{if and .State.Running (not .State.Error) (eq .Name "/web" "x")}}yes{{end}}': "yes",
    '{{or .State.Error "fine"}} {{ne 1 2}} {{print 1 "a"}}': "fine true 1a",
    '{{"}}"}} {{`raw\\n`}} {{"\\x41\\u00e9\\t"}}': "}} raw\\n A\u00e9\t",
    "{{true}} {{nil}} {{-3}}": "true <no value> -3",
    '{{printf "%-8s|%5d|%05d|%q|%v|%t|%x|%%" .Name 42 -7 .Config.Hostname .Config.Cmd true 255}}': (
        '/web    |   42|-0007|"web"|[sh -c true]|true|ff|%'
    ),
    '{{.State.Pid | printf "pid=%d"}} {{printf "%*d" 4 7}} {{printf "%.2s" .Name}}': "pid=42    7 /w",
    "{{range $i, $e := .Config.Cmd}}{{if eq $i 1}}{{continue}}{{end}}{{$e}};{{end}}": "sh;true;",
    "{{range .Config.Cmd}}{{.}}{{break}}{{end}}": "sh",
    '{{$sep := ""}}{{range .Config.Cmd}}{{$sep}}{{.}}{{$sep = ", "}}{{end}}': "sh, -c, true",
    "{{if and .Config.Missing (index .Config.Missing 0)}}x{{else}}y{{end}}": "y",
    "{{or .Name (index .Config.Cmd 9)}}": "/web",
    '{{if and (ge .State.Pid 42) (lt .State.Pid 43) (le "a" "b") (gt 2 1)}}yes{{end}}': "yes",
    '{{split .Config.Hostname ""}}': "[w e b]",
    "{{slice .Config.Cmd 1}} {{slice .Name 1 3}}": "[-c true] we",
    "{{print 1 2}} {{print .Config.Cmd 1}}": "1 2 [sh -c true] 1",
}


@pytest.mark.parametrize("text", MANUALS)
def test_templates_of_dockers_manuals(text: str) -> None:
    assert Template(text).render(CONTAINER) == MANUALS[text]


@pytest.mark.parametrize("text", FORMS)
def test_every_form_works(text: str) -> None:
    assert Template(text).render(CONTAINER) == FORMS[text]


def test_white_space_is_trimmed_on_the_side_of_the_dash() -> None:
    assert Template("a \n {{- .Name -}} \n b").render(CONTAINER) == "a/webb"
    assert Template("a {{.Name -}} b").render(CONTAINER) == "a /webb"


ERRORS = {
    "{{.Foo}}": "1:3: there is no field 'Foo'; there are Config, Name, NetworkSettings, State",
    "x\n {{.Name.Foo}}": "2:4: there is no field 'Foo' in '/web', which has no fields",
    "{{.Name": "1:1: this {{ has no }}",
    "{{if .Name}}x": "1:3: this block has no {{end}}",
    "{{end}}": "1:3: end without range, if or with",
    "{{else}}": "1:3: else without range, if or with",
    "{{if .Name}}{{else}}{{else}}{{end}}": "1:23: a second else",
    "{{}}": "1:3: an expression is missing",
    "{{if}}{{end}}": "1:3: an expression is missing",
    "{{$x}}": "1:3: undefined variable '$x'",
    "{{range $x := .Config.Cmd}}{{end}}{{$x}}": "1:37: undefined variable '$x'",
    "{{html .Name}}": "1:3: function 'html' is not known; there are and, eq, ge",
    '{{printf "%d" .Name}}': "1:3: printf: %d cannot show '/web'",
    '{{printf "%s" .State.Pid}}': "1:3: printf: %s is for texts, 42 is none",
    '{{printf "%s %s" .Name}}': "1:3: printf: there is no value for %s",
    '{{printf "x" .Name}}': "1:3: printf: '/web' has no place in 'x'",
    '{{printf "100%"}}': "1:3: printf: a % has no verb; %% stands for itself",
    "{{printf 1}}": "1:3: printf: '1' is not a text",
    "{{printf}}": "1:3: printf: wrong number or kind of arguments",
    "{{eq .Name 1}}": "1:3: eq: '/web' and '1' are of different types",
    "{{eq .State.Running 1}}": "1:3: eq: 'true' and '1' are of different types",
    "{{lt .Config .Config}}": "1:3: lt: 'map[",
    "{{slice .Config.Cmd 1 9}}": "1:3: slice: there is no part 1 9 of 3",
    "{{and}}": "1:3: and: it needs a value",
    "{{break}}": "1:3: break outside range",
    "{{range .Config.Cmd}}{{end}}{{continue}}": "1:31: continue outside range",
    "{{$x = 1}}": "1:3: undefined variable '$x'",
    '{{template "x"}}': "1:3: template is not supported",
    "{{.Name .Name}}": "1:3: .Name is no function and takes no argument",
    "{{(.Name}}": "1:3: this ( has no )",
    "{{.Name)}}": "1:8: unexpected ')'",
    "{{.Name !}}": "1:9: unexpected '!'",
    "{{index .Config.Cmd 3}}": "1:3: index: position 3 is out of range, there are 3",
    "{{index .Name 0}}": "1:3: index: '/web' is neither a map nor a list",
    '{{index .Config.Cmd "a"}}': "1:3: index: 'a' is not a position in a list",
    "{{join .Config.Cmd}}": "1:3: join: wrong number or kind of arguments",
    '{{join .Name ","}}': "1:3: join: '/web' is not a list",
    "{{len .State.Pid}}": "1:3: len: '42' has no length",
    "{{range .Name}}{{end}}": "1:3: range cannot go over '/web'",
    "{{upper 1}}": "1:3: upper: '1' is not a text",
    "{{eq 1}}": "1:3: eq: it needs two values",
    '{{"\\q"}}': "1:3: unknown escape",
    "{{if $a, $b := .Name}}{{end}}": "1:3: only range gives two variables",
    "{{" + "(" * 5000 + ".Name" + ")" * 5000 + "}}": "1:1: it is nested too deeply",
    "{{if .Name}}" * 5000 + "{{end}}" * 5000: "1:1: it is nested too deeply",
    "{{.Name" + " | json" * 5000 + "}}": "1:1: it is nested too deeply",
    "{{9999999999999999999}}": "1:3: a number with too many digits",
    "{{pad .Name 999999999 1}}": "1:3: pad: a width of 999999999",
    '{{printf "%*d" 999999999 1}}': "1:3: printf: a width of 999999999",
    '{{$a := "0123456789"}}' + "{{$a = print $a $a}}" * 99: "1:350: print: a text of 1310720 characters",
}


@pytest.mark.parametrize("text", ERRORS, ids=lambda text: text[:40])
def test_everything_else_is_an_error_that_names_the_place(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Template(text).render(CONTAINER)
    assert refused.value.message.startswith(f"invalid --format at {ERRORS[text]}")


def test_ranges_in_ranges_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netagent.cli.template_nodes.ROUNDS_LIMIT", 1000)
    assert Template("{{range .Config.Cmd}}{{end}}").render(CONTAINER) == ""
    with pytest.raises(InvalidRequest, match="its ranges go round more than 1000 times"):
        Template("{{range $.Config.Cmd}}" * 20 + "{{end}}" * 20).render(CONTAINER)


_names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)
_leaves = st.one_of(st.text(max_size=6), st.integers(-99, 99), st.booleans())
_values = st.recursive(
    _leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_names, inner, max_size=3)),
    max_leaves=12,
)


def _go(value: Any) -> str:
    return Template("{{.}}").render(value)


def _path_of(value: Any, path: list[Any]) -> tuple[str, Any]:
    """Return an expression that walks ``path`` into ``value``, nested, and what it finds."""
    expression = "$"
    for turn in path:
        if isinstance(value, dict) and value:
            key = sorted(value)[turn % len(value)]
            expression, value = (f"({expression}).{key}" if turn % 2 else f'(index {expression} "{key}")'), value[key]
        elif isinstance(value, list) and value:
            expression, value = f"(index {expression} {turn % len(value)})", value[turn % len(value)]
    return expression, value


@given(_values, st.lists(st.integers(0, 5), max_size=5))
def test_any_nesting_of_fields_and_index_finds_the_value(value: Any, path: list[int]) -> None:
    expression, found = _path_of(value, path)
    assert Template("{{" + expression + "}}").render(value) == _go(found)
    assert json.loads(Template("{{json " + expression + "}}").render(value)) == found
    assert Template("{{with $x := " + expression + "}}{{$x}}{{else}}-{{end}}").render(value) == (
        _go(found) if found else "-"
    )
    assert Template("{{if " + expression + "}}{{len (print 1 2)}}{{end}}").render(value) == ("3" if found else "")


@given(st.dictionaries(_names, st.lists(st.text(max_size=4), min_size=1, max_size=3), max_size=4))
def test_nested_ranges_visit_everything_in_order(value: dict[str, list[str]]) -> None:
    text = "{{range $k, $v := .}}{{$k}}:{{range $i, $e := $v}}{{if $i}},{{end}}{{$e | json}}{{end}};{{else}}none{{end}}"
    expected = "".join(f"{k}:{','.join(json.dumps(e, ensure_ascii=False) for e in value[k])};" for k in sorted(value))
    assert Template(text).render(value) == (expected or "none")


@given(st.text(alphabet='{}.$|()-"` \\abIndexrangeifend0123:=,', max_size=40))
def test_no_text_makes_the_parser_fail_otherwise(text: str) -> None:
    with suppress(InvalidRequest):
        Template(text).render(CONTAINER)


@given(st.integers(-9999, 9999), st.integers(0, 12), st.sampled_from("dxXob"), st.sampled_from(["", "-", "0", "+"]))
def test_numbers_are_printed_as_c_prints_them(value: int, width: int, verb: str, flag: str) -> None:
    body = format(value, ("+" if flag == "+" else "") + verb)
    sign, digits = (body[0], body[1:]) if body[0] in "+-" else ("", body)
    expected = {"-": body.ljust(width), "0": sign + digits.zfill(width - len(sign))}.get(flag, body.rjust(width))
    shown = str(width) if width else ""
    assert Template(f'{{{{printf "%{flag}{shown}{verb}" .}}}}').render(value) == expected


_conditions = st.recursive(
    st.sampled_from([("true", True), ("false", False), ('""', False), ("3", True), ("nil", False)]),
    lambda inner: st.one_of(
        inner.map(lambda a: (f"(not {a[0]})", not a[1])),
        st.tuples(inner, inner).map(lambda p: (f"(and {p[0][0]} {p[1][0]})", p[0][1] and p[1][1])),
        st.tuples(inner, inner).map(lambda p: (f"(or {p[0][0]} {p[1][0]})", p[0][1] or p[1][1])),
        st.tuples(inner, inner).map(lambda p: (f"(eq (not {p[0][0]}) (not {p[1][0]}))", p[0][1] == p[1][1])),
    ),
    max_leaves=8,
)


@given(_conditions)
def test_any_nesting_of_conditions_is_true_where_it_should_be(condition: tuple[str, bool]) -> None:
    expression, holds = condition
    assert Template("{{if " + expression + "}}yes{{else}}no{{end}}").render({}) == ("yes" if holds else "no")


@given(st.text("ab \n\t", max_size=6), st.text("ab \n\t", max_size=6), st.booleans(), st.booleans())
def test_dashes_trim_white_space_on_their_side_only(before: str, after: str, left: bool, right: bool) -> None:
    text = f"{before}{{{{{'- ' if left else ''}.{' -' if right else ''}}}}}{after}"
    expected = (before.rstrip() if left else before) + "x" + (after.lstrip() if right else after)
    assert Template(text).render("x") == expected


_GRAMMAR = """
{{ }} {{- -}} .Name .Config.Cmd $x $ := = , | ( ) range if with else end break continue and or not eq lt printf
index slice len json join "%d" "%s" "a" 0 1 -1 nil true `b` . /* */ text
"""
_WORDS = _GRAMMAR.split()


@given(st.lists(st.sampled_from(_WORDS), max_size=25))
def test_no_arrangement_of_its_words_fails_otherwise_than_by_naming_a_place(words: list[str]) -> None:
    with suppress(InvalidRequest):
        Template(" ".join(words)).render(CONTAINER)
