"""A probe that does not answer ends the benchmark, and nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bench.errors import BenchError
from tests.bench.metrics import Sample
from tests.bench.part import Stage
from tests.bench.parts import memory, scale
from tests.bench.programs import Probe, build, serve
from tests.bench.questions import Question
from tests.bench.services import ServiceProbe, run_services
from tests.bench.ways import redirected
from tests.support.command import Meshfd
from tests.support.need import require_tool
from tests.support.processes import Processes, children_of, descendants_of, held_fds
from tests.support.servers import free_port
from tests.support.waiting import wait_until

SOON_S = 0.2  # of a wait for what never comes
QUESTION = Question("connect 1", {"p50_ns": "p50_ns"})


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Return where the programs are."""
    require_tool("cc")
    directory = tmp_path_factory.mktemp("stage")
    build(directory)
    return Stage(directory, is_quick=True)


@pytest.mark.parametrize(
    ("command", "said"),
    [(["sleep", "1000"], "no answer within 0 s"), (["true"], "it ended")],
)
def test_probe_that_does_not_answer(command: list[str], said: str) -> None:
    """The error has the command, what was asked, and whether it ended."""
    before = descendants_of(os.getpid())
    with (
        pytest.raises(BenchError, match=f"^{' '.join(command)}: ready: {said}$"),
        Probe(command) as probe,
    ):
        probe.ask("ready", SOON_S)
    assert descendants_of(os.getpid()) == before


MEASURES: dict[str, Callable[[Stage, int], Sample]] = {
    "replaced": lambda stage, port: scale._measure_replaced(stage, port, 10, QUESTION),
    "sockets": lambda stage, port: memory._measure_sockets(stage, redirected(port), 1),
}


@pytest.mark.parametrize("name", MEASURES)
def test_measurement_that_fails(
    name: str, meshfd: Meshfd, stage: Stage, processes: Processes
) -> None:
    """A part that fails in the middle, since the server is gone, leaves nothing that runs."""
    meshfd.need()
    before = held_fds(os.getpid())
    with pytest.raises(BenchError, match=r"connect 1: it ended$"):
        MEASURES[name](stage, free_port())
    assert held_fds(os.getpid()) == before
    wait_until(lambda: not processes.running(), "the end of all that was killed")


@contextlib.contextmanager
def service_probe(directory: Path) -> Iterator[tuple[ServiceProbe, Path]]:
    """Open a probe's FIFOs, without the probe; where it would write."""
    with contextlib.ExitStack() as stack:
        yield ServiceProbe(directory, 0, stack), directory / "s0.out"


def test_service_that_does_not_answer(tmp_path: Path) -> None:
    """The error has the service's name, and what it was told, before it runs and when it hangs."""
    with service_probe(tmp_path) as (probe, path):
        probe.tell("connect 1")
        said = "^service s0: connect 1: no answer within 0 s$"
        with pytest.raises(BenchError, match=said):
            probe.answer(SOON_S)
        with path.open("w"), pytest.raises(BenchError, match=said):
            probe.answer(SOON_S)


def test_service_that_ends(meshfd: Meshfd, stage: Stage) -> None:
    """Who waits for a service's answer hears that its process has ended."""
    meshfd.need()
    before = descendants_of(os.getpid())
    with serve(stage.directory) as server, run_services(stage, 2, server.port) as services:
        below = [pid for agent in services.agents for pid in children_of(agent)]
        (pid,) = (pid for pid in below if has_out(pid, "s1"))
        os.kill(pid, signal.SIGKILL)
        services.probes[1].tell("ready")
        with pytest.raises(BenchError, match=r"^service s1: ready: it ended$"):
            services.probes[1].answer()
    assert descendants_of(os.getpid()) == before


def has_out(pid: int, name: str) -> bool:
    """Whether a process writes where this service's probe does."""
    return Path(f"/proc/{pid}/fd/1").readlink().name == f"{name}.out"
