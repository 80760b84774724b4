"""Run sequences bare and under meshfd, compare, and shrink what differs.

Theory of operation: a mode is a set of options of ``meshfd exec`` (`BARE`: no meshfd). One start of
the program performs many sequences, so that starting costs little; each mode performs the same ones
against the same places. In modes that redirect, operations name virtual addresses, and routes lead
from there to the places that the bare run names: peers are the same, nothing has to be translated.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.differential.masks import masked
from tests.differential.sequences import parse_transcripts, written
from tests.differential.shrink import shrink
from tests.differential.stage import Stage
from tests.support.command import COMMAND

TIMEOUT_S = 300  # of one start: generous, as reaching it is a failure

# Nobody binds this port, but once there is one to hand over every bind() is looked at.
SPARE = "127.0.0.1:{spare}"


@dataclass(frozen=True, slots=True)
class Mode:
    """Options of ``meshfd exec``, and whether all places are reached by routes."""

    name: str
    options: tuple[str, ...] = ()
    redirected: bool = False
    under_meshfd: bool = True


BARE = Mode("bare", under_meshfd=False)
_UNDER = (
    Mode("pass"),
    Mode("strict", ("--strict",)),
    Mode("create", ("--track", "create")),
    Mode("strict-create", ("--strict", "--track", "create")),
    Mode("redirect", redirected=True),
    Mode("redirect-strict", ("--strict",), redirected=True),
    Mode("redirect-create", ("--track", "create"), redirected=True),
    Mode("redirect-all", ("--strict", "--track", "create", "--listen", SPARE), redirected=True),
)

# The control comes first: bare against bare. What differs there is the sequences' own fault.
MODES: Mapping[str, Mode] = {mode.name: mode for mode in (BARE, *_UNDER)}

Sequences = Mapping[int, Sequence[str]]  # by their seeds
Transcripts = Mapping[int, list[str]]


class RunError(Exception):
    """The program, or meshfd, ended as it should not; the text says how."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A sequence, and what each of two runs said."""

    mode: str
    seed: int
    sequence: tuple[str, ...]
    bare: list[str]
    under: list[str]

    def __str__(self) -> str:
        words = [f"{self.mode} differs from bare, seed {self.seed}; the sequence:"]
        words += [f"    {line}" for line in self.sequence]
        words += ["bare:", *(f"    {line}" for line in self.bare)]
        words += [f"{self.mode}:"]
        for at, line in enumerate(self.under):
            same = at < len(self.bare) and self.bare[at] == line
            words.append(f"{'   ' if same else '>>>'} {line}")
        return "\n".join(words)


def compare(
    mode: Mode, seed: int, sequence: Sequence[str], bare: list[str], under: list[str]
) -> Difference | None:
    """Return how two transcripts differ by more than what is documented; None: they do not."""
    one, other = masked(bare, mode.options), masked(under, mode.options)
    return None if one == other else Difference(mode.name, seed, tuple(sequence), one, other)


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of the built program against one stage."""

    program: Path
    stage: Stage

    def _command(self, mode: Mode, file: str) -> list[str]:
        words = self.stage.words(redirected=mode.redirected)
        program = [str(self.program), file, *words]
        if not mode.under_meshfd:
            return program
        options = [word.format(spare=self.stage.spare_port) for word in mode.options]
        routes = self.stage.routes if mode.redirected else []
        return [*COMMAND, "exec", *options, *routes, "--", *program]

    def perform(self, mode: Mode, sequences: Sequences) -> Transcripts:
        """Return what each sequence led to."""
        with tempfile.NamedTemporaryFile("w", prefix="meshfd-differ-") as file:
            file.write(written(sequences))
            file.flush()
            done = subprocess.run(
                self._command(mode, file.name),
                pass_fds=list(self.stage.fds),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=TIMEOUT_S,
            )
        if done.returncode != 0:
            raise RunError(f"{mode.name}: exit status {done.returncode}: {done.stderr}")
        found = parse_transcripts(done.stdout)
        return {seed: found.get(seed, []) for seed in sequences}

    def check(self, mode: Mode, seed: int, sequence: Sequence[str]) -> Difference | None:
        """Perform one sequence bare and in a mode, and compare."""
        bare, under = (self.perform(one, {seed: sequence})[seed] for one in (BARE, mode))
        return compare(mode, seed, sequence, bare, under)

    def shrunk(self, mode: Mode, difference: Difference) -> Difference:
        """Return the smallest part that differs; the whole, if it does not differ again."""
        smallest = difference

        def differs(sequence: Sequence[str]) -> bool:
            nonlocal smallest
            found = self.check(mode, difference.seed, sequence)
            if found is not None:
                smallest = found
            return found is not None

        if differs(difference.sequence):
            shrink(difference.sequence, differs)
        return smallest
