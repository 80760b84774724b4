"""A socket's number and its process say nothing: identity is the open file."""

from __future__ import annotations

import pytest

from tests.support.command import Meshfd, direct_way
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter

MODES = ["dup", "fork", "parent", "exec", "pass", "threads", "late"]
N_THREADS = 64
N_EACH = 10


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("track", ["create", "connect"])
def test_sharing(
    mode: str,
    track: str,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """Duplicates, children, new images, receivers and threads reach the server by one socket."""
    path = program("sharing")
    bare = processes.run([path, mode, *direct_way(greeter.listening).words])
    way = meshfd.way(greeter.listening)
    options = (*way.options, "--track", track)
    under = processes.run(meshfd.exec(path, mode, *way.words, options=options))
    assert (bare.code, under.code) == (0, 0), under.err
    assert under.lines == bare.lines
    assert "greeting: hello" in under.lines


@pytest.mark.parametrize("variant", ["", "static", "i386"])
def test_crowd(
    variant: str, meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter
) -> None:
    """64 threads that connect at once, again and again, all reach the server."""
    way = meshfd.way(greeter.listening)
    done = processes.run(
        meshfd.exec(
            program("crowd", variant), *way.words, str(N_THREADS), str(N_EACH), options=way.options
        )
    )
    assert done.lines == [f"greeted: {N_THREADS * N_EACH}"], done.err
    assert greeter.n_greeted == N_THREADS * N_EACH
