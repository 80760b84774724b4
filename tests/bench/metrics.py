"""What is measured, and what becomes of the samples: medians, quartiles, ratios.

A ratio is always "how many times slower": for a time the quotient of two times, for a rate the
inverse quotient of two rates, so that 1.00 means equal and more means worse in every row. Ratios
are taken within a round and summarised afterwards, because what disturbs a round disturbs all of
its members alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Sample = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table: ``key`` is a sample's, ``divisor`` turns its unit into ``unit``."""

    key: str
    label: str
    unit: str
    divisor: float
    is_rate: bool

    def slowdown(self, of: Sample, over: Sample) -> float:
        """How many times slower ``of`` is than ``over``."""
        return over[self.key] / of[self.key] if self.is_rate else of[self.key] / over[self.key]


METRICS = (
    Metric("socket_p50_ns", "socket, p50", "us", 1e3, is_rate=False),
    Metric("connect_p50_ns", "socket + connect, p50", "us", 1e3, is_rate=False),
    Metric("connect_p99_ns", "socket + connect, p99", "us", 1e3, is_rate=False),
    Metric("connect_1000_p50_ns", "the same, with 1,000 fds", "us", 1e3, is_rate=False),
    Metric("connect_19000_p50_ns", "the same, with 19,000 fds", "us", 1e3, is_rate=False),
    Metric("fdinfo_scan_ns", "scan of 19,000 fdinfo files", "us", 1e3, is_rate=False),
    Metric("sendto_p50_ns", "sendto with an address, p50", "us", 1e3, is_rate=False),
    Metric("getpeername_p50_ns", "getpeername, p50", "us", 1e3, is_rate=False),
    Metric("connects_per_s_1", "connects, 1 thread", "k/s", 1e3, is_rate=True),
    Metric("connects_per_s_8", "connects, 8 threads", "k/s", 1e3, is_rate=True),
    Metric("getppids_per_s", "getppid, not trapped", "k/s", 1e3, is_rate=True),
    Metric("round_trip_p50_ns", "round trip of 64 bytes, p50", "us", 1e3, is_rate=False),
    Metric("stream_mib_per_s", "stream", "MiB/s", 1, is_rate=True),
)
"""What probe.c measures."""

LIFE_METRICS = (
    Metric("start_ns", "start, to the program's first word", "ms", 1e6, is_rate=False),
    Metric("open_each_ns", "opening each socket, of 1,000", "us", 1e3, is_rate=False),
    Metric("stop_ns", "stop, to nothing left", "ms", 1e6, is_rate=False),
)
"""What tests/bench/lives.py measures."""


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
