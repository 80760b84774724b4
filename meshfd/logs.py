"""The log of `meshfd run`: for people or as JSON, and never in the loop's way.

Theory of operation: modules call `event` with a text and named values. A handler on the "meshfd"
logger turns each record into one line and puts it in a bounded queue; a thread of its own writes
the queue to the file descriptor. So a terminal that is stopped, or a pipe that nobody reads, holds
up that thread alone: lines that find the queue full are dropped and counted, and the count is
written as soon as there is room again. At the end the thread is given `DRAIN_S` to finish.

Limits: QUEUE_LINES lines wait at most; a text or value holds at most TEXT_CHARS characters.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import queue
import select
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LogFormat = Literal["human", "json"]

QUEUE_LINES: Final = 10_000
TEXT_CHARS: Final = 2_000
DRAIN_S: Final = 1.0

_COLOURS: Final = {logging.DEBUG: "2", logging.WARNING: "33", logging.ERROR: "31"}
_ROOT = logging.getLogger("meshfd")


def event(level: int, text: str, *, service: str | None = None, **values: object) -> None:
    """Log one thing that happened.

    ``level`` is one of `logging`'s. ``values`` become ``key=value``, or keys of the JSON object;
    those that are None are left out.
    """
    if _ROOT.isEnabledFor(level):
        kept = {key: value for key, value in values.items() if value is not None}
        _ROOT.log(level, "%s", text, extra={"service": service, "values": kept})


def format_rfc3339(timestamp_s: float) -> str:
    """A time in seconds since the epoch as RFC 3339 in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(timestamp_s, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def format_human(record: logging.LogRecord, *, colour: bool) -> str:
    """Time, level, service, text, then ``key=value``."""
    service, values = _extras(record)
    clock = time.strftime("%H:%M:%S", time.localtime(record.created))
    parts = [f"{clock}.{int(record.msecs):03d}", f"{record.levelname.lower():7}"]
    if service is not None:
        parts.append(f"{service}:")
    parts.append(_printable(record.getMessage()))
    parts.extend(f"{key}={_human_value(value)}" for key, value in values.items())
    line = " ".join(parts)
    code = _COLOURS.get(record.levelno)
    return f"\x1b[{code}m{line}\x1b[0m" if colour and code else line


def format_json(record: logging.LogRecord) -> str:
    """One object a line: time, level, text, service where there is one, and the values."""
    service, values = _extras(record)
    line: dict[str, object] = {
        "time": format_rfc3339(record.created),
        "level": record.levelname.lower(),
        "text": record.getMessage()[:TEXT_CHARS],
    }
    if service is not None:
        line["service"] = service
    return json.dumps({**values, **line}, default=str)


def wants_colour(fd: int, environment: Mapping[str, str]) -> bool:
    """Colour is for terminals, and not where NO_COLOR is set (no-color.org) or TERM is dumb."""
    if environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return False
    return os.isatty(fd)


class LineWriter:
    """A thread that writes lines to a file descriptor, and a bounded queue before it."""

    def __init__(
        self, fd: int, say_dropped: Callable[[int], str], *, queue_lines: int = QUEUE_LINES
    ) -> None:
        """``fd`` stays the caller's, and may block for as long as it likes.

        ``say_dropped`` gives the line that says how many lines are missing before it.
        """
        self._fd = fd
        self._say_dropped = say_dropped
        self._lines: queue.Queue[str | None] = queue.Queue(queue_lines)
        self._lock = threading.Lock()
        self._n_dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="meshfd-log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Queue a line, or count it as dropped; never blocks."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            with self._lock:
                self._n_dropped += 1

    def close(self, timeout_s: float = DRAIN_S) -> None:
        """Write what is queued, but give up after this long: the reader may be gone for good."""
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=timeout_s)
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            with self._lock:
                n_dropped, self._n_dropped = self._n_dropped, 0
            if n_dropped:
                line += "\n" + self._say_dropped(n_dropped)
            if not _write_line(self._fd, line):
                return


class _Handler(logging.Handler):
    def __init__(self, writer: LineWriter, line: Callable[[logging.LogRecord], str]) -> None:
        super().__init__()
        self._writer = writer
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        self._writer.put(self._line(record))


@contextlib.contextmanager
def logging_to(fd: int, log_format: LogFormat, *, debug: bool = False) -> Iterator[None]:
    """Write the log to this file descriptor for as long as the context lasts."""
    colour = wants_colour(fd, os.environ)

    def line(record: logging.LogRecord) -> str:
        return format_json(record) if log_format == "json" else format_human(record, colour=colour)

    def say_dropped(n_dropped: int) -> str:
        text = f"{n_dropped} log lines were dropped, because nobody read them in time"
        return line(_ROOT.makeRecord("meshfd", logging.WARNING, "", 0, text, (), None))

    writer = LineWriter(fd, say_dropped)
    handler = _Handler(writer, line)
    level, propagate = _ROOT.level, _ROOT.propagate
    _ROOT.addHandler(handler)
    _ROOT.setLevel(logging.DEBUG if debug else logging.INFO)
    _ROOT.propagate = False
    try:
        yield
    finally:
        _ROOT.removeHandler(handler)
        _ROOT.setLevel(level)
        _ROOT.propagate = propagate
        writer.close()


def _extras(record: logging.LogRecord) -> tuple[str | None, dict[str, Any]]:
    return getattr(record, "service", None), getattr(record, "values", {})


def _printable(text: str) -> str:
    """Text that cannot break a line, or a terminal."""
    text = text[:TEXT_CHARS]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _human_value(value: object) -> str:
    text = str(value)[:TEXT_CHARS]
    plain = text and text.isprintable() and not any(c in text for c in " \"'=")
    return text if plain else json.dumps(text)


def _write_line(fd: int, line: str) -> bool:
    """Write the whole line; False when nobody can ever read it again."""
    data = (line + "\n").encode("utf-8", "backslashreplace")
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:  # somebody made the terminal or pipe non-blocking
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
        except OSError as error:
            # A disk that is full may have room later; a pipe without a reader will not.
            return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}
    return True
