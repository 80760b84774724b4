"""What is measured, and what becomes of the samples: medians, quartiles, ratios.

A ratio is always "how many times worse": for a time or a size the quotient, for a rate the inverse
quotient, so that 1.00 means equal and more means worse in every column. Ratios are taken within a
round and summarised afterwards, because what disturbs a round disturbs all of its members alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Sample = Mapping[str, float]
Round = Mapping[str, Sample]  # by subject


@dataclass(frozen=True, slots=True)
class Metric:
    """One column: ``key`` is a sample's, ``divisor`` turns its unit into ``unit``."""

    key: str
    label: str
    unit: str
    divisor: float = 1
    is_rate: bool = False

    def times_worse(self, of: Sample, over: Sample) -> float:
        """How many times worse ``of`` is than ``over``."""
        return over[self.key] / of[self.key] if self.is_rate else of[self.key] / over[self.key]


@dataclass(frozen=True, slots=True)
class Summary:
    """The middle of some values, and the half of them that lies around it."""

    median: float
    lower_quartile: float
    upper_quartile: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Summarise at least one value; a single one is its own quartiles."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, lower, upper)


@dataclass(frozen=True, slots=True)
class Pair:
    """What is compared with what: two subjects."""

    of: str
    over: str

    def __str__(self) -> str:
        """As the tables head it."""
        return f"{self.of} / {self.over}"
