"""Servers of the tests: real listening sockets on loopback, threads where someone must answer."""

from __future__ import annotations

import contextlib
import http.server
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.support.waiting import DEADLINE_S, wait_until

LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
SYN_SENT = "02"  # include/net/tcp_states.h, as /proc/net/tcp prints it
LISTEN = "0A"


def listening_socket(
    family: socket.AddressFamily = socket.AF_INET,
    backlog: int = 128,
    protocol: int = 0,
    host: str | None = None,
) -> socket.socket:
    """Return a listening socket on a free port, of loopback; waiting on it has a deadline."""
    listening = socket.socket(family, socket.SOCK_STREAM, protocol)
    listening.settimeout(DEADLINE_S)
    listening.bind((host or LOOPBACK[family], 0))
    listening.listen(backlog)
    return listening


def unix_listening(where: str, backlog: int = 128) -> socket.socket:
    """Return a listening unix socket at a path that every user may connect to, or ``@`` a name."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.settimeout(DEADLINE_S)
    listening.bind("\0" + where[1:] if where.startswith("@") else where)
    if not where.startswith("@"):
        Path(where).chmod(0o777)
    listening.listen(backlog)
    return listening


def read_all(connection: socket.socket) -> bytes:
    """Return everything up to the end of the stream."""
    got = b""
    while chunk := connection.recv(65536):
        got += chunk
    return got


def port_of(listening: socket.socket) -> int:
    """Return the local port."""
    return int(listening.getsockname()[1])


def free_port(family: socket.AddressFamily = socket.AF_INET, address: str | None = None) -> int:
    """Return a port that nobody had a moment ago."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((address or LOOPBACK[family], 0))
        return port_of(probe)


def is_listening(port: int) -> bool:
    """Whether some socket listens at a port; nobody is connected to for that."""
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    lines = [line for table in tables if table.exists() for line in table.read_text().splitlines()]
    rows = [line.split() for line in lines]
    return any(row[1].endswith(f":{port:04X}") and row[3] == LISTEN for row in rows)


@contextlib.contextmanager
def dead_port() -> Iterator[int]:
    """Give a port that refuses connections for as long as the block lasts: bound, not listening."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as holder:
        holder.bind((LOOPBACK[socket.AF_INET], 0))
        yield port_of(holder)


class SilentServer:
    """A listening socket whose queue is full: whoever connects has to wait until `answer`.

    Linux accepts one more than the backlog, then drops each SYN; the client repeats it, first
    after one second.
    """

    def __init__(self) -> None:
        """Listen, and fill the queue."""
        self.listening = listening_socket(backlog=0)
        self._filler = socket.create_connection(self.listening.getsockname(), DEADLINE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._filler.close()
        self.listening.close()

    def wait_for_caller(self) -> None:
        """Return when someone is trying to connect."""
        wanted = f":{port_of(self.listening):04X}"

        def someone_calls() -> bool:
            rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            return any(row[2].endswith(wanted) and row[3] == SYN_SENT for row in rows)

        wait_until(someone_calls, "an attempt to connect")

    def answer(self) -> None:
        """Let everyone in from now on."""
        self.listening.listen(128)


class FullQueue:
    """A unix socket whose queue is full: whoever connects has to wait until `answer`."""

    def __init__(self, where: str) -> None:
        """Listen, and fill the queue."""
        self.where = where
        self.listening = unix_listening(where, backlog=0)
        self._filler = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._filler.connect(where)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._filler.close()
        self.listening.close()

    def answer(self) -> None:
        """Let everyone in from now on."""
        self.listening.listen(128)


class Greeter:
    """Sends each client a line with its name and closes; counts them."""

    def __init__(
        self,
        name: str = "hello",
        family: socket.AddressFamily = socket.AF_INET,
        protocol: int = 0,
        where: str | None = None,
        host: str | None = None,
    ) -> None:
        """Serve from now until the block's end; ``where``: on a unix socket."""
        self.name = name
        self.n_greeted = 0
        if where is None:
            self.listening = listening_socket(family, 1024, protocol, host)
        else:
            self.listening = unix_listening(where, backlog=1024)
        self.listening.settimeout(None)
        self._thread = threading.Thread(target=self._serve, name=f"greeter {name}")
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:  # shut down
                return
            with client, contextlib.suppress(ConnectionError):
                client.sendall(self.name.encode() + b"\n")
                self.n_greeted += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.listening.close()


