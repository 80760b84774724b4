"""A unix socket that stands in for a TCP socket looks like one."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from tests.support.command import VIRTUAL, Meshfd, Way, direct_way, way_to
from tests.support.need import require_root
from tests.support.ordinary_user import as_ordinary_user, open_to_all
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Echo, FullQueue, Greeter, dead_port, unix_listening
from tests.support.waited import each_way, see_it_refused
from tests.support.waiting import wait_until

MODES = ["talk", "states", "names", "options", "bound", "dups", "parked", "again", "broken"]
HOSTS = {socket.AF_INET: VIRTUAL, socket.AF_INET6: "::1"}


@pytest.fixture(autouse=True)
def _about_meshfd(meshfd: Meshfd) -> None:
    meshfd.need()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory that every user may enter."""
    return open_to_all(tmp_path)


def transcript(lines: list[str]) -> list[str]:
    """Leave out what differs between any two connections: the addresses themselves."""
    return [re.sub(r"^(peer|local)(: \w+, \d+,).*", r"\1\2", line) for line in lines]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "extra",
    [(), ("--strict",), ("--track", "create"), ("--strict", "--transparent")],
    ids=["plain", "strict", "create", "transparent"],
)
def test_like_tcp(
    mode: str,
    extra: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    directory: Path,
) -> None:
    """A program that does all sorts of things prints the same over both kinds of socket."""
    path = program("standin")
    where = str(directory / "echo.sock")
    with Echo() as tcp, Echo(where):
        bare = processes.run([path, mode, *direct_way(tcp.listening).words])
        way = way_to(f"unix:{where}")
        under = processes.run(meshfd.exec(path, mode, *way.words, options=way.options + extra))
    assert (bare.code, under.code) == (0, 0), under.err
    assert transcript(under.lines) == transcript(bare.lines)


@pytest.mark.parametrize("mode", MODES)
def test_like_tcp_ipv6(
    mode: str, meshfd: Meshfd, program: Programs, processes: Processes, directory: Path
) -> None:
    """So it does with AF_INET6 sockets."""
    path = program("standin")
    where = str(directory / "echo.sock")
    with Echo(family=socket.AF_INET6) as tcp, Echo(where):
        bare = processes.run([path, mode, *direct_way(tcp.listening).words])
        way = way_to(f"unix:{where}", host="2001:db8::66")
        under = processes.run(meshfd.exec(path, mode, *way.words, options=way.options))
    assert (bare.code, under.code) == (0, 0), under.err
    assert transcript(under.lines) == transcript(bare.lines)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("variant", ["static", "i386"])
def test_like_tcp_in_other_programs(
    mode: str,
    variant: str,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    directory: Path,
) -> None:
    """Static and 32-bit programs see no difference either."""
    path = program("standin", variant)
    where = str(directory / "echo.sock")
    with Echo() as tcp, Echo(where):
        bare = processes.run([path, mode, *direct_way(tcp.listening).words])
        way = way_to(f"unix:{where}")
        under = processes.run(meshfd.exec(path, mode, *way.words, options=way.options))
    assert (bare.code, under.code) == (0, 0), under.err
    assert transcript(under.lines) == transcript(bare.lines)


def peer_name(lines: list[str], length: int) -> str:
    """Return the bytes of the first name that was asked for with this much room."""
    pattern = re.compile(rf"peer: 0, {length}, (.*)")
    names = [found[1] for line in lines if (found := pattern.fullmatch(line))]
    return next(name for name in names if name.count("ee") == 40 - length)


@pytest.mark.parametrize(
    ("host", "packed"),
    [
        (VIRTUAL, bytes((2, 0, 0, 80, 127, 66, 0, 1)) + bytes(8)),
        (
            "2001:db8::66",
            bytes((10, 0, 0, 80, 0, 0, 0, 0, 0x20, 1, 0x0D, 0xB8))
            + bytes(11)
            + bytes((0x66, 0, 0, 0, 0)),
        ),
    ],
    ids=["ipv4", "ipv6"],
)
def test_peer(
    host: str,
    packed: bytes,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    directory: Path,
) -> None:
    """The peer's name is the address that was asked for, and nothing is written past it."""
    where = str(directory / "echo.sock")
    way = way_to(f"unix:{where}", host=host)
    with Echo(where):
        done = processes.run(
            meshfd.exec(program("standin"), "names", *way.words, options=way.options)
        )
    expected = packed + b"\xee" * (40 - len(packed))
    assert peer_name(done.lines, len(packed)) == expected.hex(" ")


def test_unspec(meshfd: Meshfd, program: Programs, processes: Processes, directory: Path) -> None:
    """A stand-in cannot be made unconnected: EAFNOSUPPORT, and it works on."""
    where = str(directory / "echo.sock")
    way = way_to(f"unix:{where}")
    with Echo(where):
        done = processes.run(
            meshfd.exec(program("standin"), "unspec", *way.words, options=way.options)
        )
    assert done.lines == [
        "connect: 0",
        "AF_UNSPEC: EAFNOSUPPORT",
        "AF_UNSPEC: EAFNOSUPPORT",
        'greeting: "hello"',
    ]


