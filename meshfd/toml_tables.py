"""Read tables of a TOML file key by key, so that every wrong key gets a fault of its own.

Theory of operation: a `Source` is one file's text, parsed; a `Place` is a key in it, and collects
faults for its line. What a table may hold is written as data: a `Key` each, with the shape that
msgspec checks, the words for it in a fault, and a function that gives the shape its meaning.
`read_table` goes through all of them, records what is wrong and gives back what is right. A caller
goes on with that, to find more faults; that there was any makes the whole result void.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import tomli

from meshfd import toml_lines
from meshfd.errors import Fault
from meshfd.wording import QUOTE_MAX, quote, suggest

FILE_MAX_BYTES = 16 << 20
"""Size of a file that is read."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_INDEX = re.compile(r"\[([0-9]+)\]")
_SHOWN_INT_MAX = 1 << 63
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Source:
    """One file: its name as it was given, its content, and the faults of all files together.

    ``netns`` are the names of the network namespaces that the files declare together.
    """

    file: Path
    document: dict[str, Any]
    lines: Mapping[toml_lines.Path, int]
    faults: list[Fault]
    netns: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Place:
    """A key of a file, by its path from the top."""

    source: Source
    path: toml_lines.Path = ()

    def at(self, *keys: str | int) -> Place:
        """The place of a key, or array element, below this one."""
        return Place(self.source, (*self.path, *keys))

    @property
    def value(self) -> Any:
        """What is there."""
        value: Any = self.source.document
        for key in self.path:
            value = value[key]
        return value

    @property
    def line(self) -> int | None:
        """The line of the key, or of the nearest table around it that has one."""
        for length in range(len(self.path), 0, -1):
            line = self.source.lines.get(self.path[:length])
            if line is not None:
                return line
        return None

    @property
    def key(self) -> str:
        """The path in TOML's notation: ``service.web.listen[0].address``."""
        text = ""
        for part in self.path:
            if isinstance(part, int):
                text += f"[{part}]"
            else:
                text += f".{part if _BARE_KEY.fullmatch(part) else json.dumps(part)}"
        return text.removeprefix(".")

    def fault(self, text: str) -> None:
        """Record that this key is wrong."""
        fault = Fault(str(self.source.file), self.line, self.key, text)
        self.source.faults.append(fault)

    def __str__(self) -> str:
        """The file and, where known, the line."""
        line = self.line
        return str(self.source.file) if line is None else f"{self.source.file}:{line}"


def _same(value: Any, place: Place) -> Any:  # noqa: ARG001 -- a Key's
    return value


@dataclass(frozen=True, slots=True)
class Key:
    """What a table may hold under one name.

    ``field`` is the name under which `read_table` gives the value back. ``shape`` is a type that
    msgspec checks; ``hint`` says it in words that fit after "expected" and "write". ``parse`` gets
    the value and its place; it raises ValueError for what is wrong, or records faults by itself.
    """

    field: str
    shape: Any
    hint: str
    parse: Callable[[Any, Place], object] = _same
    required: bool = False


def read_source(file: Path, faults: list[Fault]) -> Source | None:
    """Read and parse a file; None, and one fault, if that is not possible."""
    try:
        text = read_text(file)
        document = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        advice = ""
        if error.msg.startswith("Expected '=' after a key"):
            advice = '; quote keys such as "10.0.0.1:80"'
        what = f"this is not TOML: {error.msg} (column {error.colno}){advice}"
        faults.append(Fault(str(file), error.lineno, "", what))
    except (ValueError, RecursionError) as error:
        faults.append(Fault(str(file), None, "", str(error)))
    else:
        return Source(file, document, toml_lines.locate(text), faults)
    return None


def read_text(file: Path) -> str:
    """The content of a UTF-8 file, a byte order mark left out.

    Raises:
        ValueError: it cannot be read, is no regular file, is larger than `FILE_MAX_BYTES`, or is
            not UTF-8.

    """
    try:
        content = _read_regular(file)
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from None
    if len(content) > FILE_MAX_BYTES:
        raise ValueError(f"the file is larger than {FILE_MAX_BYTES >> 20} MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"the file is not UTF-8 (line {line}); save it as UTF-8") from None


def _read_regular(file: Path) -> bytes:
    """Read at most one byte more than is allowed; a pipe or device could keep us for ever."""
    with open(file, "rb", opener=_open_at_once) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ValueError("this is a pipe, socket or device; name a regular file")
        return stream.read(FILE_MAX_BYTES + 1)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def read_table(raw: object, keys: Mapping[str, Key], place: Place) -> dict[str, Any]:
    """Read a table: the values of all keys that are there and right, by their ``field``."""
    if not isinstance(raw, dict):
        place.fault(f"expected a table, found {_show(raw)}")
        return {}
    for name in raw:
        if name not in keys:
            advice = suggest(name, keys, none="leave it out")
            place.at(name).fault(f"this key is not known; {advice}")
    values: dict[str, Any] = {}
    for name, key in keys.items():
        here = place.at(name)
        if name in raw:
            try:
                shaped = convert(raw[name], key.shape, key.hint)
                values[key.field] = key.parse(shaped, here)
            except ValueError as error:
                here.fault(str(error))
        elif key.required:
            here.fault(f"this key is missing; write {key.hint}")
    return values


def convert(value: object, shape: Any, hint: str) -> Any:
    """``value`` as ``shape`` has it.

    Raises:
        ValueError: it does not fit; the text says what was expected and what was found.

    """
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        found = value
        for index in _INDEX.findall(str(error).rpartition(" - at `$")[2]):
            found = found[int(index)] if isinstance(found, list) else found
        raise ValueError(f"expected {hint}, found {_show(found)}") from None


def parse_each(
    values: Iterable[tuple[str | int, Any]],
    place: Place,
    parse: Callable[[Any, Place], _T | None],
) -> tuple[_T, ...]:
    """What ``parse`` makes of each value; one that is wrong is a fault at its own key.

    ``parse`` raises ValueError, or records faults by itself and may then give None.
    """
    parsed = []
    for key, value in values:
        here = place.at(key)
        try:
            made = parse(value, here)
        except ValueError as error:
            here.fault(str(error))
        else:
            if made is not None:
                parsed.append(made)
    return tuple(parsed)


def _show(value: object) -> str:
    """A value from TOML, shortly."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return quote(value) if value else "an empty string"
        case int() if abs(value) >= _SHOWN_INT_MAX:
            return "a number with too many digits"
        case int() | float():
            return str(value)[:QUOTE_MAX]
        case list():
            return "an array" if value else "an empty array"
        case dict():
            return "a table"
        case _:
            return "a date or time"
