"""What a connection costs where there are many fds, routes, processes or services.

Beside many fds stands what reading the fdinfo of all of them costs: that is what an interceptor has
to do that puts another socket in the place of the program's and repairs epoll afterwards.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from functools import partial
from typing import Final

from tests.bench.metrics import Metric, Pair, Sample
from tests.bench.part import Measure, Part, Stage, each_in_turn, together
from tests.bench.peers.need import need_fds
from tests.bench.programs import Probe, serve
from tests.bench.questions import READY, Question, Subject, ask_all, cpu_ns
from tests.bench.services import FDS_OF_EACH, run_services
from tests.bench.ways import BARE, MESHFD, Way, bare, redirected, route_to, run_by, services
from tests.support.processes import switches

FDS: Final = (1_000, 10_000, 19_000)
ROUTES: Final = (10, 1_000, 100_000)
PROCESSES: Final = (100, 1_000)
SERVICES: Final = (1, 50, 200)
FDS_OF_BARE: Final = FDS[-1]
BARE_WITH_FDS: Final = f"{BARE}, {FDS_OF_BARE:,} fds"
REPLACED: Final = 3  # times in a round
SETTLED_S: Final = 2.0  # after that an agent forgets what it kept for the next call
WATCHED_S: Final = 1.0
CONNECTS: Final = 4_000  # of all services; the server's queue holds as many

METRICS: Final = (
    Metric("p50_ns", "socket + connect, p50", "us", 1e3),
    Metric("p99_ns", "p99", "us", 1e3),
    Metric("scan_ns", "scan of all fdinfo", "ms", 1e6),
    Metric("replace_ns", "replacing the routes", "ms", 1e6),
    Metric("all_per_s", "connects, all services", "k/s", 1e3, is_rate=True),
    Metric("idle_wakeups", "wake-ups of all idle", "1/s"),
    Metric("idle_cpu_ns", "CPU of all idle", "us/s", 1e3),
)


def fds(n: int) -> str:
    """Name the subject with so many fds."""
    return f"{MESHFD}, {n:,} fds"


def routes(n: int, *, replaced: bool = False) -> str:
    """Name the subject with so many routes."""
    return f"{MESHFD}, {n:,} routes{', replaced' * replaced}"


def processes(n: int) -> str:
    """Name the subject with so many processes."""
    return f"{MESHFD}, {n:,} processes"


PAIRS: Final = (
    Pair(BARE_WITH_FDS, BARE),
    *(Pair(fds(n), MESHFD) for n in FDS),
    *(Pair(routes(n), routes(ROUTES[0])) for n in ROUTES[1:]),
    *(Pair(routes(n, replaced=True), routes(n)) for n in ROUTES),
    *(Pair(processes(n), MESHFD) for n in PROCESSES),
    *(Pair(services(n), services(SERVICES[0])) for n in SERVICES[1:]),
)


def _way(port: int, n_routes: int, *words: str) -> Way:
    return run_by("many_routes", port, str(n_routes), route_to(port), *words, "--")


def _measure_replaced(stage: Stage, port: int, n_routes: int, question: Question) -> Sample:
    """Connect until the table has been replaced often enough."""
    report = stage.directory / "replaced"
    report.write_text("")
    with Probe(_way(port, n_routes, str(report)).probe(stage)) as probe:
        probe.ask(READY)
        answers = [question.ask(probe)]
        while report.read_text().count("\n") < stage.effort(REPLACED, 1):
            answers.append(question.ask(probe))
    sample = {key: statistics.median(one[key] for one in answers) for key in answers[0]}
    return {**sample, "replace_ns": statistics.median(map(int, report.read_text().split()))}


def _measure_services(stage: Stage, port: int, n_services: int, question: Question) -> Sample:
    n = stage.effort(CONNECTS, n_services) // n_services
    with run_services(stage, n_services, port) as running:
        pids = [running.supervisor, *running.agents]
        time.sleep(stage.effort(1, 0) * SETTLED_S)
        wakeups, cpu, begin = switches(pids), cpu_ns(pids), time.monotonic()
        time.sleep(stage.effort(1, 0) * WATCHED_S)  # what is watched is that nothing happens
        watched_s = time.monotonic() - begin
        sample = {
            "idle_wakeups": (switches(pids).total() - wakeups.total()) / watched_s,
            "idle_cpu_ns": (cpu_ns(pids) - cpu) / watched_s,
        }
        running.probes[0].tell(question.words)
        answer = running.probes[0].answer()
        begin = time.monotonic()
        for probe in running.probes:
            probe.tell(f"rate {n} 1")
        for probe in running.probes:
            probe.answer()
        sample["all_per_s"] = n * n_services / (time.monotonic() - begin)
    return {**sample, **{key: answer[name] for name, key in question.keys.items()}}


@contextlib.contextmanager
def _open(stage: Stage) -> Iterator[Measure]:
    with serve(stage.directory) as server:
        port = server.port
        question = Question(
            f"connect {stage.effort(250, 50)}",
            {"p50_ns": "p50_ns", "p99_ns": "p99_ns"},
            times=stage.effort(4, 1),
        )
        scan = Question("scan", {"scan_ns": "scan_ns"})
        direct, redirect = bare(port).probe(stage), redirected(port).probe(stage)
        subjects = {
            BARE: Subject(direct, (question,)),
            MESHFD: Subject(redirect, (question,)),
        }
        with stage.optional(BARE_WITH_FDS):
            need_fds(FDS_OF_BARE)
            words = (f"fds {FDS_OF_BARE}",)
            subjects[BARE_WITH_FDS] = Subject(direct, (question,), (), words)
        for n in FDS:
            with stage.optional(fds(n)):
                need_fds(n)
                subjects[fds(n)] = Subject(redirect, (question, scan), (), (f"fds {n}",))
        for n in PROCESSES:
            subjects[processes(n)] = Subject(redirect, (question,), (), (f"processes {n}",))
        for n in ROUTES:
            subjects[routes(n)] = Subject(_way(port, n).probe(stage), (question,))
        replaced = {
            routes(n, replaced=True): partial(_measure_replaced, stage, port, n, question)
            for n in ROUTES
        }
        many = {}
        for n in SERVICES[: stage.effort(len(SERVICES), 2)]:
            with stage.optional(services(n)):
                need_fds(FDS_OF_EACH * n)
                many[services(n)] = partial(_measure_services, stage, port, n, question)
        yield together(ask_all(subjects), each_in_turn(replaced), each_in_turn(many))


PART: Final = Part("scale", "Many of everything", METRICS, PAIRS, 5, _open, ("p50_ns",))
