"""Look for differences among many seeds at once, on as many stages as there are workers.

Bare transcripts are made once for all modes that ask the same of the same program.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from tests.differential.runs import Difference, Mode, Runs, Transcripts
from tests.differential.stage import Stage
from tests.support.programs import Programs

WORKERS_MAX = 4  # sequences wait now and then, so more than there are processors
SEEDS_A_WORKER = 40  # with fewer, starting it costs more than its share
SHRUNK_MAX = 3  # differences of one mode that are shrunk; the others are told as they are


@dataclass(frozen=True, slots=True)
class _Share:
    """What one worker does; ``bare``: what bare runs have told, by mode and by sequences."""

    runs: Runs
    seeds: Sequence[int]
    bare: dict[tuple[Mode, tuple[tuple[str, ...], ...]], Transcripts]

    def compare(self, mode: Mode) -> list[Difference]:
        """Perform all in this mode, and compare."""
        sequences = {seed: mode.make(seed) for seed in self.seeds}
        key = mode.bare, tuple(sequences.values())
        if key not in self.bare:
            self.bare[key] = self.runs.perform(mode.bare, sequences)
        return self.runs.differences(mode, sequences, self.bare[key])

    def perform(self, mode: Mode) -> Transcripts:
        """Perform all in this mode."""
        return self.runs.perform(mode, {seed: mode.make(seed) for seed in self.seeds})


class Search:
    """Seeds to compare; lasts until the block's end."""

    def __init__(self, programs: Programs, seeds: Sequence[int]) -> None:
        """Draw the sequences of these seeds, and open a stage for each worker."""
        n_workers = min(WORKERS_MAX, 1 + len(seeds) // SEEDS_A_WORKER)
        self._stack = ExitStack()
        self._shares = [
            _Share(
                Runs(programs, self._stack.enter_context(Stage())),
                seeds[number::n_workers],
                {},
            )
            for number in range(n_workers)
        ]
        self._pool = self._stack.enter_context(ThreadPoolExecutor(n_workers))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._stack.close()

    def perform(self, mode: Mode) -> Transcripts:
        """Return what each seed's sequence leads to in a mode."""
        self._shares[0].runs.programs("differ", mode.build)
        parts = self._pool.map(lambda share: share.perform(mode), self._shares)
        return {seed: lines for part in parts for seed, lines in part.items()}

    def differences(self, mode: Mode) -> list[Difference]:
        """Return what differs in a mode, the first few of them shrunk."""

        def look(share: _Share) -> list[tuple[Runs, Difference]]:
            return [(share.runs, difference) for difference in share.compare(mode)]

        self._shares[0].runs.programs("differ", mode.build)  # built before there are several
        found = [one for part in self._pool.map(look, self._shares) for one in part]
        return [
            runs.shrunk(mode, difference) if at < SHRUNK_MAX else difference
            for at, (runs, difference) in enumerate(found)
        ]
