"""Where keys stand in a TOML text."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from meshfd.toml_lines import Path, locate

TEXT = """\
# a comment with = and [brackets]
top = 1
"quoted \\u00e9.key" = 'literal # no comment'   # a comment

[service.web]
command = [
  "a",  # one
  "b]", # two

  'c"', [ 1,
  2 ],
]
dotted.key.deep = 07:32:00
text = \"\"\"
[not.a.table]
key = "no key"
four quotes at the end\"\"\"\"
literal = '''
[[neither]]
'''
inline = { a = 1, "b c" = [ {
  d = 2 } ], e.f = true }

[[service.web.listen]]
address = "x"
[[service.web.listen]]
address = 1979-05-27 07:32:00
[service.web.listen.more]
deep = ""
[[service.web.listen.more.still]]
[ upstream . 'a.b' ]
"""

LINES: dict[Path, int] = {
    ("top",): 2,
    ("quoted é.key",): 3,
    ("service",): 5,
    ("service", "web"): 5,
    ("service", "web", "command"): 6,
    ("service", "web", "command", 0): 7,
    ("service", "web", "command", 1): 8,
    ("service", "web", "command", 2): 10,
    ("service", "web", "command", 3): 10,
    ("service", "web", "command", 3, 0): 10,
    ("service", "web", "command", 3, 1): 11,
    ("service", "web", "dotted"): 13,
    ("service", "web", "dotted", "key"): 13,
    ("service", "web", "dotted", "key", "deep"): 13,
    ("service", "web", "text"): 14,
    ("service", "web", "literal"): 18,
    ("service", "web", "inline"): 21,
    ("service", "web", "inline", "a"): 21,
    ("service", "web", "inline", "b c"): 21,
    ("service", "web", "inline", "b c", 0): 21,
    ("service", "web", "inline", "b c", 0, "d"): 22,
    ("service", "web", "inline", "e"): 22,
    ("service", "web", "inline", "e", "f"): 22,
    ("service", "web", "listen"): 24,
    ("service", "web", "listen", 0): 24,
    ("service", "web", "listen", 0, "address"): 25,
    ("service", "web", "listen", 1): 26,
    ("service", "web", "listen", 1, "address"): 27,
    ("service", "web", "listen", 1, "more"): 28,
    ("service", "web", "listen", 1, "more", "deep"): 29,
    ("service", "web", "listen", 1, "more", "still"): 30,
    ("service", "web", "listen", 1, "more", "still", 0): 30,
    ("upstream",): 31,
    ("upstream", "a.b"): 31,
}


def paths(value: object, prefix: Path = ()) -> set[Path]:
    """Every path in a parsed document, its top left out."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    found: set[Path] = set()
    for key, inner in items:
        found |= {(*prefix, key)} | paths(inner, (*prefix, key))
    return found


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_construct(newline: str) -> None:
    """Tables, arrays, dotted and quoted keys, inline tables and strings are followed."""
    text = TEXT.replace("\n", newline)
    assert locate(text) == LINES
    assert paths(tomli.loads(text)) == set(LINES)


scalars = (
    st.integers(-9, 99).map(str)
    | st.sampled_from(["true", "1.5e3", "1979-05-27", "1979-05-27 07:32:00", "inf"])
    | st.text(max_size=6).map(json.dumps).filter(lambda text: "\\ud" not in text)
    | st.text('ab #=[]{}\\",', max_size=6).map(lambda text: f"'{text}'")
    | st.text("ab #=[]{}',\n", max_size=8).map(lambda text: f'"""{text}"""')
    | st.text('ab #=[]{}",\n\\', max_size=8).map(lambda text: f"'''{text}'''")
)
keys = st.text("ab9_-", min_size=1, max_size=3) | st.text(max_size=3).map(json.dumps).filter(
    lambda text: "\\ud" not in text
)
gaps = st.sampled_from(["", " ", "\n", " # no ] or } or ,\n", "\n\n  "])
inline_gaps = st.sampled_from(["", " ", "\t"])


def _arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    items = st.lists(st.builds("{}{}{}".format, gaps, inner, gaps), max_size=3)
    return items.map(lambda parts: f"[{','.join(parts)}]")


def _tables(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.lists(st.tuples(keys, inline_gaps, inner), max_size=3)
    return pairs.map(lambda all_: "{" + ", ".join(f"{k}{g}= {v}" for k, g, v in all_) + "}")


toml_values = st.recursive(scalars, lambda inner: _arrays(inner) | _tables(inner), max_leaves=6)
dotted = st.lists(keys, min_size=1, max_size=3).map(" . ".join)
statements = (
    st.builds("{} = {}".format, dotted, toml_values)
    | dotted.map("[{}]".format)
    | dotted.map("[[{}]]".format)
    | st.sampled_from(["", "# [comment]", "\t"])
)


@given(st.lists(statements, max_size=8).map("\n".join))
def test_finds_what_the_parser_finds(text: str) -> None:
    """In any well-formed text exactly the parser's keys are found, on lines that hold them."""
    try:
        document = tomli.loads(text)
    except tomli.TOMLDecodeError:
        return
    lines = locate(text)
    assert set(lines) == paths(document)
    rows = text.split("\n")
    for path, line in lines.items():
        key = path[-1]
        if isinstance(key, str):
            quoted = json.dumps(key)
            assert key in rows[line - 1] or quoted[1:-1] in rows[line - 1]


@given(st.text() | st.text("a.=[]{}\"'\\#\n, ", max_size=30))
def test_never_breaks(text: str) -> None:
    """A text that is not TOML at all gives some lines or none, and no error."""
    assert all(line >= 1 for line in locate(text).values())


@pytest.mark.parametrize("text", ["a", "[a", 'a = ["" 2]', 'a = {b = "" c = 2}', 'a = "', "= 1"])
def test_gives_up(text: str) -> None:
    """Where the text cannot be followed, no line is known."""
    assert locate(text) == {}
