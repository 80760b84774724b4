"""The control socket: what clients can ask, and what they cannot do to the supervisor."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from meshfd import control
from meshfd.client import ask
from meshfd.control import serve_control
from meshfd.errors import ControlError
from meshfd.protocol import REQUEST_BYTES, Request, Result, format_request
from tests.support.ordinary_user import NOBODY

Handler = Callable[[Request], Awaitable[Result]]


async def echo(request: Request) -> Result:
    """Answer with what was asked."""
    await trio.lowlevel.checkpoint()
    return {"command": request.command, "names": list(request.names)}


@asynccontextmanager
async def serving(path: Path, handler: Handler = echo) -> AsyncIterator[None]:
    """Serve at a path."""
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, path, handler)
        yield
        nursery.cancel_scope.cancel()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a path for the control socket, as short as sockets want it."""
    return tmp_path / "c"


async def ask_in_thread(path: Path, request: Request) -> Result:
    """Ask as the command does."""
    return await trio.to_thread.run_sync(partial(ask, request, path=path, timeout_s=30))


async def exchange(path: Path, data: bytes) -> bytes:
    """Send raw bytes and read to the end."""
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(data)
        return b"".join([piece async for piece in stream])


async def test_a_request_is_answered(path: Path) -> None:
    """What the client asks reaches the handler, and its result the client."""
    async with serving(path):
        result = await ask_in_thread(path, Request("stop", ("a", "b")))
    assert result == {"command": "stop", "names": ["a", "b"]}


async def test_a_refusal_arrives_as_an_error(path: Path) -> None:
    """An error of the handler is the client's error, with the same text."""

    async def refuse(_: Request) -> Result:
        await trio.lowlevel.checkpoint()
        raise ControlError("no service is called nowhere")

    async with serving(path, refuse):
        with pytest.raises(ControlError, match=r"^no service is called nowhere$"):
            await ask_in_thread(path, Request("status"))


def test_nobody_there_is_one_line(path: Path) -> None:
    """Without a supervisor the client says so."""
    with pytest.raises(ControlError, match="meshfd is not running: nobody answers at"):
        ask(Request("status"), path=path)


def test_a_leftover_socket_is_nobody(path: Path) -> None:
    """A socket file behind which nobody listens is no supervisor either."""
    with socket.socket(socket.AF_UNIX) as leftover:
        leftover.bind(os.fspath(path))
    with pytest.raises(ControlError, match="meshfd is not running"):
        ask(Request("status"), path=path)


@pytest.mark.parametrize("data", [b"", b"{"], ids=["at once", "after half an answer"])
async def test_an_end_before_the_answer_is_one_line(path: Path, data: bytes) -> None:
    """A supervisor that ends in between is an error and not an answer."""
    with trio.socket.socket(socket.AF_UNIX) as listening:
        await listening.bind(os.fspath(path))
        listening.listen(1)

        async def end_early() -> None:
            connection, _ = await listening.accept()
            with connection:
                await connection.recv(1000)
                await connection.send(data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_early)
            with pytest.raises(ControlError, match="ended before it answered"):
                await ask_in_thread(path, Request("status"))


async def test_noise_is_answered_with_a_refusal(path: Path) -> None:
    """A line that is no request gets an answer that says so, and costs nobody else anything."""
    async with serving(path):
        answer = json.loads(await exchange(path, b"\xff\xfe{]\n"))
        assert (answer["ok"], answer["error"]) == (False, "this is not a line of JSON")
        await ask_in_thread(path, Request("status"))


async def test_a_request_without_end_is_refused(path: Path) -> None:
    """A request longer than the limit is refused when the limit is reached."""
    async with serving(path):
        answer = await exchange(path, b"x" * REQUEST_BYTES)
    assert b"longer than" in answer


async def test_a_client_that_sends_no_more_still_gets_its_answer(path: Path) -> None:
    """A client may close its sending side, as socat does, and then wait."""
    go_on = trio.Event()

    async def slow(_: Request) -> Result:
        await go_on.wait()
        return {}

    async with serving(path, slow), await trio.open_unix_socket(path) as stream:
        await stream.send_all(format_request(Request("status")))
        await stream.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        assert b'"ok":true' in await stream.receive_some(1000)


async def test_a_client_that_hangs_up_frees_its_place(path: Path) -> None:
    """Clients that wait and hang up do not use the places of others up."""

    async def never(request: Request) -> Result:
        if request.command == "start":
            await trio.sleep_forever()
        return {}

    async with serving(path, never):
        for _ in range(3):
            streams = []
            for _ in range(control.CLIENTS_MAX):
                stream = await trio.open_unix_socket(path)
                await stream.send_all(format_request(Request("start")))
                streams.append(stream)
            await trio.testing.wait_all_tasks_blocked(0.01)
            for stream in streams:
                await stream.aclose()
            await trio.testing.wait_all_tasks_blocked(0.01)
        await ask_in_thread(path, Request("status"))


async def test_too_many_clients_are_turned_away(path: Path) -> None:
    """Beyond CLIENTS_MAX a client is closed at once, and served when there is room again."""
    async with serving(path):
        waiting = [await trio.open_unix_socket(path) for _ in range(control.CLIENTS_MAX)]
        await trio.testing.wait_all_tasks_blocked(0.01)
        async with await trio.open_unix_socket(path) as turned_away:
            assert await turned_away.receive_some(1) == b""
        for stream in waiting:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.01)
        await ask_in_thread(path, Request("status"))


async def test_a_client_that_says_nothing_is_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client has a limited time for its request."""
    monkeypatch.setattr(control, "READ_S", 0.01)
    async with serving(path), await trio.open_unix_socket(path) as stream:
        await stream.send_all(b'{"v": 1')
        assert await stream.receive_some(1) == b""


async def test_a_client_that_takes_no_answer_is_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that nobody reads holds up nobody but its own task, and that not for long."""
    monkeypatch.setattr(control, "WRITE_S", 0.01)

    async def long_answer(request: Request) -> Result:
        await trio.lowlevel.checkpoint()
        return {"text": "x" * (4 << 20 if request.command == "status" else 1)}

    async with serving(path, long_answer), await trio.open_unix_socket(path) as stream:
        await stream.send_all(format_request(Request("status")))
        await ask_in_thread(path, Request("stop"))
        received = 0
        while piece := await stream.receive_some(1 << 20):
            received += len(piece)
            await trio.testing.wait_all_tasks_blocked(0.02)
        assert received < 4 << 20


async def test_the_socket_is_the_users_own(path: Path) -> None:
    """Nobody else may even open the socket's file."""
    async with serving(path):
        assert path.stat().st_mode & 0o777 == 0o600  # noqa: ASYNC240 -- a test's moment


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
async def test_another_user_is_refused() -> None:
    """Whoever gets at the socket is still asked who they are."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as client:
        path = Path(directory) / "c"
        async with serving(path):
            os.chmod(directory, 0o755)  # noqa: PTH101, S103 -- for the other user
            os.chmod(path, 0o666)  # noqa: PTH101, S103 -- likewise
            os.seteuid(NOBODY)
            try:
                client.connect(os.fspath(path))
            finally:
                os.seteuid(0)
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
            await stream.send_all(format_request(Request("status")))
            answer = await stream.receive_some(1000)
    assert b"may not control" in answer
