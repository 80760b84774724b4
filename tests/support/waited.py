"""A thread that sleeps on the socket which another thread connects (tests/support/c/standin.c)."""

from __future__ import annotations

from typing import Final

import pytest

from tests.support.processes import Program, sleeps_in_select
from tests.support.waiting import wait_until

# The program's modes, and what it says after connect() was refused.
_CASES: Final = [
    (
        "waited",
        [
            "TCP_NODELAY: 1",
            "SO_KEEPALIVE: 1",
            "flags: status 02, descriptor 1",
            "connect: 0",
            'greeting: "hello"',
        ],
    ),
    ("waited-dup", ["the same: 1"]),
]
each_way = pytest.mark.parametrize(("mode", "expected"), _CASES)


def see_it_refused(running: Program, expected: list[str]) -> None:
    """See that connect() is refused, because the thread would never wake, and that it is said."""
    assert running.line() == "select"
    wait_until(lambda: sleeps_in_select(running.pid, "standin"), "a thread in select()")
    running.tell("go")
    done = running.finish()
    assert done.lines == ["connect: ECONNREFUSED", *expected]
    assert "a thread waits for the socket that was to be replaced" in done.err
