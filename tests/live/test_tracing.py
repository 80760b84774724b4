"""Tracers and debuggers see a program under meshfd as they would see it alone."""

from __future__ import annotations

import platform
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import KINDS, VIRTUAL, Meshfd, Way, direct_way
from tests.support.need import require, require_tool
from tests.support.processes import Finished, Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter, HttpServer, SilentServer
from tests.support.waiting import wait_until

GREETED = ["connect: 0", "greeting: hello"]

# A call as strace writes it, with or without its process, whole or where it is resumed.
CALL = re.compile(r"^(?:\[pid +\d+\] |\d+ +)?(\w+)\((.*)\) += (.*)$", re.MULTILINE)


def traced(text: str) -> list[tuple[str, ...]]:
    """Return each call that strace has seen: name, arguments, result."""
    return [match.groups() for match in CALL.finditer(text)]


def hide(calls: list[tuple[str, ...]], way: Way) -> list[tuple[str, ...]]:
    """Return calls without the port and the address that a way begins with."""
    return [
        (name, words.replace(str(way.port), "PORT").replace(way.host, "HOST"), result)
        for name, words, result in calls
    ]


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_strace_of_meshfd(
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
    tmp_path: Path,
) -> None:
    """All of it traced, the agent too, it works as ever."""
    meshfd.need()
    way = meshfd.way(greeter.listening)
    log = tmp_path / "log"
    command = meshfd.exec(program("dial"), *way.words, options=way.options + kind)
    strace = [require_tool("strace"), "-f", "-o", str(log), "-e", "trace=network", *command]
    done = processes.run(strace)
    assert done.lines == GREETED, done.err
    assert VIRTUAL in log.read_text()


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("routed", [True, False], ids=["routed", "unrouted"])
def test_strace_under_meshfd(
    kind: tuple[str, ...],
    routed: bool,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
    tmp_path: Path,
) -> None:
    """It shows the calls that the program made, and their results, and nothing of the agent's."""
    direct = direct_way(greeter.listening)
    way = meshfd.way(greeter.listening) if routed else direct
    seen: list[list[tuple[str, ...]]] = []
    for one, options in ((direct, None), (way, way.options + kind)):
        log = tmp_path / f"log-{len(seen)}"
        command = [require_tool("strace"), "-f", "-e", "trace=network", "-o", str(log)]
        command += [str(program("dial")), *one.words, "mapped"]
        if options is not None:
            command = meshfd.exec(*command, options=options)
        done = processes.run(command)
        assert done.lines == GREETED, done.err
        seen.append(hide(traced(log.read_text()), one))
    assert seen[1] == seen[0]
    assert [name for name, *_ in seen[0]] == ["socket", "setsockopt", "connect"]


def has_seccomp_bpf(strace: str) -> bool:
    """Whether this strace has --seccomp-bpf."""
    done = subprocess.run([strace, "--help"], capture_output=True, text=True, check=False)
    return "--seccomp-bpf" in done.stdout


def test_strace_by_a_filter(
    meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter, tmp_path: Path
) -> None:
    """(README, limits.) `strace --seccomp-bpf` misses the calls that meshfd intercepts."""
    meshfd.need()
    strace = require_tool("strace")
    require(has_seccomp_bpf(strace), "strace has no --seccomp-bpf")
    way = meshfd.way(greeter.listening)
    log = tmp_path / "log"
    command = [strace, "-f", "--seccomp-bpf", "-e", "trace=network", "-o", str(log)]
    command += [str(program("dial")), *way.words, "mapped"]
    done = processes.run(meshfd.exec(*command, options=way.options))
    assert done.lines == GREETED, done.err
    assert [name for name, *_ in traced(log.read_text())] == ["socket", "setsockopt"]


