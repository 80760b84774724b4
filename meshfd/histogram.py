"""Percentiles from a log2 histogram, as `meshfd.events.Statistics` carries them.

Bucket b counts times of 2**b to 2**(b+1)-1 nanoseconds; the last also holds all that are longer.
Inside a bucket the times are taken to be spread evenly, so a percentile is exact to within its
bucket: good for telling 10 microseconds from 20, not 10 from 11.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def percentile_ns(buckets: Sequence[int], percent: float) -> float | None:
    """The time that ``percent`` of the counted calls took at most; None when none was counted."""
    n_calls = sum(buckets)
    if n_calls == 0:
        return None
    rank = n_calls * percent / 100
    seen = 0
    for bucket, count in enumerate(buckets):
        if count and seen + count >= rank:
            share = min(max((rank - seen) / count, 0.0), 1.0)
            return float((1 << bucket) * (1 + share))
        seen += count
    return float(1 << len(buckets))
