"""What probes are asked, and in which order.

Theory of operation: all subjects of a part run at once, and each is asked for the same in turn, so
that what is compared lies within a fraction of a second; the others sleep meanwhile. The order is
another for each question, or one subject would always be measured in the wake of the same other.

What a measurement takes of the CPU is that of all processes that the subject consists of: the
program and what it runs under, and a proxy in between; not the server.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench.errors import BenchError
from tests.bench.metrics import Round, Sample
from tests.bench.part import Measure, shuffled
from tests.bench.programs import Probe

READY: Final = "ready"  # a probe's answer says that all of its start is over
WARM_UP: Final = 16  # probe.h
_CPU_CLOCK: Final = 2  # CPUCLOCK_SCHED, include/linux/posix-timers.h


def cpu_ns(pids: Sequence[int]) -> int:
    """What these processes have had of the CPU, ended threads included.

    Source: clock_gettime(2), include/linux/posix-timers.h (make_process_cpuclock).

    Raises:
        BenchError: one has ended.

    """
    try:
        return sum(time.clock_gettime_ns((~pid << 3) | _CPU_CLOCK) for pid in pids)
    except OSError as error:
        raise BenchError(f"one of the processes {list(pids)} has ended") from error


@dataclass(frozen=True, slots=True)
class Question:
    """Asked of a probe: its words, and under which names the answer's figures go.

    ``n_with_cpu``: of how many things the CPU is to be told, each, as ``cpu_ns``; 0: it is not.
    ``times``: how often it is asked in a round; what counts is the median.
    """

    words: str
    keys: Mapping[str, str]
    n_with_cpu: int = 0
    times: int = 1

    def ask(self, probe: Probe) -> Sample:
        """Ask it."""
        pids = probe.pids() if self.n_with_cpu else []
        before = cpu_ns(pids)
        answer = probe.ask(self.words)
        sample = {key: answer[name] for name, key in self.keys.items()}
        if self.n_with_cpu:
            sample["cpu_ns"] = (cpu_ns(pids) - before) / self.n_with_cpu
        return sample


@dataclass(frozen=True, slots=True)
class Subject:
    """A probe to be: how it is started, and what it is asked.

    ``others``: processes that work for it besides those it is started under; ``first``: asked
    before, for the sake of what it does.
    """

    command: Sequence[str]
    questions: Sequence[Question]
    others: Sequence[int] = ()
    first: Sequence[str] = ()


def ask_all(subjects: Mapping[str, Subject]) -> Measure:
    """Start all, ask each of them the same in turn, and end all; every round anew."""

    def measure(number: int) -> Round:
        with contextlib.ExitStack() as stack:
            probes = {}
            for name, subject in subjects.items():
                probes[name] = stack.enter_context(Probe(subject.command, subject.others))
            for name, probe in probes.items():
                for words in (READY, *subjects[name].first):
                    probe.ask(words)
            return _ask(subjects, probes, number)

    return measure


def _ask(subjects: Mapping[str, Subject], probes: Mapping[str, Probe], number: int) -> Round:
    answers: dict[str, dict[str, list[float]]] = {name: {} for name in subjects}
    for index in range(max(len(subject.questions) for subject in subjects.values())):
        asked = {
            name: subject.questions[index]
            for name, subject in subjects.items()
            if index < len(subject.questions)
        }
        for time_no in range(max(question.times for question in asked.values())):
            for name in shuffled(list(asked), number, index, time_no):
                for key, figure in asked[name].ask(probes[name]).items():
                    answers[name].setdefault(key, []).append(figure)
    return {
        name: {key: statistics.median(figures) for key, figures in of_one.items()}
        for name, of_one in answers.items()
    }
