"""bind() receives the listening socket that meshfd opened before the program started."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.support.command import COMMAND, Meshfd, Word, written
from tests.support.ordinary_user import as_ordinary_user
from tests.support.processes import Processes, Program
from tests.support.programs import Programs
from tests.support.servers import free_port, read_all
from tests.support.waiting import DEADLINE_S, wait_until

FLAGS = ["", "n", "c", "nc", "e", "nce", "o", "nceo"]

# Says that it is there, and becomes the rest of its arguments when it is told to.
LATER = ("sh", "-c", 'echo up; read go; exec "$@"', "sh")


def caller(host: str, port: int) -> socket.socket:
    """Return a connection, as soon as there can be one, over which one byte was sent."""

    def connect() -> socket.socket | None:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection((host, port), DEADLINE_S)
        return None

    client = wait_until(connect, f"a server on {host}:{port}")
    client.sendall(b"?")
    return client


def serve_one(running: Program, host: str, port: int) -> list[str]:
    """Be a client of handover.c; return its transcript."""
    with caller(host, port) as client:
        assert read_all(client) == b"hello\n"
    done = running.finish()
    assert done.code == 0, done.err
    return done.lines


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("variant", ["", "i386"])
def test_same_as_bare(
    flags: str, variant: str, meshfd: Meshfd, program: Programs, processes: Processes
) -> None:
    """Flags, options, name and epoll registration are those of a socket that it bound itself.

    bind() returns 0, as it should, not a number.
    """
    port = free_port()
    command: list[Word] = [program("handover", variant), "127.0.0.1", str(port), flags]
    options = ("--listen", f"127.0.0.1:{port}")
    under = serve_one(processes.start(meshfd.exec(*command, options=options)), "127.0.0.1", port)
    bare = serve_one(processes.start(command), "127.0.0.1", port)
    assert under == bare


@pytest.mark.parametrize("options", [(), ("--track", "create"), ("--strict",)])
def test_client_before_bind(
    options: tuple[str, ...], meshfd: Meshfd, program: Programs, processes: Processes
) -> None:
    """A client that connects before the program binds is served."""
    meshfd.need()
    port = free_port()
    running = processes.start(
        meshfd.exec(
            *LATER,
            program("handover"),
            "127.0.0.1",
            str(port),
            options=("--listen", f"web=127.0.0.1:{port}", *options),
        )
    )
    assert running.line() == "up"
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
        client.sendall(b"?")
        running.tell()
        assert read_all(client) == b"hello\n"
    assert running.finish().code == 0


@pytest.mark.parametrize(
    ("listen", "bind", "client"),
    [
        pytest.param("127.0.0.1", "127.0.0.1", "127.0.0.1", id="v4"),
        pytest.param("0.0.0.0", "0.0.0.0", "127.0.0.1", id="any-v4"),
        pytest.param("::1", "::1", "::1", id="v6"),
        pytest.param("::", "::", "::1", id="any-v6"),
        pytest.param("::", "::", "127.0.0.1", id="any-v6-by-v4"),
        pytest.param("0.0.0.0", "::", "127.0.0.1", id="any-v4-for-dual-stack"),
        pytest.param("127.0.0.1", "::ffff:127.0.0.1", "127.0.0.1", id="v4-for-mapped"),
    ],
)
def test_addresses(
    listen: str,
    bind: str,
    client: str,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
) -> None:
    """Addresses are compared by what they mean: v4-mapped, wildcards, dual stack."""
    meshfd.need()
    port = free_port(socket.AF_INET6 if ":" in listen else socket.AF_INET, listen)
    command: list[Word] = [*LATER, program("handover"), bind, str(port)]
    running = processes.start(meshfd.exec(*command, options=("--listen", written(listen, port))))
    assert running.line() == "up"
    with socket.create_connection((client, port), DEADLINE_S) as early:
        early.sendall(b"?")
        running.tell()
        assert read_all(early) == b"hello\n"
    lines = running.finish().lines
    assert "bind: 0" in lines


# Binds, says what became of it, and the family in which accept() tells its client.
ACCEPT = """
import socket, sys
one = socket.socket(socket.AF_INET6)
one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
try:
    one.bind((sys.argv[1], int(sys.argv[2])))
