"""A program's children are served for as long as they live, whoever else has ended."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from tests.support.command import Meshfd
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter
from tests.support.waiting import wait_until


def test_outliving_child(
    meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter, tmp_path: Path
) -> None:
    """A background child is still redirected when the command, and meshfd with it, has ended."""
    fifo, answer = tmp_path / "fifo", tmp_path / "answer"
    os.mkfifo(fifo)
    answer.touch()
    way = meshfd.way(greeter.listening)
    dial = shlex.join([str(program("dial")), *way.words])
    script = f"(read go <{fifo}; {dial} >{answer}) </dev/null >/dev/null 2>&1 & exit 5"
    running = processes.start(meshfd.exec("sh", "-c", script, options=way.options))
    assert running.finish().code == 5
    fifo.write_text("go\n")
    wait_until(lambda: "greeting: hello" in answer.read_text(), "the greeting")
    wait_until(lambda: not processes.running(), "the end of all that served the child")


def test_two_generations(
    meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter
) -> None:
    """A daemon's child, whose parents are gone and whose session is new, is redirected."""
    way = meshfd.way(greeter.listening)
    dial = shlex.join([str(program("dial")), *way.words])
    script = f"setsid sh -c '({dial}; echo end) & exit' & wait; cat"
    running = processes.start(meshfd.exec("sh", "-c", script, options=way.options))
    lines = sorted(running.line() for _ in range(3))
    assert lines == ["connect: 0", "end", "greeting: hello"]
    assert running.finish().code == 0
