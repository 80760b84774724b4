"""A probe that does not answer ends the benchmark, and nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bench.errors import BenchError
from tests.bench.metrics import Sample
from tests.bench.part import Stage
from tests.bench.parts import memory, scale
from tests.bench.programs import SERVER_ADDRESS, Probe, build, serve
from tests.bench.questions import Question
from tests.bench.services import ServiceProbe, run_services
from tests.bench.ways import redirected
from tests.support.command import Meshfd
from tests.support.need import require_tool
from tests.support.processes import Processes, Program, children_of, descendants_of, held_fds
from tests.support.servers import free_port
from tests.support.waiting import wait_until

SOON_S = 0.2  # of a wait for what never comes
FEW_FDS = 32
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


def server_with(stage: Stage, processes: Processes, soft: int, hard: int) -> tuple[Program, int]:
    """Run the server with limits on its fds; its port."""
    limit = f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"'
    running = processes.start(["bash", "-c", limit, "bash", stage.directory / "server"])
    return running, int(running.line())


def test_server_uses_the_hard_limit(stage: Stage, processes: Processes) -> None:
    """The server takes more connections than the soft limit allows it."""
    running, port = server_with(stage, processes, FEW_FDS, 4 * FEW_FDS)
    with contextlib.ExitStack() as stack:
        for _ in range(2 * FEW_FDS):
            one = stack.enter_context(socket.create_connection((SERVER_ADDRESS, port)))
            one.sendall(b"ex")
            assert one.recv(1) == b"x"
        assert running.finish().code == 0


def test_server_says_what_it_lacks(stage: Stage, processes: Processes) -> None:
    """More clients than there may be fds end the server, and it says why."""
    running, port = server_with(stage, processes, FEW_FDS, FEW_FDS)
    with contextlib.ExitStack() as stack, contextlib.suppress(ConnectionError):
        for _ in range(FEW_FDS):
            stack.enter_context(socket.create_connection((SERVER_ADDRESS, port)))
        running.wait()
    done = running.finish()
    assert (done.code, done.err) == (1, "server: accept4: Too many open files\n")


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
