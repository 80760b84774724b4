"""Run sequences bare and under meshfd, compare, and shrink what differs.

Theory of operation: a mode is a set of options of ``meshfd exec`` (`BARE`: no meshfd). One start of
the program performs many sequences, so that starting costs little; each mode performs the same ones
against the same places. In modes that redirect, operations name virtual addresses, and routes lead
from there to the places that the bare run names: peers are the same, nothing has to be translated.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tests.differential.daemons import NEEDED, make_daemon
from tests.differential.masks import asked, masked
from tests.differential.sequences import make, parse_transcripts, written
from tests.differential.shrink import shrink
from tests.differential.stage import Stage
from tests.support.command import COMMAND
from tests.support.programs import Programs

TIMEOUT_S = 300  # of one start: generous, as reaching it is a failure

# Nobody binds this port, but once there is one to hand over every bind() is looked at.
SPARE = "127.0.0.1:{spare}"

ELSEWHERE = (sys.executable, "-m", "tests.differential.elsewhere")
ASKING = (sys.executable, "-m", "tests.differential.asking")


@dataclass(frozen=True, slots=True)
class Mode:
    """Options of ``meshfd exec``, and how the places are reached.

    ``redirected``: all by routes; ``denies``: by routes that deny where a bare run fails;
    ``decided``: by asking (`tests.differential.asking`). ``build``: a variant of the program, which
    the bare run has, too; ``direct``: one without socketcall(2). ``daemons``: meshfd hands a
    listening socket over in each sequence. ``standins``: unix sockets serve where they can.
    ``elsewhere``: in another network namespace than the places (`tests.differential.elsewhere`).
    """

    name: str
    options: tuple[str, ...] = ()
    redirected: bool = False
    denies: bool = False
    decided: bool = False
    build: str = ""
    direct: bool = False
    daemons: bool = False
    standins: bool = False
    elsewhere: bool = False
    under_meshfd: bool = True

    @property
    def traits(self) -> frozenset[str]:
        """What masks.py goes by."""
        return frozenset((*self.options, self.build, *self._words)) - {""}

    @property
    def _words(self) -> list[str]:
        return (
            ["direct"] * self.direct
            + ["ask"] * self.decided
            + ["deny"] * self.denies
            + ["standin"] * self.standins
            + ["handed"] * self.daemons
            + ["elsewhere"] * self.elsewhere
        )

    @property
    def bare(self) -> Mode:
        """What it is compared with."""
        return replace(BARE, build=self.build, direct=self.direct, daemons=self.daemons)

    def make(self, seed: int) -> tuple[str, ...]:
        """Return the sequence of a seed, as it can be compared."""
        return asked(make_daemon(seed) if self.daemons else make(seed), self.traits)


BARE = Mode("bare", under_meshfd=False)
_UNDER = (
    Mode("pass"),
    Mode("strict", ("--strict",)),
    Mode("create", ("--track", "create")),
    Mode("strict-create", ("--strict", "--track", "create")),
    Mode("redirect", redirected=True),
    Mode("redirect-strict", ("--strict",), redirected=True),
    Mode("redirect-create", ("--track", "create"), redirected=True),
    Mode(
        "redirect-all",
        ("--strict", "--track", "create", "--listen", SPARE),
        redirected=True,
        denies=True,
    ),
    Mode("transparent", ("--transparent",), redirected=True, denies=True),
    Mode("transparent-strict", ("--transparent", "--strict"), redirected=True),
    Mode("ask", redirected=True, denies=True, decided=True),
    Mode("ask-strict", ("--strict",), redirected=True, denies=True, decided=True),
    Mode("standin", ("--transparent",), redirected=True, standins=True),
    Mode("standin-create", ("--transparent", "--track", "create"), redirected=True, standins=True),
    Mode("elsewhere", redirected=True, elsewhere=True),
    Mode("elsewhere-strict", ("--strict", "--track", "create"), redirected=True, elsewhere=True),
    Mode("handed", daemons=True),
    Mode("handed-all", ("--strict", "--track", "create"), redirected=True, daemons=True),
    Mode("i386", build="i386"),
    Mode("i386-redirect", redirected=True, build="i386"),
    Mode("i386-transparent", ("--transparent",), redirected=True, build="i386"),
    Mode("i386-strict", ("--strict",), redirected=True, build="i386"),
    Mode("direct", redirected=True, build="i386", direct=True),
    Mode(
        "direct-strict",
        ("--strict", "--transparent"),
        redirected=True,
        build="i386",
        direct=True,
    ),
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
    one, other = masked(bare, mode.traits), masked(under, mode.traits)
    return None if one == other else Difference(mode.name, seed, tuple(sequence), one, other)


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of the built program against one stage."""

    programs: Programs
    stage: Stage

    def _command(self, mode: Mode, file: str) -> list[str]:
        words = self.stage.words(redirected=mode.redirected)
        if mode.redirected and "--transparent" in mode.options:
            words.insert(0, "told-back")
        if mode.decided or mode.elsewhere:
            words.insert(0, "handed")
        if mode.direct:
            words.insert(0, "direct")
        program = [str(self.programs("differ", mode.build)), file, *words]
        if not mode.under_meshfd:
            return program
        options = [word.format(spare=self.stage.spare_port) for word in mode.options]
        routes = (
            self.stage.routes(denies=mode.denies, standins=mode.standins) if mode.redirected else []
        )
        if mode.decided or mode.elsewhere:
            fds = ",".join(map(str, self.stage.fds))
            runner = ELSEWHERE if mode.elsewhere else ASKING
            return [*runner, *options, fds, *routes, "--", *program]
        listening = self.stage.listening if mode.daemons else []
        options += [word for route in routes for word in ("--route", route)]
        options += [word for address in listening for word in ("--listen", address)]
        return [*COMMAND, "exec", *options, "--", *program]

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

    def differences(self, mode: Mode, sequences: Sequences, bare: Transcripts) -> list[Difference]:
        """Perform sequences in a mode, and compare with what bare runs have told."""
        under = self.perform(mode, sequences)
        found = (
            compare(mode, seed, sequence, bare[seed], under[seed])
            for seed, sequence in sequences.items()
        )
        return [difference for difference in found if difference is not None]

    def check(self, mode: Mode, seed: int, sequence: Sequence[str]) -> Difference | None:
        """Perform one sequence bare and in a mode, and compare."""
        bare, under = (self.perform(one, {seed: sequence})[seed] for one in (mode.bare, mode))
        return compare(mode, seed, sequence, bare, under)

    def shrunk(self, mode: Mode, difference: Difference) -> Difference:
        """Return the smallest part that differs; the whole, if it does not differ again."""
        smallest = difference

        def differs(sequence: Sequence[str]) -> bool:
            nonlocal smallest
            if mode.daemons and not set(NEEDED) <= set(sequence):
                return False
            found = self.check(mode, difference.seed, sequence)
            if found is not None:
                smallest = found
            return found is not None

        if differs(difference.sequence):
            shrink(difference.sequence, differs)
        return smallest
