"""A program that confines itself by Landlock: its rules hold for what the agent does for it, too.

native/forbidden.c: the agent learns which ports a program of the service has forbidden itself, and
leaves what is about these to the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.support.command import KINDS, Meshfd, Way, direct_way
from tests.support.need import require, require_root
from tests.support.ordinary_user import as_ordinary_user
from tests.support.processes import Finished, Processes, children_of, held_fds
from tests.support.programs import Programs
from tests.support.servers import Greeter, free_port, port_of
from tests.support.waiting import wait_until

STRICT = [(), ("--strict",)]
NOTICE = "forbidden itself this port"


@dataclass(frozen=True, slots=True)
class Case:
    """A program that allows itself to connect to a port, and where connect() leads it."""

    mode: str
    allowed: str  # "asked": the port that it connects to; "given": the endpoint's; "none"
    routed: bool

    @property
    def may(self) -> bool:
        """Whether the port that is asked for is allowed; the endpoint's is nobody's concern."""
        return self.allowed == "asked" or (not self.routed and self.allowed == "given")


CASES = [
    Case(mode, allowed, routed)
    for mode in ("blocking", "nonblocking")
    for allowed in ("asked", "given", "none")
    for routed in (False, True)
]


def run(processes: Processes, command: list[str]) -> Finished:
    """Run it, on a kernel that has what it needs."""
    done = processes.run(command)
    require(done.out != "no landlock\n", "the kernel has no Landlock for TCP")
    return done


def words_of(program: Programs, mode: str, way: Way, *allowed: str) -> list[str]:
    """Return the test program's command."""
    return [str(program("landlocked")), mode, *way.words, *allowed]


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.mode}-{c.allowed}-{c.routed}")
def test_connect(
    case: Case,
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """Landlock's rules hold for what the agent connects: about the port that was asked for."""
    given = str(port_of(greeter.listening))
    way = meshfd.way(greeter.listening) if case.routed else direct_way(greeter.listening)
    allowed = {"asked": [way.words[1]], "given": [given], "none": []}[case.allowed]
    command = words_of(program, case.mode, way, *allowed)
    done = run(processes, meshfd.exec(*command, options=way.options + kind))
    success = "EINPROGRESS" if case.mode == "nonblocking" else "0"
    assert done.lines == (
        [f"connect: {success}", "connected: yes"]
        if case.may
        else ["connect: EACCES", "connected: no"]
    ), done.err
    assert (NOTICE in done.err) == (case.routed and not case.may and not meshfd.bare)


@pytest.mark.parametrize("ordinary", [False, True], ids=["", "ordinary"])
@pytest.mark.parametrize("kind", STRICT, ids=" ".join)
def test_two_rulesets(
    kind: tuple[str, ...],
    ordinary: bool,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """What a second ruleset forbids is forbidden, whatever the first has allowed."""
    way = meshfd.way(greeter.listening)
    for mode, result in (("blocking", "0"), ("narrowed", "EACCES")):
        command = words_of(program, mode, way, way.words[1])
        under = meshfd.exec(*command, options=way.options + kind)
        done = run(processes, as_ordinary_user(under) if ordinary else under)
        assert done.lines[0] == f"connect: {result}", done.err


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_rule_about_files(
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """A rule about files forbids no port: the program is redirected as ever."""
    way = meshfd.way(greeter.listening)
    done = run(processes, meshfd.exec(*words_of(program, "files", way), options=way.options + kind))
    assert done.lines == ["connect: 0", "connected: yes"], done.err


@pytest.mark.parametrize("kind", STRICT, ids=" ".join)
def test_rule_of_another(
    kind: tuple[str, ...], meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter
) -> None:
    """README, limits: a port that one program has forbidden itself is redirected for none.

    The kernel lets the other connect to where it asked for, which is said; strict refuses.
    """
    meshfd.need()
    way = meshfd.way(greeter.listening)
    command = meshfd.exec(*words_of(program, "other", way), options=way.options + kind)
    done = run(processes, command)
    result = "EACCES" if kind else "ECONNREFUSED"
    assert done.lines == [f"connect: {result}", "connected: no"]
    assert NOTICE in done.err
    assert greeter.n_greeted == 0


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_bind(
    kind: tuple[str, ...], meshfd: Meshfd, program: Programs, processes: Processes
) -> None:
    """A bind() that Landlock forbids is forbidden, also where a socket would be handed over."""
    meshfd.need()
    port, another = free_port(), free_port()
    options = ("--listen", f"127.0.0.1:{port}", *kind)
    for own in (port, another):
        command = words_of(program, "bind", Way("127.0.0.1", own))
        bare = run(processes, command)
        under = run(processes, meshfd.exec(*command, options=options))
        assert bare.lines == ["bind: EACCES", "listens: 0"]
        assert under.lines == bare.lines


@pytest.mark.parametrize("kind", STRICT, ids=" ".join)
def test_errors(
    kind: tuple[str, ...], meshfd: Meshfd, program: Programs, processes: Processes
) -> None:
    """What landlock_restrict_self() says of nonsense is the kernel's; strict has one layer."""
    command = words_of(program, "errors", Way("127.0.0.1", 9))
    bare = run(processes, as_ordinary_user(command))
    under = run(processes, as_ordinary_user(meshfd.exec(*command, options=kind)))
    said = [*bare.lines]
    if not meshfd.bare:  # README, limits: no_new_privs is set for an ordinary user
        assert said[0] == "with privileges to gain: EPERM"
        said[0] = "with privileges to gain: 0"
        said[-2] = "layer: E2BIG"  # and that was one layer
        said[-3] = "layer: E2BIG" if kind else said[-3]
    assert under.lines == said


@pytest.mark.parametrize("kind", STRICT, ids=" ".join)
def test_many_at_once(
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """Many that confine themselves at once are all confined."""
    way = meshfd.way(greeter.listening)
    command = words_of(program, "crowd", way)
    done = run(processes, meshfd.exec(*command, options=way.options + kind))
    (line,) = done.lines
    found, _, wanted = line.removeprefix("as it should be: ").partition(" of ")
    assert found == wanted, done.err
    assert greeter.n_greeted == 0


def test_flood(meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter) -> None:
    """More than the agent can look into at once are told ENOMEM; others are served meanwhile."""
    meshfd.need()
    way = meshfd.way(greeter.listening)
    done = run(processes, meshfd.exec(*words_of(program, "flood", way), options=way.options))
    assert done.lines == ["told ENOMEM: 1", "connect: 0", "connected: yes"], done.err


def test_nothing_is_left(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """Calls whose programs are killed in the middle leave the agent no fd and no process."""
    require_root()  # an agent's fds are out of an ordinary user's sight
    meshfd.need()
    script = 'echo $PPID; read go; "$@" victims 127.0.0.1 9; "$@" crowd 127.0.0.1 9; read go'
    shell = processes.start(meshfd.exec("sh", "-c", script, "sh", program("landlocked")))
    agent = int(shell.line())
    fds, children = held_fds(agent), children_of(agent)
    shell.tell()
    assert shell.line() == "as it should be: 40 of 40"
    wait_until(lambda: children_of(agent) == children, "the end of the agent's own children")
    # a moment after its start an agent keeps a pidfd of a thread that has called
    wait_until(lambda: set(held_fds(agent)) <= set(fds), "the end of what the agent held")
    shell.tell()
    assert shell.finish().code == 0
