"""Find a small part of a failing sequence that still fails.

Theory of operation: delta debugging. Chunks are taken out, half of the sequence first, then smaller
and smaller ones; whatever still fails without a chunk goes on without it. When single items have
been tried and nothing can go any more, it passes without any one of the items that are left.
Source: A. Zeller, R. Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def shrink(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> list[T]:
    """Return a part of ``items``, in their order, that fails, but not without any one of its items.

    ``items`` themselves must fail.
    """
    kept = list(items)
    size = max(1, len(kept) // 2)
    while True:
        shorter = _without_one_chunk(kept, size, fails)
        if shorter is not None:
            kept = shorter
            size = max(1, min(size, len(kept) // 2))
        elif size > 1:
            size //= 2
        else:
            return kept


def _without_one_chunk(
    items: list[T], size: int, fails: Callable[[Sequence[T]], bool]
) -> list[T] | None:
    # from the end: what came last was most likely needed for nothing
    for start in reversed(range(0, len(items), size)):
        rest = items[:start] + items[start + size :]
        if fails(rest):
            return rest
    return None
