"""The control socket of `meshfd run`: who may ask, and how the answers go out.

Theory of operation: one task accepts; each client has a task of its own, which reads one line, has
the handler answer it, writes one line and closes. The handler's work goes on when a client hangs
up: what was asked for is not left half done. A client must be the same user, or root (SO_PEERCRED
tells who connected, whatever the file's mode allowed).

Limits: CLIENTS_MAX at a time, more are turned away; a request must arrive within READ_S and an
answer be taken within WRITE_S, so that a client that stops costs its own task only.
Source: unix(7); `meshfd.protocol` for what is said.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import trio

from meshfd.errors import ControlError, MeshfdError
from meshfd.logs import event as log
from meshfd.protocol import (
    REQUEST_BYTES,
    UCRED,
    Request,
    Result,
    format_refusal,
    format_result,
    parse_request,
)

if TYPE_CHECKING:
    from pathlib import Path

Handler = Callable[[Request], Awaitable[Result]]

CLIENTS_MAX: Final = 32
READ_S: Final = 5.0
WRITE_S: Final = 5.0
FULL_PAUSE_S: Final = 0.5


async def serve_control(
    path: Path, handler: Handler, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer requests at this path until cancelled; reports started when clients can connect.

    The file is made here; whoever owns the directory removes it.

    Raises:
        ControlError: the socket cannot be made.

    """
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        try:
            await listening.bind(os.fspath(path))
            os.chmod(path, 0o600)  # noqa: PTH101 -- a moment's work on a file of ours
        except OSError as error:
            text = f"cannot make the control socket {path}: {error.strerror}"
            raise ControlError(text) from error
        listening.listen(CLIENTS_MAX)
        async with trio.open_nursery() as nursery:
            server = _Server(handler, nursery)
            task_status.started()
            while True:
                await server.accept_one(listening)


class _Server:
    def __init__(self, handler: Handler, nursery: trio.Nursery) -> None:
        self._handler = handler
        self._nursery = nursery
        self._n_clients = 0

    async def accept_one(self, listening: trio.socket.SocketType) -> None:
        try:
            connection, _ = await listening.accept()
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                if error.errno == errno.ECONNABORTED:
                    return
                raise
            log(logging.WARNING, f"cannot take a control client: {error.strerror}")
            await trio.sleep(FULL_PAUSE_S)
            return
        if self._n_clients >= CLIENTS_MAX:
            connection.close()
            return
        self._n_clients += 1
        self._nursery.start_soon(self._serve_client, trio.SocketStream(connection))

    async def _serve_client(self, stream: trio.SocketStream) -> None:
        try:
            answer = await self._answer(stream)
            if answer:
                with trio.move_on_after(WRITE_S):
                    await stream.send_all(answer)
        except trio.BrokenResourceError:
            log(logging.DEBUG, "a control client hung up before its answer")
        finally:
            self._n_clients -= 1
            await trio.aclose_forcefully(stream)

    async def _answer(self, stream: trio.SocketStream) -> bytes:
        """The answer to the client's one request; b"" when it asked nothing."""
        peer = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
        _, uid, _ = UCRED.unpack(peer)
        if uid not in {0, os.geteuid()}:
            return format_refusal(f"user {uid} may not control this meshfd")
        try:
            with trio.move_on_after(READ_S) as waiting:
                line = await _receive_line(stream)
            if waiting.cancelled_caught or not line:
                return b""
            return format_result(await self._until_hung_up(stream, parse_request(line)))
        except MeshfdError as error:
            return format_refusal(str(error))

    async def _until_hung_up(self, stream: trio.SocketStream, request: Request) -> Result:
        """The handler's result; its work goes on when the client is gone, waiting for it not."""
        result: Result | None = None
        refusal: MeshfdError | None = None
        async with trio.open_nursery() as nursery:

            async def handle() -> None:
                nonlocal result, refusal
                try:
                    result = await self._handler(request)
                except MeshfdError as error:
                    refusal = error
                nursery.cancel_scope.cancel()

            nursery.start_soon(handle)
            await _wait_for_hang_up(stream)
            nursery.cancel_scope.cancel()
        if refusal is not None:
            raise refusal
        if result is None:
            raise ControlError("nobody waits for the answer")
        return result


async def _wait_for_hang_up(stream: trio.SocketStream) -> None:
    """Return when the client is gone; one that only sends no more still waits for its answer."""
    with contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some(REQUEST_BYTES):
            pass
    hung_up = select.poll()
    hung_up.register(stream.socket.fileno(), 0)
    if not any(events & select.POLLHUP for _, events in hung_up.poll(0)):
        await trio.sleep_forever()


async def _receive_line(stream: trio.SocketStream) -> bytes:
    """The first line; b"" when the client ends before its newline.

    Raises:
        ControlError: it is longer than a request may be.

    """
    received = bytearray()
    while b"\n" not in received:
        if len(received) >= REQUEST_BYTES:
            raise ControlError(f"the request is longer than {REQUEST_BYTES} bytes")
        piece = await stream.receive_some(REQUEST_BYTES - len(received))
        if not piece:
            return b""
        received += piece
    return bytes(received.partition(b"\n")[0])
