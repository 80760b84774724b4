"""Ask a running `meshfd run`, from an ordinary program: no trio.

One call is one connection. A request that waits for something (``start`` until the services are
ready) is answered when that has happened, so there is no time limit unless the caller sets one.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from meshfd.errors import ControlError
from meshfd.protocol import ANSWER_BYTES, UCRED, Request, Result, format_request, parse_answer
from meshfd.runtime_dir import control_path

if TYPE_CHECKING:
    from pathlib import Path


def ask(request: Request, *, path: Path | None = None, timeout_s: float | None = None) -> Result:
    """Send a request and wait for its answer.

    ``path`` is the control socket, by default where this user's `meshfd run` has it;
    ``timeout_s`` bounds each step.

    Raises:
        ControlError: nobody is there, the answer did not come in time, or it is a refusal.

    """
    if path is None:
        path = control_path(os.environ, os.geteuid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            message = f"meshfd is not running: nobody answers at {path}"
            raise ControlError(message) from None
        except OSError as error:
            message = f"cannot reach meshfd at {path}: {error.strerror or error}"
            raise ControlError(message) from error
        _check_peer(connection, path)
        try:
            connection.sendall(format_request(request))
            line = _receive_line(connection)
        except TimeoutError:
            message = f"meshfd at {path} did not answer in {timeout_s} s"
            raise ControlError(message) from None
        except OSError as error:
            message = f"meshfd at {path} ended before it answered: {error.strerror or error}"
            raise ControlError(message) from error
    if not line:
        message = f"meshfd at {path} ended before it answered"
        raise ControlError(message)
    return parse_answer(line)


def _check_peer(connection: socket.socket, path: Path) -> None:
    """Whoever listens must be us or root: anybody can make a directory in /tmp."""
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    _, uid, _ = UCRED.unpack(peer)
    if uid not in {0, os.geteuid()}:
        raise ControlError(f"{path} belongs to user {uid}: not asking a stranger")


def _receive_line(connection: socket.socket) -> bytes:
    """Everything up to the first newline, or what came before the end."""
    received = bytearray()
    while not received.endswith(b"\n"):
        piece = connection.recv(65536)
        if not piece:
            return b""
        received += piece
        if len(received) > ANSWER_BYTES:
            message = f"the answer is longer than {ANSWER_BYTES} bytes"
            raise ControlError(message)
    return bytes(received)
