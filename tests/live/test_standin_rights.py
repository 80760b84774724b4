"""A unix socket is connected to as the program is, with no right of the agent's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.command import Meshfd, direct_way, way_to
from tests.support.need import require, require_root, require_tool
from tests.support.ordinary_user import NOBODY, open_to_all
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Echo

GROUP = 54321
DROPPED = [f"--reuid={NOBODY}", f"--regid={NOBODY}"]
SERVED = ["connect: 0", 'greeting: "hello"']
REFUSED = ["connect: ECONNREFUSED"]


@pytest.fixture(autouse=True)
def _about_meshfd(meshfd: Meshfd) -> None:
    meshfd.need()
    require_root()


@pytest.fixture
def where(tmp_path: Path) -> Path:
    """Return where a socket is made: in a directory that every user may enter."""
    return open_to_all(tmp_path) / "echo.sock"


@pytest.mark.parametrize(
    ("words", "owner", "group", "mode", "expected"),
    [
        ([*DROPPED, "--clear-groups"], 0, 0, 0o700, REFUSED),
        ([*DROPPED, "--clear-groups"], NOBODY, 0, 0o700, SERVED),
        ([*DROPPED, "--clear-groups"], 0, GROUP, 0o770, REFUSED),
        ([*DROPPED, f"--groups=7,{GROUP}"], 0, GROUP, 0o770, SERVED),
        ([f"--reuid={NOBODY}", "--keep-groups"], 0, 0, 0o770, SERVED),
        (["--bounding-set=-all"], NOBODY, 0, 0o700, REFUSED),
        ([f"--groups={','.join(map(str, range(1000, 1200)))},{GROUP}"], 0, GROUP, 0o070, SERVED),
    ],
    ids=["user", "owner", "no-group", "group", "first-group", "capabilities", "many-groups"],
)
def test_as_the_program(
    words: list[str],
    owner: int,
    group: int,
    mode: int,
    expected: list[str],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    where: Path,
) -> None:
    """A program that has changed since it was started may connect where it may now."""
    way = way_to(f"unix:{where}")
    command = [require_tool("setpriv"), *words, str(program("standin")), "hello", *way.words]
    with Echo(str(where)):
        os.chown(where, owner, group)
        where.chmod(mode)
        done = processes.run(meshfd.exec(*command, options=way.options))
    assert done.lines == expected, done.err


@pytest.mark.parametrize(("owner", "expected"), [(0, SERVED), (NOBODY, REFUSED)])
def test_user_namespace(
    owner: int,
    expected: list[str],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    where: Path,
) -> None:
    """Who is root in a user namespace of its own has no capabilities outside."""
    way = way_to(f"unix:{where}")
    words = [require_tool("unshare"), "--user", "--map-root-user", "--"]
    require(processes.run([*words, "true"]).code == 0, "no user namespace can be made")
    command = [*words, str(program("standin")), "hello", *way.words]
    with Echo(str(where)):
        os.chown(where, owner, owner)
        where.chmod(0o700)
        done = processes.run(meshfd.exec(*command, options=way.options))
    assert done.lines == expected, done.err


def test_changed_root(
    meshfd: Meshfd, program: Programs, processes: Processes, where: Path, tmp_path: Path
) -> None:
    """A program that sees nothing but itself is connected to the path that meshfd sees."""
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(program("standin", "static"), root / "standin")
    way = way_to(f"unix:{where}")
    inner = [require_tool("chroot"), str(root), "/standin", "hello", *way.words]
    with Echo(str(where)):
        for kind in ((), ("--strict",)):
            done = processes.run(meshfd.exec(*inner, options=way.options + kind))
            assert done.lines == SERVED, done.err


def test_who_it_was(meshfd: Meshfd, program: Programs, processes: Processes, where: Path) -> None:
    """The server is told the user and the group of the program that connects, each time anew."""
    way = way_to(f"unix:{where}")
    path, setpriv = program("standin"), require_tool("setpriv")
    each = f"{path} hello {' '.join(way.words)}"
    script = f"{setpriv} --reuid=7 --regid=8 --clear-groups {each}; {each}"
    with Echo(str(where)) as echo:
        done = processes.run(meshfd.exec("sh", "-c", script, options=way.options))
    assert done.lines == SERVED * 2
    assert [peer[1:] for peer in echo.peers] == [(7, 8), (0, 0)]


CONGESTION = """\
use Socket;
socket(S, PF_INET, SOCK_STREAM, 0);
connect(S, sockaddr_in($ARGV[1], inet_aton($ARGV[0]))) or die;
for (@ARGV[2..$#ARGV]) { print "$_: ", (setsockopt(S, 6, 13, $_) ? 0 : $!+0), "\n" }
"""


def test_option_that_needs_a_right(meshfd: Meshfd, processes: Processes, where: Path) -> None:
    """A congestion control that is for the privileged alone can be chosen by nobody else."""
    names = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    drop = [require_tool("setpriv"), *DROPPED, "--clear-groups", require_tool("perl"), "-e"]
    way = way_to(f"unix:{where}")
    with Echo() as tcp, Echo(str(where)):
        to = direct_way(tcp.listening)
        bare = processes.run([*drop, CONGESTION, *to.words, *names, "none"])
        command = [*drop, CONGESTION, *way.words, *names, "none"]
        under = processes.run(meshfd.exec(*command, options=way.options))
    assert bare.lines[-1] == "none: 2", bare.err
    assert under.lines == bare.lines, under.err


def test_agent_is_itself_again(
    meshfd: Meshfd, program: Programs, processes: Processes, where: Path
) -> None:
    """Afterwards a program of another user is served as before, and the agent cannot be traced."""
    way = way_to(f"unix:{where}")
    path, setpriv = program("standin"), require_tool("setpriv")
    drop = f"{setpriv} --reuid=7 --regid=8 --clear-groups"
    look = (
        'agent=$(ps -o ppid= -p $$); cat /proc/$agent/status; stat -c "owner %u" /proc/$agent/mem'
    )
    talk = f"{drop} {path} hello {' '.join(way.words)}"
    with Echo(str(where)):
        done = processes.run(
            meshfd.exec("bash", "-c", f"{look}; {talk}; {look}", options=way.options)
        )
    before, after = done.out.split("\n".join(SERVED))
    kept = ("Uid:", "Gid:", "Groups:", "Cap", "owner")

    def identity(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith(kept)]

    assert identity(after) == identity(before)
    assert "owner 0" in before
