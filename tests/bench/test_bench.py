"""The benchmark runs and says everything that it promises; no time is ever asserted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.bench.environment import describe
from tests.bench.errors import BenchError, MissingError
from tests.bench.metrics import Metric, Pair, Summary
from tests.bench.part import Part, Result, Stage, each_in_turn, together
from tests.bench.parts import PARTS, memory
from tests.bench.plot import plot
from tests.bench.programs import SOURCES, Probe, build, compile_program, run
from tests.bench.questions import WARM_UP, Question, Subject, ask_all, cpu_ns
from tests.bench.report import as_markdown, as_text
from tests.support.need import require_root, require_tool
from tests.support.processes import Processes, descendants_of, switches
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
MAY_BE_NOTHING = {"idle_wakeups", "idle_cpu_ns", "each_socket"}
TIME = Metric("t", "time", "us")
RATE = Metric("r", "rate", "1/s", is_rate=True)


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    """Run it."""
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", *words],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )


def lacking(part: Part, found: dict[str, Any]) -> set[str]:
    """Return the subjects of a part's pairs that the document has no figure of."""
    measured = {subject for one in found["rounds"] for subject in one}
    return {subject for pair in part.pairs for subject in (pair.of, pair.over)} - measured


@pytest.mark.live
@pytest.mark.parametrize("name", PARTS)
def test_every_part_is_measured(name: str, tmp_path: Path) -> None:
    """Each metric has figures; what is left out is named with a reason; nothing is left behind."""
    before = descendants_of(os.getpid())
    done = bench("--quick", name, "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    part = PARTS[name]
    found = json.loads((tmp_path / "bench.json").read_text())["parts"][name]
    for metric in part.metrics:
        values = found["metrics"][metric.key]["values"].values()
        assert values, metric.key
        assert all(value["median"] > 0 for value in values) or metric.key in MAY_BE_NOTHING
        assert metric.label in done.stdout
    quick_only = {"scale", "memory"}  # a quick run leaves out their largest subjects
    assert found["missing"] or name in quick_only or not lacking(part, found)
    if os.geteuid() == 0 and os.environ.get("MESHFD_REQUIRE_LIVE") == "1":
        assert not found["missing"]
    for subject, why in found["missing"].items():
        assert f"left out: {subject}: {why}" in done.stdout
    assert descendants_of(os.getpid()) == before


@pytest.mark.live
def test_plot_is_drawn(tmp_path: Path) -> None:
    """What is measured is drawn into both kinds of file, or it is said what that would take."""
    done = bench("--quick", "start", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    if "left out: the plot: matplotlib" in done.stdout:
        assert not list(tmp_path.glob("bench.[ps]*"))
        return
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "Starts" in (tmp_path / "bench.svg").read_text()


@pytest.mark.live
@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_is_left_when_it_is_told_to_end(
    signo: signal.Signals, processes: Processes
) -> None:
    """A signal in the middle of a part ends what runs then, and removes the files."""
    command = ["env", "--default-signal=HUP"]  # nohup(1) may run the tests
    command += [sys.executable, "-m", "tests.bench", "--rounds", "1000", "path"]
    with tempfile.TemporaryDirectory() as directory:  # short, for sockets' names
        environment = {**os.environ, "TMPDIR": directory}
        running = processes.start(command, cwd=ROOT, env=environment)
        wait_until(lambda: "path: 3 of" in running.errors(), "the third round")
        running.signal(signo)
        assert running.wait() in {128 + signo, -signo}
        wait_until(lambda: not processes.running(), "the end of all that it started")
        assert not [*Path(directory).iterdir()]


@pytest.mark.live
@pytest.mark.parametrize("part", ["path", "applications", "memory"])
def test_nothing_runs_when_it_is_killed(part: str, processes: Processes) -> None:
    """All that runs in the middle of a part ends with it, though it could not see to that."""
    command = [sys.executable, "-m", "tests.bench", "--quick", "--rounds", "1000", part]
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "TMPDIR": directory}
        running = processes.start(command, cwd=ROOT, env=environment)
        wait_until(lambda: f"{part}: 2 of" in running.errors(), "the second round")
        running.signal(signal.SIGKILL)
        running.wait()
        wait_until(lambda: not processes.running(), "the end of all that it started")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["conect"], "there is no part 'conect'; the parts are connect, "),
        (["--round"], "--rounds"),
        (["--rounds", "-1"], "argument --rounds: invalid positive value: '-1'"),
        (["--rounds", "0"], "argument --rounds: invalid positive value: '0'"),
        (["--output", __file__], f"argument --output: {__file__}: File exists"),
        (["--output", "/proc/none"], "argument --output: /proc/none: "),
    ],
)
def test_bad_words(words: list[str], said: str) -> None:
    """A part that there is not, no number and no directory are refused in one line, at once."""
    done = bench(*words)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]


