"""Programs of one service in different classes of net_cls; and an agent that may not follow.

That all sockets of one program have its class is seen in `test_belonging`.
"""

from __future__ import annotations

import socket
import sys
from functools import partial
from typing import Final

import pytest

from tests.support.cgroups import is_removed, open_class
from tests.support.command import Meshfd
from tests.support.ordinary_user import as_ordinary_user
from tests.support.processes import Processes
from tests.support.servers import Greeter, free_port
from tests.support.sock_diag import find_sockets
from tests.support.waiting import wait_until

FIRST_ID: Final = 0x00104711
SECOND_ID: Final = 0x00104712

# PAIR HOST PORT [CGROUP LISTEN_PORT] ...: a program for each pair, in that cgroup, which listens at
# LISTEN_PORT. At a line with its number it connects to HOST:PORT, and the inodes of both sockets
# are said; at minus its number, less 1, it ends.
PAIR: Final = """
import os, socket, sys

def serve(channel, directory, listen_port):
    with open(directory + "/cgroup.procs", "w") as file:
        file.write("0")
    listening = socket.create_server(("127.0.0.1", int(listen_port)))
    connected = []
    while channel.recv(1):
        connected.append(socket.create_connection((sys.argv[1], int(sys.argv[2]))))
        inodes = [os.fstat(one.fileno()).st_ino for one in (listening, connected[-1])]
        channel.send(" ".join(map(str, inodes)).encode())
    os._exit(0)

channels, pids = [], []
for own in zip(sys.argv[3::2], sys.argv[4::2]):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channels.append(ours)
    pids.append(os.fork())
    if pids[-1] == 0:
        for one in channels:
            one.close()
        serve(theirs, *own)
    theirs.close()
for line in sys.stdin:
    number = int(line)
    if number < 0:
        channels[-1 - number].close()
        os.waitpid(pids[-1 - number], 0)
        print("ended", flush=True)
    else:
        channels[number].send(b"?")
        print(channels[number].recv(100).decode(), flush=True)
"""

# CLIENT HOST PORT: connects two times.
CLIENT: Final = """
import socket, sys
for _ in range(2):
    socket.create_connection((sys.argv[1], int(sys.argv[2]))).close()
"""


@pytest.fixture(autouse=True)
def _about_meshfd(meshfd: Meshfd) -> None:
    meshfd.need()


def class_ids(inodes: str) -> list[int | None]:
    """Return the classes of these sockets."""
    found = find_sockets(socket.AF_INET)
    return [found[int(inode)].class_id for inode in inodes.split()]


@pytest.mark.parametrize("track", ["connect", "create"])
def test_two_classes(track: str, meshfd: Meshfd, processes: Processes) -> None:
    """Each program's sockets have its own class, and keep it when others' calls are answered.

    When one program has ended its cgroup can be removed, and the other's sockets are as before.
    """
    ports = [str(free_port()), str(free_port())]
    with (
        open_class(FIRST_ID) as first,
        open_class(SECOND_ID) as second,
        Greeter("blue") as server,
    ):
        way = meshfd.way(server.listening)
        listen = [word for port in ports for word in ("--listen", f"127.0.0.1:{port}")]
        command = [sys.executable, "-c", PAIR, *way.words]
        command += [str(first), ports[0], str(second), ports[1]]
        options = ("--track", track, *listen, *way.options)
        running = processes.start(meshfd.exec(*command, options=options))
        said: list[list[str]] = [[], []]
        for number in (0, 1, 0, 1):
            running.tell(str(number))
            said[number].append(running.line())
        assert [class_ids(inodes) for inodes in said[0]] == [[FIRST_ID, FIRST_ID]] * 2
        assert [class_ids(inodes) for inodes in said[1]] == [[SECOND_ID, SECOND_ID]] * 2
        running.tell("-2")
        assert running.line() == "ended"
        wait_until(partial(is_removed, second), "the end of the second cgroup")
        running.tell("0")
        said[0].append(running.line())
        assert [class_ids(inodes) for inodes in said[0]] == [[FIRST_ID, FIRST_ID]] * 3
        assert running.finish().code == 0
    assert server.n_greeted == 5


def test_ordinary_user(meshfd: Meshfd, processes: Processes) -> None:
    """Where the agent may not put a process into the program's cgroup, the log says so, once."""
    with open_class(FIRST_ID) as directory, Greeter("blue") as server:
        way = meshfd.way(server.listening)
        inner = ["sh", "-c", 'echo $$; read -r line; exec "$@"', "sh"]
        client = [sys.executable, "-c", CLIENT, *way.words]
        command = meshfd.exec(*inner, *client, options=("--log", "-", *way.options))
        running = processes.start(as_ordinary_user(command))
        (directory / "cgroup.procs").write_text(running.line())
        running.tell()
        done = running.finish()
    assert done.code == 0
    (notice,) = [line for line in done.err.splitlines() if "net_cls" in line]
    assert "Permission denied" in notice