@pytest.mark.parametrize("mode", ["accepted", "flags"])
def test_attempt(
    mode: str, meshfd: Meshfd, program: Programs, processes: Processes, directory: Path
) -> None:
    """A non-blocking connect goes through the states of a TCP socket's: EINPROGRESS, 0, EISCONN."""
    path = program("states")
    where = str(directory / "greeter.sock")
    with Greeter() as tcp, Greeter(where=where):
        bare = processes.run([path, mode, *direct_way(tcp.listening).words])
        way = way_to(f"unix:{where}")
        under = processes.run(meshfd.exec(path, mode, *way.words, options=way.options))
    assert under.lines == bare.lines, under.err


def test_rebound(meshfd: Meshfd, program: Programs, processes: Processes, directory: Path) -> None:
    """Nobody holds the socket that was replaced: the address that it was bound to is free."""
    where = str(directory / "echo.sock")
    way = way_to(f"unix:{where}")
    with Echo(where):
        done = processes.run(
            meshfd.exec(program("standin"), "rebound", *way.words, options=way.options)
        )
    assert done.lines == ["bind: 0", "connect: 0", "bind another: 0"]


def test_abstract(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """An abstract name is one in the service's network namespace."""
    name = f"@meshfd-test-{os.getpid()}"
    way = way_to(f"unix:{name}")
    with Echo(name):
        done = processes.run(
            meshfd.exec(
                program("standin"), "hello", *way.words, options=(*way.options, "--log", "-")
            )
        )
    assert "hello" in done.out
    assert f"connect 127.66.0.1:80 -> unix:{name} (" in done.err


def test_candidates(
    meshfd: Meshfd, program: Programs, processes: Processes, directory: Path
) -> None:
    """What cannot be connected to makes room: no such path, nobody listening, a full queue."""
    where, full, dead = (str(directory / name) for name in ("echo", "full", "dead"))
    unix_listening(dead).close()
    path = program("standin")
    with Echo(where), FullQueue(full), dead_port() as port:
        for targets, expected in (
            ((f"unix:{full}", f"unix:{where}"), ["connect: 0", 'greeting: "hello"']),
            ((f"unix:{directory}",), ["connect: ECONNREFUSED"]),
        ):
            refused = (f"unix:{directory}/none", f"unix:{dead}", f"127.0.0.1:{port}")
            way = way_to(*refused, *targets)
            done = processes.run(meshfd.exec(path, "hello", *way.words, options=way.options))
            assert done.lines == expected, done.err


def test_nobody_there(
    meshfd: Meshfd, program: Programs, processes: Processes, directory: Path
) -> None:
    """Where no endpoint serves, connect() is refused, and the socket can be used for another."""
    way = way_to(f"unix:{directory}/none")
    done = processes.run(meshfd.exec(program("standin"), "hello", *way.words, options=way.options))
    assert done.lines[0] == "connect: ECONNREFUSED"


def test_internet_after_unix(
    meshfd: Meshfd, program: Programs, processes: Processes, directory: Path
) -> None:
    """An internet endpoint after a unix socket that refuses is connected in place."""
    path = program("standin")
    with Echo() as tcp:
        host, port = direct_way(tcp.listening).words
        way = way_to(f"unix:{directory}/none", f"{host}:{port}")
        bare = processes.run([path, "parked", host, port])
        under = processes.run(meshfd.exec(path, "parked", *way.words, options=way.options))
    assert under.lines == bare.lines, under.err


@pytest.mark.parametrize("target", ["pass", "127.0.0.1", "deny"])
def test_parked_then_in_place(
    target: str, meshfd: Meshfd, program: Programs, processes: Processes
) -> None:
    """Registrations that were parked are there whatever connect() comes to."""
    path = program("standin")
    with Echo() as tcp:
        host, port = direct_way(tcp.listening).words
        bare = processes.run([path, "parked", host, port])
        options: tuple[str, ...] = ("--route", "10.0.0.1:1=unix:@none")
        if target == "127.0.0.1":
            options = (*options, "--route", f"127.66.0.1:80=127.0.0.1:{port}")
            host, port = "127.66.0.1", "80"
        if target == "deny":
            way = Way(host, int(port), (*options, "--deny", f"{host}:{port}"))
            done = processes.run(
                meshfd.exec(program("standin"), "denied", *way.words, options=way.options)
            )
            assert done.lines == ["connect: ECONNREFUSED", "hup: 1 0x14 7"]
            return
        under = processes.run(meshfd.exec(path, "parked", host, port, options=options))
    assert under.lines == bare.lines, under.err


def test_ordinary_user(
    meshfd: Meshfd, program: Programs, processes: Processes, directory: Path
) -> None:
    """Nobody needs to be root for this: names, options, dups and parked registrations work."""
    path = program("standin")
    where = str(directory / "echo.sock")
    way = way_to(f"unix:{where}")
    with Echo() as tcp, Echo(where):
        for mode in ("names", "options", "dups", "parked"):
            bare = processes.run([path, mode, *direct_way(tcp.listening).words])
            command = meshfd.exec(path, mode, *way.words, options=way.options)
            under = processes.run(as_ordinary_user(command))
            assert transcript(under.lines) == transcript(bare.lines), under.err


def test_forbidden_path(
    meshfd: Meshfd, program: Programs, processes: Processes, directory: Path
) -> None:
    """A socket that the user may not connect to is one that refuses."""
    require_root()
    where = directory / "echo.sock"
    way = way_to(f"unix:{where}")
    with Echo(str(where)):
        where.chmod(0o700)
        command = meshfd.exec(program("standin"), "hello", *way.words, options=way.options)
        done = processes.run(as_ordinary_user(command))
    assert done.lines == ["connect: ECONNREFUSED"]


def test_many_instances(
    meshfd: Meshfd, program: Programs, processes: Processes, directory: Path
) -> None:
    """A socket that is in 500 instances before connect() is in all of them afterwards."""
    where = str(directory / "echo.sock")
    way = way_to(f"unix:{where}")
    with Echo(where):
        done = processes.run(
            meshfd.exec(program("standin"), "many", *way.words, options=way.options)
        )
    assert done.lines == ["connect: 0", "ready: 500", 'greeting: "hello"', "ready: 0"]


@pytest.mark.parametrize("mode", ["dup", "exec", "pass", "threads", "late"])
def test_sharing(
    mode: str, meshfd: Meshfd, program: Programs, processes: Processes, directory: Path
) -> None:
    """Duplicates, new images, receivers and threads have the stand-in."""
    path = program("sharing")
    where = str(directory / "greeter.sock")
    with Greeter() as tcp, Greeter(where=where):
        bare = processes.run([path, mode, *direct_way(tcp.listening).words])
        way = way_to(f"unix:{where}")
        options = (*way.options, "--log", "-")
        under = processes.run(meshfd.exec(path, mode, *way.words, options=options))
    assert (bare.code, under.code) == (0, 0), under.err
    assert under.lines == bare.lines
    assert "shares" not in under.err


def test_shared_by_another_process(
    meshfd: Meshfd, program: Programs, processes: Processes, directory: Path
) -> None:
    """A process that had the socket before keeps an unconnected one, and the log says so."""
    where = str(directory / "echo.sock")
    way = way_to(f"unix:{where}")
    said = "another process shares the socket that was replaced"
    with Echo(where):
        options = (*way.options, "--log", "-")
        running = processes.start(
            meshfd.exec(program("standin"), "shared", *way.words, options=options)
        )
        assert running.line() == "connect: 0"
        wait_until(lambda: said in running.errors(), "a notice")
        running.tell()
        done = running.finish()
    assert done.lines == ['greeting: "hello"', "the child's: ENOTCONN"]


# What a unix socket cannot hold, or the connection itself changes.
NOT_KEPT = {"SO_REUSEPORT", "SO_ZEROCOPY"}


@pytest.mark.parametrize("family", [[], ["mapped"]], ids=["v4", "v6"])
@pytest.mark.parametrize("ordinary", [False, True], ids=["", "ordinary"])
def test_options_kept(
    family: list[str],
    ordinary: bool,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    directory: Path,
) -> None:
    """Every option that was set before connect() reads the same afterwards."""
    path = program("options_kept")
    where = str(directory / "greeter.sock")
    way = way_to(f"unix:{where}")
    with Greeter() as tcp, Greeter(where=where):
        commands = [
            [str(path), *direct_way(tcp.listening).words, *family],
            meshfd.exec(path, *way.words, *family, options=way.options),
        ]
        if ordinary:
            commands = [as_ordinary_user(command) for command in commands]
        bare, under = (
            [
                line
                for line in processes.run(command, cwd="/").lines
                if line.split(" after:")[0] not in NOT_KEPT
            ]
            for command in commands
        )
    assert bare[-1] == "greeting: hello"
    assert under == bare


def test_registered_before(
    meshfd: Meshfd, program: Programs, processes: Processes, directory: Path
) -> None:
    """A socket whose first attempt was refused is in its instance; it stays when it is replaced."""
    where = str(directory / "echo.sock")
    way = way_to(f"unix:{where}")
    with Echo(where), dead_port() as port:
        options = (*way.options, "--route", f"127.66.0.2:80=127.0.0.1:{port}")
        done = processes.run(
            meshfd.exec(program("standin"), "retry", *way.words, "127.66.0.2", options=options)
        )
    assert done.lines == [
        "connect: EINPROGRESS",
        "refused: ECONNREFUSED",
        "connect: EINPROGRESS",
        "in: 1 0x1 7",
        'greeting: "hello"',
    ]


@each_way
@pytest.mark.parametrize("variant", ["", "i386"])
def test_waited_for(
    variant: str,
    mode: str,
    expected: list[str],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    directory: Path,
) -> None:
    """A thread that sleeps on the socket would never wake: connect() is refused, and says why."""
    where = str(directory / "echo.sock")
    way = way_to(f"unix:{where}")
    with Echo(where):
        command = meshfd.exec(
            program("standin", variant), mode, *way.words, options=(*way.options, "--log", "-")
        )
        running = processes.start(command)
        see_it_refused(running, expected)