@pytest.mark.live
def test_what_is_missing_can_be_a_failure(tmp_path: Path) -> None:
    """With --complete the exit status says that something was left out, or that nothing was."""
    done = bench("--quick", "--complete", "belonging", "--output", str(tmp_path))
    parts = json.loads((tmp_path / "bench.json").read_text())["parts"]
    is_complete = not any(one["missing"] for one in parts.values())
    assert done.returncode == (0 if is_complete and "left out" not in done.stdout else 2)


@pytest.mark.live
def test_too_few_fds(tmp_path: Path) -> None:
    """Who needs more fds than the hard limit allows is left out, and the others are measured."""
    words = (sys.executable, "-m", "tests.bench", "--quick", "memory", "--output", str(tmp_path))
    command = ["bash", "-c", 'ulimit -n 512 && exec "$@"', "bash", *words]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    missing = json.loads((tmp_path / "bench.json").read_text())["parts"]["memory"]["missing"]
    why = "needs 1,000 fds, and the hard limit is 512 (ulimit -Hn)"
    assert missing == dict.fromkeys((memory.sockets(one, 1_000) for one in memory.TRACKS), why)


@pytest.mark.live
def test_root_without_its_rights(processes: Processes) -> None:
    """Root that may make no network namespace is told so in one line."""
    require_root()
    less = [require_tool("setpriv"), "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    done = processes.run([*less, sys.executable, "-m", "tests.bench", "--quick"], cwd=ROOT)
    assert done.code == 1
    assert done.err.startswith("bench: a network namespace cannot be made: Operation not permitted")
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("compiler", "said"),
    [("/bin/echo -m64", ""), ("", ""), ("echo '", "CC: No closing quotation")],
)
def test_compiler_has_words(
    compiler: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CC may have options, and may be empty; a quote that stays open is an error that says so."""
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(BenchError, match=said) if said else contextlib.nullcontext():
        compile_program(tmp_path, "server", [SOURCES / "server.c"])


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
    """The allow-all filter is one filter more than bare, and nobody is asked about any call."""
    build(tmp_path)
    words = ["grep", "Seccomp_filters", "/proc/self/status"]
    bare = processes.run(words).out.split()
    filtered = processes.run([tmp_path / "floor", "allow", *words]).out.split()
    assert int(filtered[1]) == int(bare[1]) + 1


def test_times_and_rates_are_worse_above_one() -> None:
    """Twice the time and half the rate are both twice as bad."""
    assert TIME.times_worse({"t": 20}, {"t": 10}) == 2
    assert RATE.times_worse({"r": 5}, {"r": 10}) == 2


def test_summary_gives_the_median_and_the_quartiles_around_it() -> None:
    """Five values have their third as median, second and fourth as quartiles; one is all three."""
    assert Summary.of([5, 1, 4, 2, 3]) == Summary(3, 2, 4)
    assert Summary.of([7]) == Summary(7, 7, 7)


def part_of(*subjects: str, pairs: tuple[Pair, ...] = ()) -> tuple[Part, list[str]]:
    """Return a part whose n-th subject takes n+1, and the list of who has been measured."""
    measured: list[str] = []

    def measure(name: str) -> dict[str, float]:
        measured.append(name)
        return {"t": subjects.index(name) + 1}

    class Open:
        def __init__(self, stage: Stage) -> None:
            with stage.optional("absent"):
                raise MissingError("it is not here")

        def __enter__(self) -> Any:
            return each_in_turn({one: partial(measure, one) for one in subjects})

        def __exit__(self, *_: object) -> None:
            measured.append("closed")

    return Part("some", "Some things", (TIME, RATE), pairs, 3, Open), measured


def result_of(tmp_path: Path, part: Part) -> Result:
    """Run a part."""
    return part.run(Stage(tmp_path, is_quick=False), None)


def test_everybody_is_measured_in_another_order(tmp_path: Path) -> None:
    """Every round measures everybody once, in an order that changes; then the part is closed."""
    names = "abcdefgh"
    part, measured = part_of(*names)
    result_of(tmp_path, part)
    assert measured.pop() == "closed"
    rounds = ["".join(measured[i : i + len(names)]) for i in range(0, len(measured), len(names))]
    assert len(rounds) == 3
    assert all(sorted(order) == sorted(names) for order in rounds)
    assert len({*rounds}) == 3


def test_results_name_who_is_missing(tmp_path: Path) -> None:
    """Pairs with somebody who is not there have no ratio, and the tables say who is left out."""
    here, gone = Pair("b", "a"), Pair("b", "absent")
    part, _ = part_of("a", "b", pairs=(here, gone))
    result = result_of(tmp_path, part)
    assert result.ratio(here, TIME) == Summary(2, 2, 2)
    assert result.ratio(gone, TIME) is None
    assert result.ratio(here, RATE) is None
    text = as_text(result)
    assert "left out: absent: it is not here" in text
    assert "b / a" in text
    assert "b / absent" not in text
    assert "| b / a | 2.00 [2.00 2.00] |" in as_markdown([result], describe(is_quick=True))


def test_nothing_has_no_ratio(tmp_path: Path) -> None:
    """What takes nothing at all cannot be a number of times worse, nor anything than it."""
    part, _ = part_of("a")
    result = Result(part, [{"a": {"t": 0.0}, "b": {"t": 1.0}}], {})
    assert result.ratio(Pair("b", "a"), TIME) is None
    assert result.ratio(Pair("a", "b"), TIME) is None
    assert result.value("a", TIME) == Summary(0, 0, 0)


def test_metric_of_nobody_has_no_panel(tmp_path: Path) -> None:
    """What nobody has is left out of the plot, and a plot of nothing else is none."""
    pytest.importorskip("matplotlib")
    part = replace(part_of("a")[0], plotted=("t", "r"))
    plot([Result(part, [{"a": {}}], {})], tmp_path)
    assert list(tmp_path.iterdir()) == []
    plot([Result(part, [{"a": {"t": 1.0}}], {})], tmp_path)
    drawn = (tmp_path / "bench.svg").read_text()
    assert "Some things: time" in drawn
    assert "Some things: rate" not in drawn


def test_measures_follow_one_another() -> None:
    """Several measures make one round."""
    both = together(lambda n: {"a": {"t": n}}, lambda n: {"b": {"t": n + 1}})
    assert both(4) == {"a": {"t": 4}, "b": {"t": 5}}


ANSWERS = """
import json, sys, time
spin_s = float(sys.argv[1])
for number, line in enumerate(sys.stdin):
    end_s = time.process_time() + (spin_s if line.startswith("spin") else 0)
    while time.process_time() < end_s:
        pass
    print(json.dumps({"n": number}), flush=True)
"""


def answering(spin_s: float = 0) -> list[str]:
    """Return a command that answers like a probe, by counting what it has been asked."""
    return [sys.executable, "-c", ANSWERS, str(spin_s)]


def test_cpu_is_that_of_all_processes_of_a_subject(processes: Processes) -> None:
    """What is asked for spends 0.2 s in a child of the subject's, and it is told for each of 4."""
    command = ["sh", "-c", '"$@"; true', "sh", *answering(0.2)]
    with Probe(command) as probe:
        probe.ask("ready")
        spent = Question("spin", {"n": "n"}, n_with_cpu=4).ask(probe)
        idle = Question("rest", {"n": "n"}, n_with_cpu=4).ask(probe)
    assert spent["cpu_ns"] >= 0.2e9 / 4
    assert idle["cpu_ns"] < spent["cpu_ns"] / 2
    assert (spent["n"], idle["n"]) == (1, 2)


def test_cpu_of_what_has_ended_is_not_told(processes: Processes) -> None:
    """A process that is gone makes no figure."""
    ended = processes.start(["true"])
    ended.wait()
    with pytest.raises(BenchError, match="has ended"):
        cpu_ns([os.getpid(), ended.pid])


def test_questions_are_asked_in_turn(tmp_path: Path) -> None:
    """Each subject is asked each question as often as it says; the median of that counts."""
    many, one = Question("a", {"n": "many"}, times=3), Question("b", {"n": "one"})
    subjects = {
        "both": Subject(answering(), (many, one), first=("before",)),
        "many": Subject(answering(), (many,)),
    }
    measured = ask_all(subjects)(0)
    assert measured == {"both": {"many": 3, "one": 5}, "many": {"many": 2}}  # after "ready"


def test_a_thread_that_ticks_is_seen(processes: Processes) -> None:
    """What is called a wake-up of an idle process is that of any of its threads."""
    ticking = """
import threading
from time import sleep
def tick():
    for n in range(10**6):
        sleep(0.001)
        if n == 20: print("ticked", flush=True)
threading.Thread(target=tick, daemon=True).start()
print("begun", flush=True)
input()
"""
    running = processes.start([sys.executable, "-c", ticking])
    assert running.line() == "begun"
    before = switches([running.pid])
    assert running.line() == "ticked"
    assert switches([running.pid]).total() - before.total() >= 20


QUANTILES = """
#include <stdlib.h>
#include "probe.h"
void fail(const char *what) { (void)what; exit(1); }
int main(void)
{
    struct times times = make_times(1000);
    for (size_t i = 0; i < 1000; i++)
        times.ns[i] = 1000 - i;
    say_times(times);
    say_rate(500, 250000000);
    return 0;
}
"""


def test_times_and_rates_are_said_right(tmp_path: Path) -> None:
    """Of 1 to 1000 the middle is 500 and 990 are no larger than 990; 500 in 0.25 s are 2000/s."""
    (tmp_path / "quantiles.c").write_text(QUANTILES)
    sources = [tmp_path / "quantiles.c", SOURCES / "times.c"]
    run(["cc", f"-I{SOURCES}", "-o", str(tmp_path / "quantiles"), *map(str, sources)])
    times, rate = run([str(tmp_path / "quantiles")]).splitlines()
    assert json.loads(times) == {"p50_ns": 500, "p99_ns": 990}
    assert json.loads(rate) == {"per_s": 2000}


def test_warm_up_is_the_same_on_both_sides() -> None:
    """What the CPU is divided by has in it what the probe does before it measures."""
    header = (SOURCES / "probe.h").read_text()
    assert f"#define WARM_UP {WARM_UP} " in header


def test_document_says_what_it_is_of() -> None:
    """A quick run is told from a full one, and versions are in it."""
    said = describe(is_quick=True)
    assert said["is_quick"]
    assert said["meshfd"]
    assert "A quick run" in as_markdown([], said)
    assert "A quick run" not in as_markdown([], said | {"is_quick": False})
