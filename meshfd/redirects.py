"""Where the connections of one service went, from what its agent has counted.

An agent counts by route and by endpoint, in memory that we can read at any time, so that a busy
program costs us nothing. What is known of a connection is therefore which routes lead to its
endpoint, not which of their addresses it asked for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from meshfd.model import Deny, Endpoint, Redirect, Route, Upstream
from meshfd.routes import format_destination


@dataclass(frozen=True, slots=True)
class RedirectCount:
    """``count`` connections to ``asked`` (destinations, separated by commas) went to ``given``.

    ``given`` is None for those that were denied.
    """

    asked: str
    given: str | None
    count: int


def count_redirects(
    routes: Counter[Route], endpoints: Counter[tuple[Upstream, Endpoint]]
) -> list[RedirectCount]:
    """Rows for what has been counted at all; most frequent first, in a stable order."""
    asked: dict[Upstream, list[str]] = {}
    rows: list[RedirectCount] = []
    for route, count in routes.items():
        destination = format_destination(route.destination)
        if isinstance(route.verdict, Redirect):
            asked.setdefault(route.verdict.upstream, []).append(destination)
        elif isinstance(route.verdict, Deny) and count > 0:
            rows.append(RedirectCount(destination, None, count))
    for (upstream, endpoint), count in endpoints.items():
        if count > 0:
            destinations = ", ".join(asked.get(upstream, ()))
            rows.append(RedirectCount(destinations, str(endpoint.address), count))
    return sorted(rows, key=lambda row: (-row.count, row.asked, row.given or ""))
