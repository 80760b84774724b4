"""How faults are worded: what was written is quoted, and the nearest known word is named.

Used by whatever reads text that people write, so that every message looks alike and stays on one
line whatever the text holds. `meshfd exec` starts with this module, and has no fault to word most
of the time: so what only a fault needs is imported then.
"""

from __future__ import annotations

TYPE_CHECKING = False  # see meshfd.records
if TYPE_CHECKING:
    from collections.abc import Iterable

QUOTE_MAX = 60
"""Characters of a user's text that a message repeats: enough to recognise it by."""

LISTED_MAX = 16
"""Known words that a message lists."""


def quote(text: str) -> str:
    """``text`` between double quotes, cut when long, with no line break or control character."""
    import json  # noqa: PLC0415 -- see above

    cut = text if len(text) <= QUOTE_MAX else text[: QUOTE_MAX - 3] + "..."
    quoted = json.dumps(cut, ensure_ascii=False)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in quoted)


def alternatives(words: Iterable[str]) -> str:
    """The words as a list for a sentence: ``a, b or c``."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def suggest(word: str, known: Iterable[str], *, none: str) -> str:
    """What to write instead of ``word``: the nearest of ``known``, or else all of them.

    ``none`` is what to say where nothing is known.
    """
    import difflib  # noqa: PLC0415 -- see above

    words = list(known)
    if not words:
        return none
    near = difflib.get_close_matches(word, words, n=1)
    if near:
        return f"did you mean {quote(near[0])}?"
    listed = [quote(w) for w in words[:LISTED_MAX]]
    if len(words) > LISTED_MAX:
        listed.append(f"one of {len(words) - LISTED_MAX} more")
    return f"write {alternatives(listed)}"
