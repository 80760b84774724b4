"""Talk to a program that a trio task runs, and see that nothing of it is left.

`TALKER` connects as it is told: for each line HOST PORT of its input a thread of its own does so
and prints HOST and either the server's greeting or the errno's name.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio

from tests.support.processes import descendants_of, state_of
from tests.support.waiting import DEADLINE_S, PAUSE_S

TALKER: Final = """
import errno, socket, sys, threading

def connect(host, port):
    with socket.socket() as connection:
        code = connection.connect_ex((host, port))
        said = errno.errorcode[code] if code else connection.makefile().readline().strip()
    sys.stdout.write(f"{host} {said}\\n")
    sys.stdout.flush()

for line in sys.stdin:
    host, port = line.split()
    threading.Thread(target=connect, args=(host, int(port))).start()
"""


class Talk:
    """A program's standard input and output; ``stdin_fd`` and ``stdout_fd`` are its ends."""

    def __init__(self) -> None:
        """Open both pipes."""
        self.stdin_fd, self._tell_fd = os.pipe()
        self._hear_fd, self.stdout_fd = os.pipe()
        self._heard = b""

    def tell(self, line: str) -> None:
        """Write a line; the pipe holds more than any test says."""
        os.write(self._tell_fd, line.encode() + b"\n")

    async def line(self) -> str:
        """Return the next line of output, without its end."""
        with trio.fail_after(DEADLINE_S):
            while b"\n" not in self._heard:
                await trio.lowlevel.wait_readable(self._hear_fd)
                self._heard += os.read(self._hear_fd, 65536)
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()

    def unread(self) -> str:
        """Return what has come since the last line."""
        while select.select([self._hear_fd], [], [], 0)[0]:
            self._heard += os.read(self._hear_fd, 65536)
        return self._heard.decode()

    def close(self) -> None:
        """Close all four ends."""
        for fd in (self.stdin_fd, self._tell_fd, self._hear_fd, self.stdout_fd):
            os.close(fd)


@contextmanager
def open_talk() -> Iterator[Talk]:
    """Give the pipes for as long as the context lasts."""
    talk = Talk()
    try:
        yield talk
    finally:
        talk.close()


async def wait_for(look: Callable[[], object], what: str) -> None:
    """Look again and again until ``look()`` is true, where there is no event to wait on."""
    with trio.move_on_after(DEADLINE_S):
        while not look():  # noqa: ASYNC110 -- see above
            await trio.sleep(PAUSE_S)
    assert look(), f"{what} did not come"


def open_fds() -> dict[str, str]:
    """Return our fds and what each is for."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208 -- names, not paths
        path = Path("/proc/self/fd", fd)
        if path.is_symlink():  # the one that the list was read through is closed again
            found[fd] = str(path.readlink())
    return found


def alive(pid: int) -> bool:
    """Whether a process runs: neither gone nor a zombie."""
    try:
        return state_of(pid) not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):  # gone before, or while it was read
        return False


def running_below() -> set[int]:
    """Return the processes below this one that have not ended."""
    return {pid for pid in descendants_of(os.getpid()) if alive(pid)}
