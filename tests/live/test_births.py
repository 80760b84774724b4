"""However a process came to life, and whoever it became, its connections are redirected."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import KINDS, Meshfd, direct_way
from tests.support.need import require, require_root, require_tool
from tests.support.ordinary_user import NOBODY, as_ordinary_user
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter

GREETED = ["connect: 0", "greeting: hello"]
N_STORM = 400
N_STORM_QUICK = 200
SETUID = 0o4755


@pytest.fixture
def other() -> Iterator[Greeter]:
    """Return a second server."""
    with Greeter("other") as server:
        yield server


@pytest.mark.parametrize("mode", ["vfork", "spawn", "daemon"])
@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("ordinary", [False, True], ids=["", "ordinary"])
def test_births(
    mode: str,
    kind: tuple[str, ...],
    ordinary: bool,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """vfork() before exec, posix_spawn(), a daemon whose parents are gone: as without meshfd."""
    path = program("births")
    bare = processes.run([path, mode, *direct_way(greeter.listening).words])
    way = meshfd.way(greeter.listening)
    command = meshfd.exec(path, mode, *way.words, options=way.options + kind)
    under = processes.run(as_ordinary_user(command) if ordinary else command, cwd="/")
    assert bare.lines[-2:] == GREETED or bare.lines[-1] == "child: 0"
    assert (under.code, under.lines) == (bare.code, bare.lines), under.err


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_storm(
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
    quick: bool,
) -> None:
    """Hundreds of children that connect at the same moment all reach the server."""
    n = N_STORM_QUICK if quick else N_STORM
    way = meshfd.way(greeter.listening)
    command = [str(program("births")), "storm", *way.words, str(n)]
    done = processes.run(meshfd.exec(*command, options=way.options + kind))
    assert done.lines == [f"greeted: {n}"], done.err
    assert greeter.n_greeted == n


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_chroot(
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
    tmp_path: Path,
) -> None:
    """A program that sees nothing but itself in its root directory is redirected. Needs root."""
    require_root()
    shutil.copy(program("dial", "static"), tmp_path / "dial")
    way = meshfd.way(greeter.listening)
    command = [require_tool("chroot"), str(tmp_path), "/dial", *way.words]
    done = processes.run(meshfd.exec(*command, options=way.options + kind))
    assert done.lines == GREETED, done.err


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize(
    ("words", "ordinary"),
    [
        pytest.param(["--pid", "--fork"], False, id="pid"),
        pytest.param(["--pid", "--fork", "--mount-proc"], False, id="pid-mount"),
        pytest.param(["--user"], False, id="user"),
        pytest.param(["--user"], True, id="user-ordinary"),
        pytest.param(["--user", "--map-root-user", "--pid", "--fork"], True, id="all-ordinary"),
    ],
)
def test_namespaces(
    words: list[str],
    kind: tuple[str, ...],
    ordinary: bool,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """In process and user namespaces of its own making a program is redirected."""
    if not ordinary:
        require_root()
    inner = [
        require_tool("unshare"),
        *words,
        "--",
        str(program("dial")),
        *direct_way(greeter.listening).words,
    ]
    bare = processes.run(as_ordinary_user(inner) if ordinary else inner, cwd="/")
    require(bare.lines == GREETED, f"no such namespace can be made: {bare.err}")
    way = meshfd.way(greeter.listening)
    inner[-2:] = way.words
    command = meshfd.exec(*inner, options=way.options + kind)
    under = processes.run(as_ordinary_user(command) if ordinary else command, cwd="/")
    assert under.lines == GREETED, under.err


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_setuid_program(
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """A setuid program that a root's meshfd serves is root when a user starts it, and redirected.

    Under a meshfd that the user has started it runs as the user. Needs root.
    """
    require_root()
    path = program("identity").with_name("identity-setuid")
    shutil.copy(program("identity"), path)
    path.chmod(SETUID)
    way = meshfd.way(greeter.listening)
    options = way.options + kind
    bare = processes.run(as_ordinary_user([str(path), *direct_way(greeter.listening).words]))
    assert bare.lines == ["effective user: 0", *GREETED]
    as_root = meshfd.exec(*as_ordinary_user([str(path), *way.words]), options=options)
    assert processes.run(as_root).lines == bare.lines
    if not meshfd.bare:
        own = processes.run(
            as_ordinary_user(meshfd.exec(path, *way.words, options=options)), cwd="/"
        )
        assert own.lines == [f"effective user: {NOBODY}", *GREETED], own.err


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_undumpable_is_within_roots_reach(
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """A program that closed itself to others is redirected by root's meshfd. Needs root."""
    require_root()
    way = meshfd.way(greeter.listening)
    command = [str(program("unreadable")), *way.words]
    assert processes.run(meshfd.exec(*command, options=way.options + kind)).lines == ["connect: 0"]
    done = processes.run(meshfd.exec(*as_ordinary_user(command), options=way.options + kind))
    assert (done.lines, done.err) == (["connect: 0"], "")


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_own_fd_tables(
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
    other: Greeter,
) -> None:
    """A thread with an fd table of its own means its own socket by the number that others use."""
    path = program("own_tables")
    direct = direct_way(greeter.listening).words + direct_way(other.listening).words
    bare = processes.run([path, *direct])
    first, second = meshfd.way(greeter.listening), meshfd.way(other.listening, port=81)
    options = first.options + second.options + kind
    under = processes.run(meshfd.exec(path, *first.words, *second.words, options=options))
    assert under.lines == bare.lines, under.err
    assert under.lines[-1] == "greeting in the thread: other"
