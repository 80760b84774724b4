"""A real terminal with a session of its own, to type at a program as a person would."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from typing import Self

import pytest

from tests.support.processes import Command, Processes, Program
from tests.support.waiting import Deadline

CHUNK_BYTES = 65536

# Becomes the program, having made the terminal on its standard input the session's own.
_TAKE_TERMINAL = (
    "import fcntl, os, signal, sys, termios;"
    "[signal.signal(one, signal.SIG_DFL) for one in (signal.SIGPIPE, signal.SIGXFSZ)];"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """A program on a terminal: `type` and `expect`."""

    def __init__(
        self, processes: Processes, command: Command, env: Mapping[str, str] | None = None
    ) -> None:
        """Start ``command`` as the leader of a new session on a new terminal."""
        self._fd, theirs = os.openpty()
        try:
            self.program: Program = processes.start(
                [sys.executable, "-c", _TAKE_TERMINAL, *command],
                stdin=theirs,
                stdout=theirs,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        self._seen = ""
        self._at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        os.close(self._fd)

    def type(self, text: str) -> None:
        """Type ``text``; control characters are what the keyboard would send."""
        os.write(self._fd, text.encode())

    @property
    def seen(self) -> str:
        """Everything on the screen so far."""
        return self._seen

    def expect(self, pattern: str) -> re.Match[str]:
        """Return the next match of ``pattern`` on the screen."""
        deadline = Deadline()
        while (match := re.compile(pattern).search(self._seen, self._at)) is None:
            if not select.select([self._fd], [], [], deadline.left_s)[0]:
                pytest.fail(f"{pattern!r} did not appear; on the screen:\n{self._seen}")
            try:
                got = os.read(self._fd, CHUNK_BYTES)
            except OSError:  # EIO: nobody is left on the terminal
                got = b""
            if not got:
                pytest.fail(f"the terminal closed before {pattern!r}; on the screen:\n{self._seen}")
            self._seen += got.decode(errors="replace")
        self._at = match.end()
        return match

    def resize(self, *, rows: int, columns: int) -> None:
        """Change the terminal's size."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def hang_up(self) -> None:
        """End the session's leader."""
        self.program.signal(signal.SIGHUP)
