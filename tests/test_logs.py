"""The log of `meshfd run`."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
from collections.abc import Callable, Iterator

import pytest

from meshfd.logs import LineWriter, LogFormat, event, format_rfc3339, logging_to, wants_colour

PIPE_BYTES = 4096


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return a pipe's ends; it holds one page."""
    read_fd, write_fd = os.pipe()
    fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    yield read_fd, write_fd
    for fd in (read_fd, write_fd):
        os.close(fd)


@pytest.fixture
def logged(pipe: tuple[int, int]) -> Callable[[LogFormat, Callable[[], None]], list[str]]:
    """Return a function that runs another under the log and gives the lines that were written."""

    def run(log_format: LogFormat, act: Callable[[], None]) -> list[str]:
        with logging_to(pipe[1], log_format):
            act()
        return os.read(pipe[0], PIPE_BYTES).decode().splitlines()

    return run


Logged = Callable[[LogFormat, Callable[[], None]], list[str]]


def test_a_line_for_people(logged: Logged) -> None:
    """A line has the time, level, service, text and values; text with blanks is quoted."""
    (line,) = logged(
        "human",
        lambda: event(logging.WARNING, "was killed", service="web", pid=7, why="too slow", no=None),
    )
    assert re.fullmatch(r'\d\d:\d\d:\d\d\.\d{3} warning web: was killed pid=7 why="too slow"', line)


def test_a_line_for_machines(logged: Logged) -> None:
    """A JSON line is one object with the same content, and RFC 3339 time."""
    (line,) = logged("json", lambda: event(logging.INFO, "ready", service="web", pid=7))
    record = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("time"))
    assert record == {"level": "info", "text": "ready", "service": "web", "pid": 7}


def test_a_program_cannot_forge_lines(logged: Logged) -> None:
    """Line ends and escape sequences in texts and values stay inside their line, spelled out."""
    lines = logged("human", lambda: event(logging.INFO, "a\nb\x1b[2J", value="c\nd"))
    assert len(lines) == 1
    assert r"a\nb\x1b[2J" in lines[0]
    assert r'value="c\nd"' in lines[0]


def test_debug_is_off_unless_asked_for(logged: Logged) -> None:
    """Debug lines are not written by default."""

    def act() -> None:
        event(logging.DEBUG, "a")
        event(logging.INFO, "b")

    lines = logged("human", act)
    assert [line.split()[-1] for line in lines] == ["b"]


def test_a_reader_who_stops_costs_lines_and_not_time(pipe: tuple[int, int]) -> None:
    """With nobody reading, put() returns, lines beyond the queue are dropped, and counted."""
    read_fd, write_fd = pipe
    writer = LineWriter(write_fd, lambda n_dropped: f"lost {n_dropped}", queue_lines=10)
    text = "x" * 1000
    for _ in range(200):
        writer.put(text)
    received = b""
    while True:
        lines = received.decode().split("\n")
        n_lost = sum(int(line.split()[1]) for line in lines[:-1] if line.startswith("lost"))
        if lines.count(text) + n_lost == 200:
            break
        received += os.read(read_fd, PIPE_BYTES)
    writer.close()
    assert n_lost > 0


def test_a_writer_gives_up_on_a_reader_who_never_comes(pipe: tuple[int, int]) -> None:
    """Closing the log does not wait for ever for a pipe that is full."""
    writer = LineWriter(pipe[1], str, queue_lines=10)
    for _ in range(20):
        writer.put("x" * 1000)
    writer.close(timeout_s=0.01)
    received = b""
    while (
        received.count(b"\n") < 11
    ):  # what the queue held: let the thread end before the pipe does
        received += os.read(pipe[0], PIPE_BYTES)


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_can_be_refused(environment: dict[str, str]) -> None:
    """NO_COLOR and a dumb terminal turn colour off on a terminal."""
    primary_fd, terminal_fd = os.openpty()
    try:
        assert wants_colour(terminal_fd, {"TERM": "xterm"})
        assert not wants_colour(terminal_fd, {"TERM": "xterm", **environment})
    finally:
        os.close(primary_fd)
        os.close(terminal_fd)


def test_a_pipe_has_no_colour(pipe: tuple[int, int]) -> None:
    """What is not a terminal is not coloured."""
    assert not wants_colour(pipe[1], {"TERM": "xterm"})


def test_times_are_utc() -> None:
    """Times are RFC 3339 in UTC to the millisecond."""
    assert format_rfc3339(1.2345) == "1970-01-01T00:00:01.234Z"
