"""What a part of the benchmark is, and how its rounds are run.

Theory of operation: a part measures several subjects against each other. Each round measures every
subject once; the order rotates from round to round, so that a slow stretch of the machine falls on
all of them and none always goes first. What a subject needs and the machine lacks leaves that
subject out, by name and with the reason; a subject that is there and fails ends the benchmark.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.bench.errors import MissingError
from tests.bench.metrics import Metric, Pair, Result, Round, Sample

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a part is measured, and how much of it.

    ``directory``: compiled programs (tests/bench/programs.py) and files of our own; ``missing``:
    which subjects are left out, and why.
    """

    directory: Path
    is_quick: bool
    missing: dict[str, str] = field(default_factory=dict)

    def effort(self, full: int, quick: int) -> int:
        """How much to do."""
        return quick if self.is_quick else full

    @contextmanager
    def optional(self, subject: str) -> Iterator[None]:
        """Leave a subject out when the block finds that something is missing."""
        try:
            yield
        except MissingError as why:
            self.missing[subject] = str(why)


Measure = Callable[[int], Round]  # of the round's number


@dataclass(frozen=True, slots=True)
class Part:
    """``open`` sets a part up, gives what measures one round, and clears everything away."""

    name: str
    title: str
    metrics: Sequence[Metric]
    pairs: Sequence[Pair]
    n_rounds: int
    open: Callable[[Stage], AbstractContextManager[Measure]]

    def run(self, stage: Stage, n_rounds: int | None) -> Result:
        """Measure it."""
        n_rounds = n_rounds or (1 if stage.is_quick else self.n_rounds)
        rounds = []
        with self.open(stage) as measure:
            for number in range(n_rounds):
                print(f"\r{self.name}: {number + 1} of {n_rounds} ", end="", file=sys.stderr)
                rounds.append(measure(number))
        print(file=sys.stderr)
        return Result(self.name, self.title, self.metrics, self.pairs, rounds, dict(stage.missing))


def rotated(subjects: Sequence[T], number: int) -> list[T]:
    """The subjects, another one first in each round."""
    first = number % len(subjects)
    return [*subjects[first:], *subjects[:first]]


def each_in_turn(subjects: Mapping[str, Callable[[], Sample]]) -> Measure:
    """Measure one subject after the other."""

    def measure(number: int) -> Round:
        samples = {name: subjects[name]() for name in rotated(list(subjects), number)}
        return {name: samples[name] for name in subjects}

    return measure


def together(*measures: Measure) -> Measure:
    """Make one measure of several, which come one after the other."""

    def measure(number: int) -> Round:
        samples: dict[str, Sample] = {}
        for one in measures:
            samples.update(one(number))
        return samples

    return measure
