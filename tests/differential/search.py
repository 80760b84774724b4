"""Look for differences among many seeds at once, on as many stages as there are workers.

The bare transcripts are made once, and every mode is compared with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from tests.differential.runs import BARE, Difference, Mode, Runs, Sequences, Transcripts, compare
from tests.differential.sequences import make
from tests.differential.stage import Stage

N_WORKERS = 4  # sequences wait now and then, so more than there are processors
SHRUNK_MAX = 3  # differences of one mode that are shrunk; the others are told as they are

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Share:
    """What one worker does."""

    runs: Runs
    sequences: Sequences
    bare: Transcripts


class Search:
    """Seeds, performed bare; lasts until the block's end."""

    def __init__(self, program: Path, seeds: Sequence[int]) -> None:
        """Perform the sequences of these seeds bare."""
        self._stack = ExitStack()
        stages = [self._stack.enter_context(Stage()) for _ in range(N_WORKERS)]
        self._pool = self._stack.enter_context(ThreadPoolExecutor(N_WORKERS))

        def share(number: int) -> _Share:
            runs = Runs(program, stages[number])
            sequences = {seed: make(seed) for seed in seeds[number::N_WORKERS]}
            return _Share(runs, sequences, runs.perform(BARE, sequences))

        try:
            self._shares = list(self._pool.map(share, range(N_WORKERS)))
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._stack.close()

    def _on_all(self, work: Callable[[_Share], T]) -> list[T]:
        return list(self._pool.map(work, self._shares))

    def differences(self, mode: Mode) -> list[Difference]:
        """Return what differs in a mode, the first few of them shrunk."""

        def look(share: _Share) -> list[tuple[Runs, Difference]]:
            under = share.runs.perform(mode, share.sequences)
            found = (
                compare(mode, seed, sequence, share.bare[seed], under[seed])
                for seed, sequence in share.sequences.items()
            )
            return [(share.runs, difference) for difference in found if difference is not None]

        found = [one for part in self._on_all(look) for one in part]
        return [
            runs.shrunk(mode, difference) if at < SHRUNK_MAX else difference
            for at, (runs, difference) in enumerate(found)
        ]