def test_strace_of_curl(
    meshfd: Meshfd, processes: Processes, http_server: HttpServer, tmp_path: Path
) -> None:
    """A real client, whose socket is non-blocking and polled, is traced and served."""
    way = meshfd.way(http_server.listening)
    log = tmp_path / "log"
    command = [require_tool("strace"), "-f", "-o", str(log), require_tool("curl"), "-sS"]
    command += ["--noproxy", "*", f"http://{way.host}:{way.port}/"]
    done = processes.run(meshfd.exec(*command, options=way.options))
    assert (done.code, done.out) == (0, "served /\n"), done.err
    results = [result for name, words, result in traced(log.read_text()) if name == "connect"]
    assert any(result.startswith("-1 EINPROGRESS") for result in results), results


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_gdb(
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """A program that was started by gdb stops at connect(), goes on, and is redirected."""
    way = meshfd.way(greeter.listening)
    steps = ["break connect", "run", "finish", "continue"]
    command = [require_tool("gdb"), "--nx", "--batch"]
    command += [word for step in steps for word in ("-ex", step)]
    command += ["--args", str(program("dial")), *way.words]
    done = processes.run(meshfd.exec(*command, options=way.options + kind))
    assert "\nBreakpoint 1, " in done.out, done.err
    assert "\nValue returned is $1 = 0\n" in done.out
    assert [line for line in done.lines if line in GREETED] == GREETED


def look_with_gdb(processes: Processes, pid: str, log: Path) -> str:
    """Attach, look where it is, detach."""
    command = [require_tool("gdb"), "--nx", "--batch", "-ex", "backtrace", "-p", pid]
    return processes.run(command).out


def look_with_strace(processes: Processes, pid: str, log: Path) -> str:
    """Attach, see the call that waits, detach."""
    strace = processes.start([require_tool("strace"), "-f", "-o", str(log), "-p", pid])
    text = wait_until(lambda: log.exists() and log.read_text(), "the call that is under way")
    strace.signal(signal.SIGINT)
    strace.finish()
    return str(text)


@pytest.mark.parametrize(
    ("look", "kind"),
    [
        *((look_with_gdb, kind) for kind in KINDS),
        *((look_with_strace, kind) for kind in KINDS if "--strict" not in kind),
    ],
)
def test_attached_during_connect(
    look: Callable[[Processes, str, Path], str],
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    tmp_path: Path,
) -> None:
    """A connect() that waits is stopped by a debugger that comes, and goes on when it has gone."""
    path = str(program("waits"))
    seen: list[Finished] = []
    for routed in (False, True):
        with SilentServer() as silent:
            way = meshfd.way(silent.listening) if routed else direct_way(silent.listening)
            words = [path, "plain", *way.words]
            if routed:
                words = meshfd.exec(*words, options=way.options + kind)
            running = processes.start(words)
            pid = running.value("pid")
            silent.wait_for_caller()
            assert "connect" in look(processes, pid, tmp_path / f"log-{len(seen)}")
            silent.answer()
            seen.append(running.finish())
    assert seen[1].lines == seen[0].lines, seen[1].err
    assert "connect: 0" in seen[0].lines


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "--strict" in kind], ids=" ".join)
def test_attached_in_strict(
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    silent: SilentServer,
    tmp_path: Path,
) -> None:
    """(README, limits.) Of a connect() that waits in the agent strace hears when it has ended."""
    meshfd.need()
    way = meshfd.way(silent.listening)
    log = tmp_path / "log"
    command = meshfd.exec(program("waits"), "plain", *way.words, options=way.options + kind)
    running = processes.start(command)
    pid = running.value("pid")
    silent.wait_for_caller()
    strace = processes.start([require_tool("strace"), "-o", str(log), "-p", pid])
    status = Path("/proc", pid, "status")
    wait_until(lambda: "\nTracerPid:\t0\n" not in status.read_text(), "the tracer")
    silent.answer()
    assert running.line() == "connect: 0"
    running.finish()
    strace.finish()
    assert "connect" in log.read_text()


@pytest.mark.parametrize(
    ("variant", "kind"), [*(("", kind) for kind in KINDS), ("i386", KINDS[0])], ids=str
)
def test_calls_that_a_tracer_changes(
    variant: str,
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """A call whose number becomes -1 is skipped; one that becomes connect() is redirected."""
    if platform.machine() != "x86_64":
        pytest.skip("the tracer knows the registers of x86 alone")
    path = program("skipping", variant)
    bare = processes.run([path, *direct_way(greeter.listening).words])
    way = meshfd.way(greeter.listening)
    under = processes.run(meshfd.exec(path, *way.words, options=way.options + kind))
    assert bare.code == 0, bare.err
    assert bare.lines[:3] == ["leave: ENOSYS", "leave, peer: ENOTCONN", "leave, then connect: 0"]
    assert "turn into: 0" in bare.lines
    assert under.lines == bare.lines, under.err


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_tracing_others(
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
) -> None:
    """A debugger under meshfd reaches processes outside, but not from a strict service."""
    meshfd.need()
    outside = processes.start([program("sink")])
    outside.value("port")
    gdb = [require_tool("gdb"), "--nx", "--batch", "-ex", "backtrace", "-p", str(outside.pid)]
    done = processes.run(meshfd.exec(*gdb, options=kind))
    assert ("Operation not permitted" in done.err) == ("--strict" in kind), done.err
    assert ("main" in done.out) == ("--strict" not in kind), done.out
