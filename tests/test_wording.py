"""How faults are worded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfd.wording import QUOTE_MAX, alternatives, quote, suggest


@given(st.text(st.characters()))
def test_quote(text: str) -> None:
    """A quoted text is printable, on one line, and bounded."""
    assert quote(text).isprintable()
    assert len(quote(text)) <= 12 * QUOTE_MAX


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("web", '"web"'),
        ('a"b', r'"a\"b"'),
        ("a\nb\x1b[0m", r'"a\nb\u001b[0m"'),
        ("a\x7f\u2028", r'"a\x7f\u2028"'),
        ("x" * 61, f'"{"x" * 57}..."'),
        ("größe", '"größe"'),
    ],
)
def test_quote_shows(text: str, quoted: str) -> None:
    """What cannot be printed is shown escaped; what is long is cut."""
    assert quote(text) == quoted


def test_alternatives() -> None:
    """Alternatives read as a sentence."""
    assert alternatives(["a"]) == "a"
    assert alternatives(["a", "b", "c"]) == "a, b or c"


def test_suggest() -> None:
    """The nearest word is named; without one, the words that there are."""
    assert suggest("comand", ["command", "user"], none="-") == 'did you mean "command"?'
    assert suggest("x", ["command", "user"], none="-") == 'write "command" or "user"'
    assert suggest("x", [], none="nothing is known") == "nothing is known"
    assert suggest("x", (f"name{n}" for n in range(20)), none="-").endswith(
        '"name15" or one of 4 more'
    )
