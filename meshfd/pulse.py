"""Waiting for a condition on state that tasks share.

Theory of operation: whoever changes the state calls `Pulse.beat`; whoever waits names a predicate,
which is tried at once and then after each beat. All of it runs in one trio thread, so between a
predicate that holds and the waiter's next step no other task can come in, unless the waiter itself
awaits. A change that is undone before the waiter runs is missed: count what must not be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


class Pulse:
    """A place to wait for changes."""

    def __init__(self) -> None:
        self._beat = trio.Event()

    def beat(self) -> None:
        """Tell all waiters that something changed."""
        self._beat.set()
        self._beat = trio.Event()

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Wait until the predicate holds. Always a checkpoint; cancellation leaves nothing."""
        await trio.lowlevel.checkpoint()
        while not predicate():
            await self._beat.wait()

    async def until_within(self, timeout_s: float, predicate: Callable[[], bool]) -> bool:
        """Wait as `until` does, but not for longer than this; whether the predicate held."""
        with trio.move_on_after(timeout_s):
            await self.until(predicate)
        return predicate()
