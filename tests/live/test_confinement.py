"""A program that confines itself: what its own seccomp filter, or Landlock, means under meshfd.

A filter that fails, traps or kills comes before meshfd, so it means what it means bare. Two of its
results come after (SECCOMP_RET_TRACE and SECCOMP_RET_LOG), and Landlock is not asked about what the
agent does. Both are limits that README tells; these tests show exactly how far they go.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

import pytest

from tests.support.command import KINDS, Meshfd, direct_way
from tests.support.need import require
from tests.support.ordinary_user import as_ordinary_user
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter, free_port, port_of

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


# --- Landlock ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """A program that allows itself to connect to a port, and where connect() leads it."""

    mode: str
    allowed: str  # "asked": the port that it connects to; "given": the endpoint's; "none"
    routed: bool


CASES = [
    Case(mode, allowed, routed)
    for mode in ("blocking", "nonblocking")
    for allowed in ("asked", "given", "none")
    for routed in (False, True)
]


def told(case: Case, *, by_agent: bool, strict: bool) -> list[str]:
    """Return what the program sees: Landlock looks at the port that the program asked for."""
    may = case.allowed == "asked" or (not case.routed and case.allowed == "given")
    if case.mode == "nonblocking":
        said = "EINPROGRESS" if may or by_agent else "EACCES"
    else:  # when the agent has begun, the call that waits in the kernel is checked too late
        said = "0" if may or strict else "EACCES"
    return [f"connect: {said}", f"connected: {'yes' if may or by_agent else 'no'}"]


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.mode}-{c.allowed}-{c.routed}")
def test_landlock(
    case: Case,
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """Landlock's rules hold for connections that pass; the agent's own are made in spite of them.

    The agent makes those that are redirected and, in a strict service, all. A blocking connect()
    outside strict that was redirected is told EACCES, but its socket is connected.
    """
    path = program("landlocked")
    given = str(port_of(greeter.listening))
    way = meshfd.way(greeter.listening) if case.routed else direct_way(greeter.listening)
    allowed = {"asked": [way.words[1]], "given": [given], "none": []}[case.allowed]
    command = [str(path), case.mode, *way.words, *allowed]
    done = processes.run(meshfd.exec(*command, options=way.options + kind))
    require(done.out != "no landlock\n", "the kernel has no Landlock for TCP")
    strict = not meshfd.bare and "--strict" in kind
    by_agent = strict or (not meshfd.bare and case.routed)
    assert done.lines == told(case, by_agent=by_agent, strict=strict), done.err


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_landlock_and_bind(
    kind: tuple[str, ...], meshfd: Meshfd, program: Programs, processes: Processes
) -> None:
    """A bind() that Landlock forbids is forbidden, but where the socket is handed over."""
    meshfd.need()
    words = [str(program("landlocked")), "bind", "127.0.0.1"]
    port, another = free_port(), free_port()
    options = ("--listen", f"127.0.0.1:{port}", *kind)
    bare = processes.run([*words, str(port)])
    require(bare.out != "no landlock\n", "the kernel has no Landlock for TCP")
    assert bare.lines == ["bind: EACCES", "listens: 0"]
    own = processes.run(meshfd.exec(*words, str(another), options=options))
    assert own.lines == bare.lines
    handed = processes.run(meshfd.exec(*words, str(port), options=options))
    assert handed.lines == ["bind: 0", "listens: 1"]
