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

By name alone, because they take long or need root:

    meshfd-cgroup   meshfd-create, agent and program in a cgroup of their own
    meshfd-nested   the same, and the program in a cgroup below: it makes its sockets itself
    meshfd-elsewhere    in a network namespace of its own; the route leads through the server's, so
                        that each connect() puts another socket in the place of the program's
    meshfd-ipv4         the same, and sockets of AF_INET are made in a third (transition)
    meshfd-ipv4-nested  the same, and the program in a cgroup below the agent's: a child of the
                        agent's makes each socket
    bare-1 ...      what tests/bench/lives.py measures: starts and stops of a program

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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bench.errors import BenchError
from tests.bench.lives import LIVES, measure
from tests.bench.metrics import Sample
from tests.support.cgroups import Place, new_place

SOURCES = Path(__file__).parent
PROGRAMS = ("floor", "holder", "probe", "server")
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
DEFAULT_MODES = ("bare", *FLOORS, *OPTIONS)
ELSEWHERE = {"meshfd-elsewhere": "elsewhere", "meshfd-ipv4": "ipv4"}  # elsewhere.py's words
CGROUP_MODES = {  # what runs in a cgroup of its own
    "meshfd-cgroup": "meshfd-create",
    "meshfd-nested": "meshfd-create",
    "meshfd-ipv4-nested": "meshfd-ipv4",
}
NESTED_MODES = ("meshfd-nested", "meshfd-ipv4-nested")
MODES = (*DEFAULT_MODES, *ELSEWHERE, *CGROUP_MODES, *LIVES)
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
    ("meshfd-cgroup", "meshfd-create"),
    ("meshfd-nested", "meshfd-create"),
    ("meshfd-nested", "floor-create"),
    ("meshfd-elsewhere", "meshfd"),
    ("meshfd-ipv4", "meshfd-create"),
    ("meshfd-ipv4", "floor-create"),
    ("meshfd-ipv4-nested", "meshfd-ipv4"),
    ("bare-1000", "bare-1"),
    ("service-1000", "service-1"),
    ("service-1000", "bare-1000"),
    ("service-1000-connected", "bare-1000-connected"),
)
PROBE_TIMEOUT_S = 300
NESTED = "below"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much one run of probe.c does, in the order of its arguments, and how many rounds.

    ``starts``: of a program, in a round of the modes that are about that.
    """

    rounds: int
    starts: int
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
    starts=20,
    connects=2_000,
    rate_connects=4_000,
    getppids=1_000_000,
    round_trips=2_000,
    stream_mib=512,
)
QUICK = Effort(
    rounds=2,
    starts=2,
    connects=200,
    rate_connects=400,
    getppids=20_000,
    round_trips=200,
    stream_mib=16,
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


@contextmanager
def cgroups(modes: Sequence[str]) -> Iterator[Mapping[str, Place]]:
    """Make a cgroup for each mode that wants one, and another in it for who is nested."""
    with ExitStack() as stack:
        if not {*CGROUP_MODES} & {*modes}:
            yield {}
            return
        try:
            place = stack.enter_context(new_place())
        except (OSError, pytest.skip.Exception, pytest.fail.Exception) as error:
            message = f"modes {' and '.join(CGROUP_MODES)}: {error}"
            raise BenchError(message) from error
        places = {mode: place.below(mode) for mode in CGROUP_MODES}
        for mode in NESTED_MODES:
            places[mode].below(NESTED)
        yield places


def start_of(mode: str, directory: Path, port: int, places: Mapping[str, Place]) -> list[str]:
    """Give the command line up to and including probe.c's address and port."""
    if mode in CGROUP_MODES:
        return _start_in(places[mode], start_of(CGROUP_MODES[mode], directory, port, {}))
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
    if mode in ELSEWHERE:
        runner = [sys.executable, "-m", "tests.bench.elsewhere", ELSEWHERE[mode]]
        return [*runner, ROUTE.format(port=port), "--", probe, VIRTUAL_ADDRESS, str(port)]
    options = [word.format(port=port) for word in OPTIONS[mode]]
    return [str(script), "exec", *options, "--", probe, VIRTUAL_ADDRESS, str(port)]


def _start_in(place: Place, command: list[str]) -> list[str]:
    """Run it in this cgroup, and what meshfd runs in the one below, if there is one."""
    nested = Place(place.directory / NESTED, f"{place.path}/{NESTED}")
    if nested.directory.exists():
        program = command.index("--") + 1
        command = [*command[:program], *nested.prefix, *command[program:]]
    return [*place.prefix, *command]


def run_rounds(
    modes: Sequence[str],
    effort: Effort,
    directory: Path,
    port: int,
    places: Mapping[str, Place],
) -> Iterator[Mapping[str, Sample]]:
    """Give one sample of each mode, a round at a time; BenchError when a program fails."""
    starts = {mode: start_of(mode, directory, port, places) for mode in modes if mode not in LIVES}
    for number in range(effort.rounds):
        first = number % len(modes)
        samples: dict[str, Sample] = {}
        for mode in (*modes[first:], *modes[:first]):
            if mode in LIVES:
                samples[mode] = measure(mode, effort.starts, directory)
                continue
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
