"""What README documents as different under meshfd, and so is not compared. The only such place.

Each mask has the reason beside it. It is applied to both transcripts of a comparison; what no mask
touches must be equal to the letter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

# 100 is a nested epoll instance, which is ready for such an event too.
EVENT_OF_CLOSED = re.compile(r" (?:\d:\S+ gone|100:\S+)")
LOOK = re.compile(r"^(\d+ look \d): (\d+)((?: .*)?)$")


def _without_events_of_closed(line: str) -> str:
    found = LOOK.match(line)
    if found is None:
        return line
    rest, n_gone = EVENT_OF_CLOSED.subn("", found[3])
    return f"{found[1]}: {int(found[2]) - n_gone}{rest}"


@dataclass(frozen=True, slots=True)
class Mask:
    """A change to a line that takes out what may differ; ``option``: only in modes that have it."""

    reason: str
    apply: Callable[[str], str]
    option: str = ""


MASKS: tuple[Mask, ...] = (
    Mask(
        "Theory, Leases: for up to 100 ms the agent holds a duplicate of a new socket, and as long "
        "as anybody holds a file that the program has closed, epoll reports it",
        _without_events_of_closed,
        option="create",
    ),
)


def masked(lines: Iterable[str], options: Iterable[str] = ()) -> list[str]:
    """Return lines without what is documented as different in a mode with these options."""
    masks = [mask for mask in MASKS if not mask.option or mask.option in options]
    result = []
    for line in lines:
        kept = line
        for mask in masks:
            kept = mask.apply(kept)
        result.append(kept)
    return result
