"""What a part of the benchmark is, and how its rounds are run.

Theory of operation: a part measures several subjects against each other. Each round measures every
subject; the order changes from round to round, so that a slow stretch of the machine falls on all
of them and none always goes first, or after the same other. What a subject needs and the machine
lacks leaves that subject out, by name and with the reason; a subject that is there and fails ends
the benchmark.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tests.bench.errors import MissingError
from tests.bench.metrics import Metric, Pair, Round, Sample, Summary

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
class Result:
    """What came out of a part: every sample, and who is missing why."""

    part: Part
    rounds: Sequence[Round]
    missing: Mapping[str, str]

    @property
    def subjects(self) -> list[str]:
        """Who was measured."""
        return list(self.rounds[0])

    def value(self, subject: str, metric: Metric) -> Summary | None:
        """The subject's own figures, in the metric's unit; None where it has no such."""
        if metric.key not in self.rounds[0][subject]:
            return None
        return Summary.of([one[subject][metric.key] / metric.divisor for one in self.rounds])

    def ratio(self, pair: Pair, metric: Metric) -> Summary | None:
        """How many times worse the first is than the second; None where one has no such figure.

        Nor is anything a number of times worse than nothing at all.
        """
        for one in self.rounds:
            if not all(one.get(subject, {}).get(metric.key) for subject in (pair.of, pair.over)):
                return None
        return Summary.of([metric.times_worse(one[pair.of], one[pair.over]) for one in self.rounds])


@dataclass(frozen=True, slots=True)
class Part:
    """``open`` sets a part up, gives what measures one round, and clears everything away.

    ``plotted``: the metrics that the plot shows, by key.
    """

    name: str
    title: str
    metrics: Sequence[Metric]
    pairs: Sequence[Pair]
    n_rounds: int
    open: Callable[[Stage], AbstractContextManager[Measure]]
    plotted: Sequence[str] = ()

    def run(self, stage: Stage, n_rounds: int | None) -> Result:
        """Measure it."""
        n_rounds = n_rounds or (1 if stage.is_quick else self.n_rounds)
        rounds = []
        with self.open(stage) as measure:
            for number in range(n_rounds):
                progress = f"\r{self.name}: {number + 1} of {n_rounds} "
                print(progress, end="", file=sys.stderr, flush=True)
                rounds.append(measure(number))
        print(file=sys.stderr)
        return Result(self, rounds, dict(stage.missing))


def shuffled(subjects: Sequence[T], *numbers: int) -> list[T]:
    """The subjects in an order that follows from the numbers, of the round and what is in it."""
    order = list(subjects)
    random.Random(repr(numbers)).shuffle(order)
    return order


def each_in_turn(subjects: Mapping[str, Callable[[], Sample]]) -> Measure:
    """Measure one subject after the other."""

    def measure(number: int) -> Round:
        samples = {name: subjects[name]() for name in shuffled(list(subjects), number)}
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
