"""Run the measuring program in every mode, round after round.

Theory of operation: a mode is a way to start probe.c.

    bare            as it is
    filter          under the smallest seccomp filter there is, which lets everything through
    floor           under a C loop that traps connect(), as meshfd does, and answers CONTINUE
    floor-create    the same, and socket(), as meshfd does with --track create
    floor-told      under one that traps connect(), sendto() with an address and getpeername()
    meshfd          under meshfd exec, with a route from a virtual address to the server
    meshfd-create   the same with --track create
    meshfd-told     the same with a route for UDP, too, and --transparent

A mode of meshfd's compares with the floor that traps the same calls, and for calls that nobody
traps with the filter. Each round runs every mode once, in an order that rotates, so that a slow
stretch of the machine falls on all modes and no mode always goes first. One server serves them all.
The C programs are compiled into a temporary directory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.metrics import Sample

SOURCES = Path(__file__).parent
PROGRAMS = ("floor", "probe", "server")
CFLAGS = ("-std=gnu11", "-D_GNU_SOURCE", "-O2", "-pthread")
SERVER_ADDRESS = "127.0.0.1"
VIRTUAL_ADDRESS = "127.66.0.1"  # nobody serves it, so a connection there proves the redirect
FLOORS = {  # floor.c's words
    "filter": "allow",
    "floor": "connect",
    "floor-create": "create",
    "floor-told": "told",
}
ROUTE = f"{VIRTUAL_ADDRESS}:{{port}}={SERVER_ADDRESS}:{{port}}"
OPTIONS = {  # of meshfd exec
    "meshfd": ("--route", ROUTE),
    "meshfd-create": ("--track", "create", "--route", ROUTE),
    "meshfd-told": ("--transparent", "--route", ROUTE, "--route", f"udp:{ROUTE}"),
}
MODES = ("bare", *FLOORS, *OPTIONS)
# What is said of what: the first over the second.
RATIOS = (
    ("filter", "bare"),
    ("floor", "bare"),
    ("meshfd", "bare"),
    ("meshfd", "filter"),
    ("meshfd", "floor"),
    ("meshfd-create", "bare"),
    ("meshfd-create", "floor-create"),
    ("meshfd-told", "bare"),
    ("meshfd-told", "floor-told"),
)
PROBE_TIMEOUT_S = 300


class BenchError(Exception):
    """A program of the benchmark could not be built or run; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much one run of probe.c does, in the order of its arguments, and how many rounds."""

    rounds: int
    connects: int
    rate_connects: int
    getppids: int
    round_trips: int
    stream_mib: int

    def arguments(self) -> tuple[str, ...]:
        """What follows the port on probe.c's command line."""
        numbers = (
            self.connects,
            self.rate_connects,
            self.getppids,
            self.round_trips,
            self.stream_mib,
        )
        return tuple(str(number) for number in numbers)


FULL = Effort(
    rounds=21,
    connects=2_000,
    rate_connects=4_000,
    getppids=1_000_000,
    round_trips=2_000,
    stream_mib=512,
)
QUICK = Effort(
    rounds=2, connects=200, rate_connects=400, getppids=20_000, round_trips=200, stream_mib=16
)


def build(directory: Path) -> None:
    """Compile the C programs into ``directory``; BenchError with the compiler's words."""
    compiler = os.environ.get("CC", "cc")
    for name in PROGRAMS:
        command = [compiler, *CFLAGS, "-o", str(directory / name), str(SOURCES / f"{name}.c")]
        _run(command, timeout_s=60)


@contextmanager
def serve(directory: Path) -> Iterator[int]:
    """Run the server; gives its port."""
    with subprocess.Popen(
        [directory / "server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        # Leaving the block closes its standard input, which ends it.
        if server.stdout is None:
            raise BenchError("the server has no output")
        line = server.stdout.readline()
        if not line:
            raise BenchError("the server did not start")
        yield int(line)


def start_of(mode: str, directory: Path, port: int) -> list[str]:
    """Give the command line up to and including probe.c's address and port."""
    probe = str(directory / "probe")
    direct = [probe, SERVER_ADDRESS, str(port)]
    if mode == "bare":
        return direct
    if mode in FLOORS:
        return [str(directory / "floor"), FLOORS[mode], *direct]
    script = Path(sys.executable).with_name("meshfd")
    if not script.exists():
        message = f"{script} is missing: install meshfd into this Python's environment first"
        raise BenchError(message)
    options = [word.format(port=port) for word in OPTIONS[mode]]
    return [str(script), "exec", *options, "--", probe, VIRTUAL_ADDRESS, str(port)]


def run_rounds(
    modes: Sequence[str], effort: Effort, directory: Path, port: int
) -> Iterator[Mapping[str, Sample]]:
    """Give one sample of each mode, a round at a time; BenchError when a program fails."""
    starts = {mode: start_of(mode, directory, port) for mode in modes}
    for number in range(effort.rounds):
        first = number % len(modes)
        samples: dict[str, Sample] = {}
        for mode in (*modes[first:], *modes[:first]):
            command = [*starts[mode], *effort.arguments()]
            samples[mode] = json.loads(_run(command, timeout_s=PROBE_TIMEOUT_S))
        yield samples


def _run(command: Sequence[str], *, timeout_s: float) -> str:
    try:
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=timeout_s
        )
    except OSError as error:
        message = f"{command[0]}: {error.strerror}"
        raise BenchError(message) from error
    except subprocess.CalledProcessError as error:
        message = f"{' '.join(command)}: exit status {error.returncode}: {error.stderr.strip()}"
        raise BenchError(message) from error
    except subprocess.TimeoutExpired as error:
        message = f"{' '.join(command)}: not done after {timeout_s} s"
        raise BenchError(message) from error
    return done.stdout
