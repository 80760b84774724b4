"""A network namespace to run programs in: our own, or another.

Theory of operation: another namespace is kept by an fd of ours, so nothing of it is left when the
fd is closed and the programs in it have ended, however that comes about. It is made by a thread
that moves there and ends; the rest of us stays where it is. Programs enter it by nsenter(1), which
becomes the program, so the program's pid is the one that was started.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from tests.bench.peers.need import need_root, tool
from tests.bench.programs import SERVER_ADDRESS
from tests.support.netns import ask_at, enter_private_network
from tests.support.servers import free_port

T = TypeVar("T")

CONNECT_TIMEOUT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """``path``: a file that the namespace is of; None: ours."""

    path: Path | None = None

    @property
    def prefix(self) -> tuple[str, ...]:
        """A command that runs another in it."""
        if self.path is None:
            return ()
        return (tool("nsenter", "util-linux"), f"--net={self.path}", "--")

    def ask(self, ask: Callable[[], T]) -> T:
        """Return what ``ask`` returns in it."""
        return ask() if self.path is None else ask_at(self.path, ask)

    def free_port(self) -> int:
        """Return a port that nobody has in it."""
        return self.ask(free_port)

    def serves(self, port: int) -> bool:
        """Whether somebody in it takes a connection at this port."""

        def connect() -> bool:
            try:
                socket.create_connection((SERVER_ADDRESS, port), CONNECT_TIMEOUT_S).close()
            except ConnectionRefusedError:
                return False
            return True

        return self.ask(connect)


HERE: Final = Place()


@contextlib.contextmanager
def open_place() -> Iterator[Place]:
    """Make another namespace, with its loopback interface up, for as long as the block lasts.

    Raises:
        MissingError: not for us.

    """
    need_root()
    with ThreadPoolExecutor(1) as thread:
        fd = thread.submit(_move_and_open).result()
    try:
        yield Place(Path(f"/proc/{os.getpid()}/fd/{fd}"))
    finally:
        os.close(fd)


def _move_and_open() -> int:
    enter_private_network()
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