class Repeater:
    """Reads each client's stream to its end, sends it back, and closes."""

    def __init__(self) -> None:
        """Serve from now until the block's end."""
        self.listening = listening_socket(backlog=1024)
        self.listening.settimeout(None)
        self._thread = threading.Thread(target=self._serve, name="repeater")
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:  # shut down
                return
            with client, contextlib.suppress(ConnectionError):
                client.sendall(read_all(client))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.listening.close()


class Echoer:
    """Answers each datagram with its name, a colon and what it got; only counts ``quiet``."""

    def __init__(
        self,
        name: str = "echo",
        family: socket.AddressFamily = socket.AF_INET,
        address: tuple[str, int] | tuple[str, int, int, int] | None = None,
    ) -> None:
        """Serve from now until the block's end; ``address``: another than loopback's."""
        self.name = name
        self.n_heard = 0
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.socket.bind((LOOPBACK[family], 0) if address is None else address)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"echoer {name}")
        self._thread.start()

    def _serve(self) -> None:
        while True:
            text, client = self.socket.recvfrom(1 << 16)
            if self._done.is_set():
                return
            self.n_heard += 1
            if text != b"quiet":
                self.socket.sendto(self.name.encode() + b":" + text, client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._done.set()
        with socket.socket(self.socket.family, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self.socket.getsockname())
        self._thread.join()
        self.socket.close()


class _Answer(http.server.BaseHTTPRequestHandler):
    """One line of text for every GET."""

    def do_GET(self) -> None:
        """Answer."""
        body = f"served {self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        """Name the client, which has no address when it comes by a unix socket."""
        return "client"

    def log_message(self, *unused: object) -> None:
        """Stay quiet."""


class Echo:
    """Greets each client and echoes its lines; at "end" it says "bye" and ends its side.

    ``where``: None for a TCP socket on loopback, or a unix socket's path, or ``@`` and a name.
    """

    def __init__(
        self,
        where: str | None = None,
        family: socket.AddressFamily = socket.AF_INET,
        backlog: int = 128,
    ) -> None:
        """Serve from now until the block's end."""
        self.where = where
        self.listening = (
            listening_socket(family, backlog) if where is None else unix_listening(where, backlog)
        )
        self.listening.settimeout(None)
        self.peers: list[tuple[int, int, int]] = []
        """SO_PEERCRED of the clients of a unix socket."""
        self._thread = threading.Thread(target=self._serve, name="echo")
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:  # shut down
                return
            if self.where is not None:
                packed = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                pid, uid, gid = struct.unpack("=3i", packed)
                self.peers.append((pid, uid, gid))
            threading.Thread(target=self._echo, args=(client,), daemon=True).start()

    def _echo(self, client: socket.socket) -> None:
        client.settimeout(DEADLINE_S)
        with client, client.makefile("rb") as lines, contextlib.suppress(OSError):
            client.sendall(b"hello\n")
            for line in lines:
                client.sendall(b"bye\n" if line == b"end\n" else line)
                if line == b"end\n":
                    client.shutdown(socket.SHUT_WR)
                    break
            read_all(client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.listening.close()


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """An HTTP server on a unix socket."""

    daemon_threads = True
    request_queue_size = 128


class HttpServer:
    """A real HTTP server in a thread; ``listening`` is its socket.

    ``where``: None for a TCP socket on loopback, or a unix socket's path.
    """

    def __init__(self, where: str | None = None, host: str = "127.0.0.1") -> None:
        """Serve from now until the block's end."""
        self._server: socketserver.BaseServer
        if where is None:
            self._server = http.server.ThreadingHTTPServer((host, 0), _Answer)
        else:
            self._server = _UnixServer(where, _Answer)
            Path(where).chmod(0o777)
        self.listening = self._server.socket
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
