"""The benchmark runs and says everything that it promises; no time is ever asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.metrics import METRICS, Metric, Summary
from tests.bench.rounds import MODES, QUICK

ROOT = Path(__file__).parents[2]


@pytest.mark.live
def test_quick_run_measures_everything_in_every_mode(tmp_path: Path) -> None:
    """A quick run fills each row of the table for bare, floor and meshfd, and the document too."""
    written = tmp_path / "bench.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick", "--json", str(written)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    heading, *rows, note = done.stdout.splitlines()
    assert heading.split() == [*MODES, "floor/bare", "meshfd/bare", "meshfd/floor"]
    assert [row.split("(")[0].rstrip() for row in rows] == [metric.label for metric in METRICS]
    assert note.startswith(f"{QUICK.rounds} rounds")
    for metric in json.loads(written.read_text())["metrics"].values():
        assert set(metric["values"]) == set(MODES)
        assert all(value["median"] > 0 for value in metric["values"].values())


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
