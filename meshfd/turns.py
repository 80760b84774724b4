"""Whose turn it is among the endpoints of an upstream, for verdicts that Python gives.

Theory of operation: a route table has its turns in the agent (native/routes_compile.c); a verdict
is a list that the agent tries from its beginning. So the list is made here: first the endpoint
whose turn it is, by balance and weight, and then those after it, to be tried if it refuses at once.
Round robin is smooth and weighted, as in the table: each turn all gain their weight, the richest
serves and pays.

Limits: equal upstreams are one; UPSTREAMS_MAX of them are remembered, the oldest begins anew. Pure
but for its state and the dice.
"""

from __future__ import annotations

import random
from typing import Final

from meshfd.model import Balance, Endpoint, Upstream

UPSTREAMS_MAX: Final = 256


class Turns:
    """The turns of one program's upstreams."""

    def __init__(self) -> None:
        self._credits: dict[Upstream, list[int]] = {}

    def take(self, upstream: Upstream, n_max: int) -> tuple[Endpoint, ...]:
        """At most ``n_max`` endpoints in the order to try them; none without a weight."""
        able = [endpoint for endpoint in upstream.endpoints if endpoint.weight > 0]
        if not able:
            return ()
        weights = [endpoint.weight for endpoint in able]
        if upstream.balance is Balance.RANDOM:
            (first,) = random.choices(range(len(able)), weights)
        else:
            first = self._richest(upstream, weights)
        return tuple((able[first:] + able[:first])[:n_max])

    def _richest(self, upstream: Upstream, weights: list[int]) -> int:
        if upstream not in self._credits and len(self._credits) >= UPSTREAMS_MAX:
            del self._credits[next(iter(self._credits))]
        owned = self._credits.setdefault(upstream, [0] * len(weights))
        for index, weight in enumerate(weights):
            owned[index] += weight
        first = max(range(len(owned)), key=owned.__getitem__)
        owned[first] -= sum(weights)
        return first