except OSError as error:
    print(error.errno)
else:
    one.listen()
    print(one.accept()[1][0], one.getsockname()[0])
"""


@pytest.mark.parametrize(
    ("listen", "bind", "said"),
    [
        ("0.0.0.0", "::", str(errno.EADDRINUSE)),
        ("127.0.0.1", "::ffff:127.0.0.1", str(errno.EADDRINUSE)),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", "::ffff:127.0.0.1 ::ffff:127.0.0.1"),
        ("::", "::", "::ffff:127.0.0.1 ::"),
    ],
)
def test_transparent(
    listen: str, bind: str, said: str, meshfd: Meshfd, processes: Processes
) -> None:
    """A transparent service is handed sockets of its own family only: accept() tells that."""
    meshfd.need()
    port = free_port(socket.AF_INET6 if listen == "::" else socket.AF_INET)
    command = (sys.executable, "-c", ACCEPT, bind, str(port))
    options = ("--transparent", "--listen", written(listen, port))
    running = processes.start(meshfd.exec(*command, options=options))
    is_handed = said != str(errno.EADDRINUSE)  # else it ends, perhaps before anybody has called
    with caller("127.0.0.1", port) if is_handed else contextlib.nullcontext():
        assert running.line() == said
    running.finish()


@pytest.mark.parametrize(
    ("listen", "bind"), [("::", "0.0.0.0"), ("127.0.0.1", "0.0.0.0"), ("127.0.0.1", "127.0.0.2")]
)
def test_mismatch(
    listen: str, bind: str, meshfd: Meshfd, program: Programs, processes: Processes
) -> None:
    """A bind to a configured port on another address is not handed over, and that is said."""
    meshfd.need()
    port = free_port(socket.AF_INET6 if ":" in listen else socket.AF_INET, listen)
    code = f"import socket; socket.socket().bind(({bind!r}, {port}))"
    done = processes.run(
        meshfd.exec(
            "python3", "-c", code, options=("--listen", written(listen, port), "--log", "-")
        )
    )
    bare = "Address already in use"  # the listening socket is there, and stays there
    assert (bare in done.err) == (bind != "127.0.0.2")
    lines = [line for line in done.err.splitlines() if f"{bind}:{port}" in line]
    assert len(lines) == 1, done.err
    assert written(listen, port) in lines[0]


# Binds as it is told, by the C library itself, and says what became of it and of listen().
BIND = """
import ctypes, errno, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
if "unreadable" in sys.argv[1]:
    libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
family, ip, port = (int(word) for word in sys.argv[2:])
address = struct.pack("=H", family) + struct.pack("!HI8x", port, ip)
made = socket.AF_INET6 if "six" in sys.argv[1] else socket.AF_INET
one = socket.socket(made)
code = libc.bind(one.fileno(), address, len(address))
print("bind:", errno.errorcode[ctypes.get_errno()] if code else 0)
if "listen" in sys.argv[1]:
    one.listen()
    accepted, _ = one.accept()
    accepted.sendall(b"hello\\n")
"""


def test_unspecified_family(meshfd: Meshfd, processes: Processes) -> None:
    """AF_UNSPEC with 0.0.0.0 is the wildcard to the kernel, for an IPv4 socket, and so to us."""
    port = free_port()
    words = ("python3", "-c", BIND)
    options = ("--listen", f"0.0.0.0:{port}")
    running = processes.start(meshfd.exec(*words, "listen", "0", "0", str(port), options=options))
    assert running.line() == "bind: 0"
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as connection:
        assert read_all(connection) == b"hello\n"
    assert running.finish().code == 0
    for how, address, name in (("", 1, "EAFNOSUPPORT"), ("six", 0, "EINVAL")):
        said = [
            processes.run(command).out
            for base in [(*words, how, "0", str(address), str(port))]
            for command in (base, meshfd.exec(*base, options=options))
        ]
        assert said == [f"bind: {name}\n"] * 2


def test_unreadable(meshfd: Meshfd, processes: Processes) -> None:
    """What an ordinary user's meshfd cannot hand over, because it may not look, it says."""
    meshfd.need()
    port = free_port()
    loopback = str(0x7F000001)
    command = meshfd.exec(
        "python3",
        "-c",
        BIND,
        "unreadable",
        str(int(socket.AF_INET)),
        loopback,
        str(port),
        options=("--listen", f"127.0.0.1:{port}"),
    )
    done = processes.run(as_ordinary_user(command), cwd="/")
    assert done.out == "bind: EADDRINUSE\n"
    assert len(done.err.splitlines()) == 1, done.err
    assert "non-dumpable" in done.err


