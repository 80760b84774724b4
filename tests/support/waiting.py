"""Wait for an event, or fail with what was seen instead.

Nothing in the tests sleeps to let something happen first. Where the kernel offers nothing to wait
on, a condition is looked at again and again until it holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

DEADLINE_S = 30.0  # generous: reaching it is a failure, whatever the machine's load
PAUSE_S = 0.005  # between two looks

T = TypeVar("T")


class Deadline:
    """Time that is left of a wait."""

    def __init__(self, seconds: float = DEADLINE_S) -> None:
        """Start now."""
        self._end = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self._end - time.monotonic())


def wait_until(look: Callable[[], T | None], what: str, seconds: float = DEADLINE_S) -> T:
    """Return the first true result of ``look``; fail saying ``what`` did not come, and the last."""
    deadline = Deadline(seconds)
    while True:
        seen = look()
        if seen:
            return seen
        if not deadline.left_s:
            pytest.fail(f"{what} did not come within {seconds:.0f} s; last seen: {seen!r}")
        time.sleep(PAUSE_S)
