"""Have a short-lived process of ours do what must not be done here.

Theory of operation: a helper is a module of meshfd's, run by the same Python. It has one end of a
socket pair as standard input: the question goes there, up to its end, and the answer comes back,
perhaps with fds. What it needs besides are inherited fds. It is out of reach of the terminal's
keys, and sees by the end of the channel that nobody waits any more.
Source: unix(7) SCM_RIGHTS.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from meshfd.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNK_BYTES: Final = 1 << 16
FDS_MAX: Final = 253  # SCM_MAX_FD, of one message


@dataclass(frozen=True, slots=True)
class HelperAnswer:
    """What came back: b"" when it ended without a word; the fds are the caller's."""

    data: bytes
    fds: list[int]
    exit_status: int | None


async def ask_helper(module: str, question: bytes, fds: Sequence[int]) -> HelperAnswer:
    """Run the helper ``module``, in which ``fds`` are inherited, and wait for its end.

    When this is cancelled, the helper is waited for all the same.

    Raises:
        ServiceError: it cannot be started.

    """
    try:
        ours, process = await _start(module, fds)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise ServiceError(f"no helper process can be started: {where}{error.strerror}") from error
    with ours:
        try:
            await _send_all(ours, question)
            data, received = await _receive_all(ours)
        finally:
            ours.close()
            with trio.CancelScope(shield=True):
                await process.wait()
    return HelperAnswer(data, received, process.returncode)


async def _start(module: str, fds: Sequence[int]) -> tuple[trio.socket.SocketType, trio.Process]:
    """Start it; its end of the channel blocks, ours does not: O_NONBLOCK is each end's own."""
    ours, theirs = socket.socketpair()
    with theirs, contextlib.ExitStack() as stack:
        stack.enter_context(ours)
        process = await trio.lowlevel.open_process(
            [sys.executable, "-P", "-m", module],
            stdin=theirs.fileno(),
            pass_fds=fds,
            process_group=0,
        )
        channel = trio.socket.from_stdlib_socket(ours)
        stack.pop_all()
    return channel, process


async def _send_all(channel: trio.socket.SocketType, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionError):  # it has ended: no answer comes
        while data:
            data = data[await channel.send(data) :]
        channel.shutdown(socket.SHUT_WR)


async def _receive_all(channel: trio.socket.SocketType) -> tuple[bytes, list[int]]:
    """Everything up to the end, and the fds that came along, which are the caller's."""
    data = bytearray()
    fds = array.array("i")
    space = socket.CMSG_SPACE(FDS_MAX * fds.itemsize)
    try:
        while True:
            got, ancillary, _, _ = await channel.recvmsg(
                CHUNK_BYTES, space, socket.MSG_CMSG_CLOEXEC
            )
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
            if not got:
                return bytes(data), list(fds)
            data += got
    except BaseException as error:
        for fd in fds:
            os.close(fd)
        if isinstance(error, ConnectionError):  # it was ended with orders unread
            return b"", []
        raise
