"""A server has started when it has answered, not when somebody took the connection."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.bench.errors import BenchError
from tests.bench.parts.start import ECHO, _wait_for_answer
from tests.support.servers import listening_socket, port_of

RESET = struct.pack("ii", 1, 0)  # struct linger
ASKED_BYTES = len(ECHO) + 1
Deed = Callable[[socket.socket], None]


def close(connection: socket.socket) -> None:
    """End a connection without an answer."""
    connection.recv(ASKED_BYTES)


def reset(connection: socket.socket) -> None:
    """Reset a connection instead of answering."""
    connection.recv(ASKED_BYTES)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def answer(connection: socket.socket) -> None:
    """Answer."""
    connection.recv(ASKED_BYTES)
    connection.sendall(b"x")


@contextlib.contextmanager
def serving(*deeds: Deed) -> Iterator[tuple[int, list[Deed]]]:
    """Do these to connections, one after the other; the port, and what was done."""
    done: list[Deed] = []

    def serve() -> None:
        for deed in deeds:
            with listening.accept()[0] as connection:
                deed(connection)
                done.append(deed)

    with listening_socket() as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield port_of(listening), done
        thread.join()


@contextlib.contextmanager
def program(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run what is said to be the server."""
    with subprocess.Popen(command) as running:
        yield running
        running.kill()


def test_no_answer_is_none() -> None:
    """A connection that is closed or reset is tried again."""
    with serving(close, reset, answer) as (port, done), program(["sleep", "1000"]) as running:
        _wait_for_answer(port, running)
    assert done == [close, reset, answer]


@pytest.mark.parametrize(
    ("deed", "why"),
    [(close, "the connection was closed"), (reset, "[Errno 104] Connection reset by peer")],
)
def test_server_that_has_ended(deed: Deed, why: str) -> None:
    """Nothing is tried again once the program is gone, and the error has its command."""
    with serving(deed) as (port, _), program(["true"]) as running:
        running.wait()
        with pytest.raises(
            BenchError, match=re.escape(f"['true']: no answer at port {port}: {why}")
        ):
            _wait_for_answer(port, running)
