"""A program that confines itself by a seccomp filter: what that means under meshfd.

A filter that fails, traps or kills comes before meshfd, so it means what it means bare. Two of its
results come after (SECCOMP_RET_TRACE and SECCOMP_RET_LOG): a limit that README tells; these tests
show exactly how far it goes.
"""

from __future__ import annotations

import signal

import pytest

from tests.support.command import KINDS, Meshfd, direct_way
from tests.support.ordinary_user import as_ordinary_user
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter

GREETED = ["connect: 0", "greeting: hello"]
ACTIONS = ["errno", "kill", "trap", "notify"]


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("routed", [True, False], ids=["routed", "unrouted"])
@pytest.mark.parametrize("action", ACTIONS)
def test_allow_list_without_connect(
    action: str,
    routed: bool,
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """A connect() that the program has forbidden itself fails, traps or kills, and reaches nobody.

    So does one that its filter notifies of, with nobody listening to that filter.
    """
    path = program("filtered")
    direct = direct_way(greeter.listening)
    bare = processes.run([path, "without", action, *direct.words])
    way = meshfd.way(greeter.listening) if routed else direct
    command = meshfd.exec(path, "without", action, *way.words, options=way.options + kind)
    under = processes.run(command)
    code = bare.code if meshfd.bare or bare.code >= 0 else 128 - bare.code
    assert (under.code, under.lines) == (code, bare.lines)
    assert bare.code == (-signal.SIGSYS if action == "kill" else 0)
    assert greeter.n_greeted == 0


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("ordinary", [False, True], ids=["", "ordinary"])
def test_allow_list_with_connect(
    action: str,
    kind: tuple[str, ...],
    ordinary: bool,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """A program that allows itself little besides connect() is redirected: no call is added."""
    way = meshfd.way(greeter.listening)
    options = way.options + kind
    under = meshfd.exec(program("filtered"), "with", action, *way.words, options=options)
    done = processes.run(as_ordinary_user(under) if ordinary else under, cwd="/")
    assert done.lines == GREETED, done.err


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_what_else_a_filter_changes(
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """There is a filter already: no listener of its own, no strict mode; the program can tell."""
    meshfd.need()
    path = program("filtered")
    bare = processes.run([path, "nothing", "-", *direct_way(greeter.listening).words])
    way = meshfd.way(greeter.listening)
    under = processes.run(meshfd.exec(path, "nothing", "-", *way.words, options=way.options + kind))
    assert bare.lines == ["mode: 0", "strict mode: 0", "own listener: 0", *GREETED]
    assert under.lines == ["mode: 2", "strict mode: EINVAL", "own listener: EBUSY", *GREETED]


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_traced_by_a_filter(
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """Of connect() a filter that asks for a tracer tells nobody: meshfd's answer comes before.

    Bare and without a tracer such a call fails; `strace --seccomp-bpf` sees it bare only.
    """
    meshfd.need()
    path = program("filtered")
    bare = processes.run([path, "without", "trace", *direct_way(greeter.listening).words])
    assert bare.lines[0] == "connect: ENOSYS"
    way = meshfd.way(greeter.listening)
    options = way.options + kind
    done = processes.run(meshfd.exec(path, "without", "trace", *way.words, options=options))
    assert done.lines == GREETED, done.err