def test_other_ports(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """A bind to a port that was not asked for is the program's own."""
    port, another = free_port(), free_port()
    running = processes.start(
        meshfd.exec(
            program("handover"),
            "127.0.0.1",
            str(another),
            options=("--listen", f"127.0.0.1:{port}"),
        )
    )
    assert "bind: 0" in serve_one(running, "127.0.0.1", another)


def test_bound_elsewhere_keeps_its_errno(meshfd: Meshfd, processes: Processes) -> None:
    """A bind that fails without meshfd fails with it, for the same reason."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        taken = holder.getsockname()[1]
        code = f"import socket; socket.socket().bind(('127.0.0.1', {taken}))"
        done = processes.run(
            meshfd.exec("python3", "-c", code, options=("--listen", f"127.0.0.1:{free_port()}"))
        )
    assert "Address already in use" in done.err


@pytest.mark.parametrize("port", [80, 1])
def test_low_ports(port: int, meshfd: Meshfd, processes: Processes) -> None:
    """Low ports stay forbidden to whom they are forbidden."""
    code = f"import socket; socket.socket().bind(('127.0.0.1', {port}))"
    lowest = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if port >= lowest:
        pytest.skip(f"here anyone may bind ports from {lowest} on")
    for options in ((), ("--listen", f"127.0.0.1:{free_port()}"), ("--strict",)):
        command = meshfd.exec("/usr/bin/python3", "-c", code, options=options)
        done = processes.run(as_ordinary_user(command), cwd="/")
        assert "Permission denied" in done.err


def test_two_listening_sockets(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """Each bind receives the socket of its own address, whatever their order."""
    meshfd.need()
    first, second = free_port(), free_port()
    daemons = " & ".join(
        f"{program('handover')} 127.0.0.1 {port} >/dev/null" for port in (second, first)
    )
    running = processes.start(
        meshfd.exec(
            "sh",
            "-c",
            f"{daemons} & wait",
            options=("--listen", f"a=127.0.0.1:{first}", "--listen", f"b=127.0.0.1:{second}"),
        )
    )
    for port in (first, second):
        with caller("127.0.0.1", port) as client:
            assert read_all(client) == b"hello\n"
    assert running.finish().code == 0


def test_again(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """A program that is started again below the same meshfd receives the socket again.

    A client that connects in between waits in its queue.
    """
    meshfd.need()
    port = free_port()
    command = f"{program('handover')} 127.0.0.1 {port} >/dev/null"
    running = processes.start(
        meshfd.exec(
            "sh",
            "-c",
            f"{command}; echo between; read go; {command}",
            options=("--listen", f"127.0.0.1:{port}"),
        )
    )
    with caller("127.0.0.1", port) as client:
        assert read_all(client) == b"hello\n"
    assert running.line() == "between"
    with caller("127.0.0.1", port) as client:
        running.tell()
        assert read_all(client) == b"hello\n"
    assert running.finish().code == 0


def test_background(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """A daemon that has gone into the background serves on, and alone holds its socket."""
    meshfd.need()
    port = free_port()
    done = processes.run(
        meshfd.exec(
            program("background"),
            "127.0.0.1",
            str(port),
            options=("--listen", f"127.0.0.1:{port}"),
        )
    )
    assert (done.code, done.err) == (0, "")
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
        client.sendall(b"?")
        assert read_all(client) == b"hello\n"
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
        client.sendall(b"q")
        assert client.recv(64) == b"closed\n"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), DEADLINE_S)
    wait_until(lambda: not processes.running(), "the end of the daemon and its agent")


# Waits for a line on the fifo if there is one, and binds the port on each of HOSTS. To a client it
# says the host and whether bind() has given it a socket that listens.
DAEMON = """
import selectors, socket, sys
port, fifo, *hosts = sys.argv[1:]
if fifo:
    open(fifo).readline()
waiting = selectors.DefaultSelector()
for host in hosts:
    one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in host:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    one.bind((host, int(port)))
    handed = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    one.listen()
    waiting.register(one, selectors.EVENT_READ, f"{host} {handed}\\n".encode())
while True:
    for key, _ in waiting.select():
        with key.fileobj.accept()[0] as client:
            client.sendall(key.data)
"""


class Run:
    """`meshfd run` with one service "d", which is DAEMON."""

    def __init__(self, directory: Path, processes: Processes, *words: str) -> None:
        """Prepare a run in ``directory``; ``words`` are the daemon's."""
        self._file = directory / "d.toml"
        self._service = (
            f"[service.d]\ncommand = {json.dumps([sys.executable, '-c', DAEMON, *words])}\n"
        )
        self._processes = processes
        self._environment = {**os.environ, "XDG_RUNTIME_DIR": str(directory)}

    def configure(self, *listen: str) -> None:
        """Write the configuration; ``listen``: the keys of each listening socket."""
        tables = [f"[[service.d.listen]]\n{keys}\n" for keys in listen]
        self._file.write_text("\n".join([self._service, *tables]))

    def command(self, *words: str) -> Program:
        """Start a command of meshfd's."""
        return self._processes.start([*COMMAND, *words], env=self._environment)

    def start(self) -> Program:
        """Start `meshfd run`; returns when it can be asked for its status."""
        running = self.command("run", str(self._file))

        def is_up() -> bool:
            if running.popen.poll() is not None:
                running.give_up("meshfd run has ended")
            return self.command("status").finish().code == 0

        wait_until(is_up, "the control socket")
        return running

    def main_pid(self) -> int:
        """Return the daemon's pid."""
        done = self.command("status", "--json").finish()
        return int(json.loads(done.out)["services"][0]["pid"])


def test_v6only(meshfd: Meshfd, tmp_path: Path, processes: Processes) -> None:
    """A daemon that binds 0.0.0.0 and [::] apart, on one port, receives a socket for each."""
    meshfd.need()
    port = free_port(socket.AF_INET6, "::")  # dual stack: free in both
    run = Run(tmp_path, processes, str(port), "", "0.0.0.0", "::")
    run.configure(f'address = "0.0.0.0:{port}"', f'address = "[::]:{port}"\nv6only = true')
    running = run.start()
    for client, host in (("127.0.0.1", "0.0.0.0"), ("::1", "::")):
        with socket.create_connection((client, port), DEADLINE_S) as connection:
            assert read_all(connection) == f"{host} 1\n".encode()
    running.signal(signal.SIGTERM)
    assert running.wait() == 0


def test_first_listening_socket_of_a_running_service(
    meshfd: Meshfd, tmp_path: Path, processes: Processes
) -> None:
    """A listening socket that a reload adds is handed to a program that ran before it."""
    meshfd.need()
    fifo, port = tmp_path / "fifo", free_port()
    os.mkfifo(fifo)
    run = Run(tmp_path, processes, str(port), str(fifo), "127.0.0.1")
    run.configure()
    running = run.start()
    before = wait_until(run.main_pid, "the daemon")
    run.configure(f'address = "127.0.0.1:{port}"')
    reload = run.command("reload").finish()
    assert reload.code == 0, reload.err
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as early:
        fifo.write_text("go\n")
        assert read_all(early) == b"127.0.0.1 1\n"
    assert run.main_pid() == before
    running.signal(signal.SIGTERM)
    assert running.wait() == 0


def test_ordinary_user(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """All of this needs no root."""
    meshfd.need()
    port = free_port()
    command = meshfd.exec(
        program("handover"), "127.0.0.1", str(port), options=("--listen", f"127.0.0.1:{port}")
    )
    running = processes.start(as_ordinary_user(command), cwd="/")
    assert "bind: 0" in serve_one(running, "127.0.0.1", port)
