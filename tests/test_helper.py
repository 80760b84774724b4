"""Helper processes: the question and the answer arrive whole, and what cannot be is said."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import pytest

from meshfd.errors import ServiceError
from meshfd.helper import ask_helper
from tests.support.processes import held_fds

# Answers with what it was asked, twice; says whether its channel blocks.
ECHO: Final = """
import os, socket
print(os.get_blocking(0), flush=True)
with socket.socket(fileno=os.dup(0)) as channel:
    asked = b"".join(iter(lambda: channel.recv(1 << 16), b""))
    channel.sendall(asked * 2)
"""


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a helper."""
    (tmp_path / "meshfd_test_echo.py").write_text(ECHO)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "meshfd_test_echo"


async def test_whole(echo: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Both are longer than a socket's queue; the helper can wait for room, and for the question."""
    question = os.urandom(1 << 20)
    answer = await ask_helper(echo, question, [])
    assert (answer.exit_status, answer.fds) == (0, [])
    assert answer.data == question * 2
    assert capfd.readouterr().out == "True\n"


async def test_cannot_be_started(echo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, and no fd is lost."""
    await ask_helper(echo, b"", [])  # opens what trio keeps
    before = held_fds(os.getpid())
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(ServiceError, match="/nonexistent/python: No such file or directory"):
        await ask_helper(echo, b"", [])
    assert held_fds(os.getpid()) == before
