"""The benchmark runs and says everything that it promises; no time is ever asserted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.bench.lives import LIVES
from tests.bench.metrics import LIFE_METRICS, METRICS, Metric, Summary
from tests.bench.rounds import CGROUP_MODES, DEFAULT_MODES, ELSEWHERE, MODES, QUICK, RATIOS, build
from tests.support.need import require_root
from tests.support.processes import Processes

ROOT = Path(__file__).parents[2]


def quick_run(
    directory: Path, modes: Sequence[str], options: Sequence[str], metrics: Sequence[Metric]
) -> dict[str, set[str]]:
    """Run the benchmark; which modes fill each of these rows of the table and the document."""
    written = directory / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick", *options, "--json", str(written)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    heading, *rows, note = done.stdout.splitlines()
    ratios = [f"{of}/{over}" for of, over in RATIOS if {of, over} <= {*modes}]
    assert heading.split() == [*modes, *ratios]
    assert [row.split("(")[0].rstrip() for row in rows] == [metric.label for metric in metrics]
    assert note.startswith("1 round" if "--rounds" in options else f"{QUICK.rounds} rounds")
    found = json.loads(written.read_text())["metrics"]
    for metric, row in zip(metrics, rows, strict=True):
        values = found[metric.key]["values"]
        assert all(value["median"] > 0 for value in values.values())
        # a "-" for each mode that does not measure it, and each ratio with one
        lacking = sum(not {of, over} <= {*values} for of, over in RATIOS if {of, over} <= {*modes})
        assert row.split().count("-") == len(modes) - len(values) + lacking
    return {key: set(metric["values"]) for key, metric in found.items()}


def named(modes: Sequence[str]) -> list[str]:
    """Options for these modes alone, and one round."""
    return ["--rounds", "1", *(word for mode in modes for word in ("--mode", mode))]


@pytest.mark.live
def test_quick_run_measures_everything_in_every_mode(tmp_path: Path) -> None:
    """What is measured by default fills the whole table."""
    filled = quick_run(tmp_path, DEFAULT_MODES, (), METRICS)
    assert filled == {metric.key: {*DEFAULT_MODES} for metric in METRICS}


@pytest.mark.live
def test_lives_are_measured(tmp_path: Path) -> None:
    """Starts and stops have rows of their own, and so has what it takes to open many sockets."""
    filled = quick_run(tmp_path, [*LIVES], named([*LIVES]), LIFE_METRICS)
    many = {name for name, life in LIVES.items() if life.n_sockets > 1}
    assert filled == {"start_ns": {*LIVES}, "open_each_ns": many, "stop_ns": {*LIVES}}


@pytest.mark.live
def test_cgroups_are_measured(tmp_path: Path) -> None:
    """What needs root fills the table of the others: cgroups, and other network namespaces."""
    require_root()
    modes = [mode for mode in MODES if mode in {*CGROUP_MODES, *ELSEWHERE}]
    filled = quick_run(tmp_path, modes, named(modes), METRICS)
    assert filled == {metric.key: {*modes} for metric in METRICS}


TRIES = """
import errno, socket
print("ready", flush=True)
input()
try:
    one = socket.socket()
    print("socket: 0", flush=True)
    print("connect:", errno.errorcode[one.connect_ex(("127.0.0.1", 1))], flush=True)
except OSError as error:
    print("socket:", errno.errorcode[error.errno], flush=True)
"""


@pytest.mark.live
@pytest.mark.parametrize(
    ("kind", "said"),
    [("connect", ["socket: 0", "connect: ENOSYS"]), ("create", ["socket: ENOSYS"])],
)
def test_floors_trap_what_they_are_compared_for(
    kind: str, said: list[str], tmp_path: Path, processes: Processes
) -> None:
    """Once the loop is gone, the calls that it trapped fail with ENOSYS, and no other does."""
    build(tmp_path)
    running = processes.start([tmp_path / "floor", kind, sys.executable, "-c", TRIES])
    assert running.line() == "ready"
    running.signal(signal.SIGKILL)
    running.wait()
    running.tell()
    assert [running.line() for _ in said] == said


@pytest.mark.live
def test_the_smallest_filter_is_one(tmp_path: Path, processes: Processes) -> None:
    """Mode `filter` has one filter more than bare, and nobody is asked about any call."""
    build(tmp_path)
    words = ["grep", "Seccomp_filters", "/proc/self/status"]
    bare = processes.run(words).out.split()
    filtered = processes.run([tmp_path / "floor", "allow", *words]).out.split()
    assert int(filtered[1]) == int(bare[1]) + 1


def test_slowdown_is_above_one_when_worse_for_times_and_for_rates() -> None:
    """Twice the time and half the rate are both a slowdown of 2."""
    time = Metric("t", "time", "us", 1, is_rate=False)
    rate = Metric("r", "rate", "1/s", 1, is_rate=True)
    assert time.slowdown({"t": 20}, {"t": 10}) == 2
    assert rate.slowdown({"r": 5}, {"r": 10}) == 2


def test_summary_gives_the_median_and_the_quartiles_around_it() -> None:
    """Five values have their third as median, second and fourth as quartiles; one is all three."""
    assert Summary.of([5, 1, 4, 2, 3]) == Summary(3, 2, 4)
    assert Summary.of([7]) == Summary(7, 7, 7)
