"""Clients that never stop asking, and what became of each request.

A request ends in one of four ways. *served*: the whole answer came. *cut*: the connection ended
before, as it does when a daemon that had accepted it stops. *refused*: nobody listened. *lost*: no
answer came in time, as when a connection had been dropped from a queue without a word; *lost* too
is a connection that was made but reset before the daemon could have had it, which nobody can tell
from *cut*: so daemons with a graceful stop are stopped by that, and must not cut at all.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from tests.support.waiting import DEADLINE_S, wait_until

HTTP_REQUEST = b"GET / HTTP/1.0\r\nHost: test\r\n\r\n"
CUT_AT_CLOSE = struct.pack("ii", 1, 0)  # struct linger: no TIME_WAIT, so ports do not run out

Exchange = Callable[[socket.socket], bool]


def exchange_http(connection: socket.socket) -> bool:
    """Fetch "/"; whether the whole answer came."""
    connection.sendall(HTTP_REQUEST)
    answer = b""
    while chunk := connection.recv(4096):
        answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    return b" 200 " in head and body.startswith(b"served")


def exchange_line(request: bytes, answer: bytes) -> Exchange:
    """Return an exchange of one line for one line."""

    def exchange(connection: socket.socket) -> bool:
        connection.sendall(request + b"\r\n")
        got = b""
        while not got.endswith(b"\r\n"):
            chunk = connection.recv(4096)
            if not chunk:
                return False
            got += chunk
        return got.startswith(answer)

    return exchange


@dataclass(slots=True)
class Outcome:
    """How requests ended."""

    served: int = 0
    cut: int = 0
    refused: int = 0
    lost: int = 0


class Load:
    """Threads that ask again and again, for the length of a block."""

    def __init__(self, port: int, exchange: Exchange, n_clients: int) -> None:
        """Ask on 127.0.0.1:``port``."""
        self.outcome = Outcome()
        self._address = ("127.0.0.1", port)
        self._exchange = exchange
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask_for_ever, name=f"client {number}")
            for number in range(n_clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_service(self) -> None:
        """Return when requests that begin from now on have been served."""
        aim = self.outcome.served + 2 * len(self._threads)
        wait_until(lambda: self.outcome.served >= aim, f"service; so far: {self.outcome}")

    def _ask_for_ever(self) -> None:
        while not self._stop.is_set():
            end = self._ask()
            with self._lock:
                setattr(self.outcome, end, getattr(self.outcome, end) + 1)

    def _ask(self) -> str:
        try:
            with socket.create_connection(self._address, DEADLINE_S) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CUT_AT_CLOSE)
                return "served" if self._exchange(connection) else "cut"
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "lost"
        except OSError:  # reset, broken pipe
            return "cut"


def ask_once(port: int, exchange: Exchange) -> bool:
    """Whether one request is served; an end of any other kind is false."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as asker:
        return exchange(asker)
    return False
