"""In which line of a TOML text each key stands, which parsers do not tell.

Theory of operation: the text has been parsed by tomli, so it is well formed, and what is left is to
walk it: headers, keys (dotted ones too), and values just closely enough to know where they end and
which keys and array elements they hold. Each path is noted where it first occurs. If the walk
meets anything that it does not expect, it gives up and no line is known: none beats a wrong one.

Source: https://toml.io/en/v1.1.0
"""

from __future__ import annotations

import re
from bisect import bisect_right

import tomli

Path = tuple[str | int, ...]
"""Keys and array indices from the top, such as ("service", "web", "listen", 0, "address")."""

_BLANK = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\r\n]|\#[^\n]*)*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+ | "(?:[^"\\\n]|\\.)*" | '[^'\n]*'""", re.VERBOSE)
_STRING = re.compile(
    r""""{3} (?: [^"\\] | \\. | "{1,2}(?!") )* "{3,5}
    |   '{3} (?: [^'] | '{1,2}(?!') )* '{3,5}
    |   "(?: [^"\\\n] | \\. )*"
    |   '[^'\n]*' """,
    re.VERBOSE | re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}\#\n]+")


def locate(text: str) -> dict[Path, int]:
    """Line, from 1, of each table, key and array element of a well-formed TOML text.

    Empty where the text could not be followed to its end.
    """
    walk = _Walk(text)
    try:
        walk.document()
    except (_LostError, RecursionError):
        return {}
    return walk.lines


class _LostError(Exception):
    """The text is not what it should be here."""


class _Walk:
    """One walk over one text; ``at`` is the offset that it has reached."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._newlines = [i for i, character in enumerate(text) if character == "\n"]
        self._last_index: dict[Path, int] = {}  # of each array of tables

    def document(self) -> None:
        table: Path = ()
        while self._skip(_GAP) < len(self._text):
            if self._take("[["):
                table = self._append(self._keys())
                self._expect("]]")
            elif self._take("["):
                table = self._enter(self._keys())
                self._expect("]")
            else:
                self._pair(table)

    def _enter(self, keys: list[str]) -> Path:
        """The table that a header means: of an array of tables, its last one so far."""
        path: Path = ()
        for key in keys:
            path = self._note((*path, key))
            if path in self._last_index:
                path = (*path, self._last_index[path])
        return path

    def _append(self, keys: list[str]) -> Path:
        array = self._note((*self._enter(keys[:-1]), keys[-1]))
        self._last_index[array] = self._last_index.get(array, -1) + 1
        return self._note((*array, self._last_index[array]))

    def _pair(self, table: Path) -> None:
        path = table
        for key in self._keys():
            path = self._note((*path, key))
        self._expect("=")
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: Path) -> None:
        if self._take("["):
            self._items(path, "]")
        elif self._take("{"):
            self._items(path, "}")
        elif self._text[self._at : self._at + 1] in ('"', "'"):
            self._match(_STRING)
        else:
            self._match(_SCALAR)

    def _items(self, path: Path, end: str) -> None:
        """What is inside an array, or an inline table."""
        index = 0
        while self._skip(_GAP) < len(self._text) and not self._take(end):
            if end == "}":
                self._pair(path)
            else:
                self._value(self._note((*path, index)))
            index += 1
            self._skip(_GAP)
            if not self._take(","):
                self._expect(end)
                return

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip(_BLANK)
            keys.append(_unquote(self._match(_KEY)))
            self._skip(_BLANK)
            if not self._take("."):
                return keys

    def _note(self, path: Path) -> Path:
        self.lines.setdefault(path, bisect_right(self._newlines, self._at - 1) + 1)
        return path

    def _skip(self, pattern: re.Pattern[str]) -> int:
        self._match(pattern)
        return self._at

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise _LostError
        self._at = found.end()
        return found[0]

    def _take(self, token: str) -> bool:
        if not self._text.startswith(token, self._at):
            return False
        self._at += len(token)
        return True

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise _LostError


def _unquote(key: str) -> str:
    if key[0] not in "\"'":
        return key
    if "\\" not in key:
        return key[1:-1]
    try:
        return next(iter(tomli.loads(f"{key} = 0")))
    except tomli.TOMLDecodeError as error:
        raise _LostError from error
