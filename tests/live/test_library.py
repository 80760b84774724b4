"""The library: `meshfd.spawn`, its events, its decisions, and that it leaves nothing behind."""

from __future__ import annotations

import errno
import gc
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address
from math import inf, nan
from pathlib import Path
from typing import Final

import pytest
import trio

import meshfd
from meshfd.events import NoticeKind
from meshfd.library import EVENTS_MAX
from tests.support.programs import Programs
from tests.support.servers import Greeter, SilentServer, free_port, port_of
from tests.support.talking import (
    TALKER,
    alive,
    open_fds,
    open_talk,
    running_below,
    wait_for,
)
from tests.support.waiting import DEADLINE_S

ROOT: Final = Path(__file__).parents[2]
TALK: Final = (sys.executable, "-c", TALKER)
FIRST, SECOND = "127.66.0.1", "127.66.0.2"
SLEEP: Final = ("sleep", "1000")
N_ASKS_MAX = 256  # MFD_ASKS_MAX, native/meshfd.h

# Says that it was asked to end, and does not.
STUBBORN: Final = """
import signal
signal.signal(signal.SIGTERM, lambda *_: print("asked to end", flush=True))
print("up", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """See after each test that no process and no fd is left."""
    gc.collect()
    fds, processes = open_fds(), running_below()
    yield
    gc.collect()  # a traceback's frames hold the statistics, whose mmap(2) keeps an fd
    assert running_below() <= processes
    assert open_fds().items() <= fds.items()


@pytest.fixture
def hello() -> Iterator[meshfd.Verdict]:
    """Return the redirection to a server that says hello."""
    with Greeter() as server:
        yield target_of(server)


def target_of(server: Greeter) -> meshfd.Verdict:
    """Return the redirection to a server."""
    return meshfd.parse_target(f"127.0.0.1:{port_of(server.listening)}")


def asked(host: str, port: int = 80) -> meshfd.SocketAddress:
    """Return an address as calls and events name it."""
    return meshfd.SocketAddress(ip_address(host), port)


# --- the example ---------------------------------------------------------------------------------


def test_the_example_runs() -> None:
    """conf/decide.py redirects its client's first connection, refuses the second, and ends."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "conf/decide.py")],
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE_S,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    # Two processes write to one pipe: lines may be mixed, what is printed at once is not.
    events = re.findall(r"(Redirected|Denied|Exited)\(pid=", done.stdout)
    assert events == ["Redirected", "Denied", "Exited"]
    assert "hello\n" in done.stdout
    assert "<urlopen error [Errno 113] No route to host>" in done.stdout
    assert done.stdout.endswith("exit code 0\n")
    assert done.stderr == ""


def test_readme_shows_the_example() -> None:
    """README shows conf/decide.py as it is, in a block of Python."""
    blocks = (ROOT / "README.md").read_text().split("```python\n")[1:]
    shown = [block.partition("```")[0].strip() for block in blocks]
    example = (ROOT / "conf/decide.py").read_text().strip()
    assert example in shown, "README.md has no ```python block that is conf/decide.py verbatim"


# --- events and the end --------------------------------------------------------------------------


async def test_events_in_order(hello: meshfd.Verdict) -> None:
    """Events come in the order of the calls, and end with the program's end."""
    routes: list[meshfd.Route | str] = [
        meshfd.Route(meshfd.Destination(None, 80, 80), hello),
        f"{SECOND}:81=deny=EHOSTUNREACH",
    ]
    with open_talk() as talk:
        async with meshfd.spawn(
            TALK, routes=routes, stdin=talk.stdin_fd, stdout=talk.stdout_fd
        ) as program:
            talk.tell(f"{FIRST} 80")
            assert await talk.line() == f"{FIRST} hello"
            talk.tell(f"{SECOND} 81")
            assert await talk.line() == f"{SECOND} EHOSTUNREACH"
            await program.signal(signal.SIGTERM)
            events = [event async for event in program]
    first, second, last = events
    assert isinstance(first, meshfd.Redirected)
    assert (first.rule, first.asked, first.attempts) == (0, asked(FIRST), 1)
    assert isinstance(first.given, meshfd.SocketAddress)
    assert first.given.ip == ip_address("127.0.0.1")
    assert isinstance(second, meshfd.Denied)
    assert (second.rule, second.asked, second.errno) == (1, asked(SECOND, 81), errno.EHOSTUNREACH)
    assert last == meshfd.Exited(program.pid, signal.SIGTERM)


async def test_listening_sockets_are_handed_over() -> None:
    """The daemon's bind() receives the socket, then listen() tells that it is ready."""
    with Greeter() as taken:
        port = port_of(taken.listening)
    code = f"import socket; one = socket.create_server(('127.0.0.1', {port})); one.accept()"
    async with meshfd.spawn([sys.executable, "-c", code], listen=[f"127.0.0.1:{port}"]) as program:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        events = [event async for event in program]
        await stream.aclose()
    assert [type(event) for event in events] == [
        meshfd.HandedOver,
        meshfd.Listening,
        meshfd.Exited,
    ]
    assert events[0] == meshfd.HandedOver(program.pid, 0, asked("127.0.0.1", port))


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", -9)])
async def test_wait(script: str, code: int) -> None:
    """wait() gives the exit code, or minus the signal, as often as it is asked."""
    async with meshfd.spawn(["sh", "-c", script]) as program:
        assert await program.wait() == code
        assert await program.wait() == code
        await program.signal(signal.SIGTERM)  # nothing is there: nothing happens


async def test_signal() -> None:
    """A signal reaches the program."""
    async with meshfd.spawn(SLEEP) as program:
        await program.signal(signal.SIGUSR1)
        assert await program.wait() == -signal.SIGUSR1


async def test_events_that_nobody_takes(program: Programs, hello: meshfd.Verdict) -> None:
    """Past EVENTS_MAX events are dropped and counted; the program's end is known all the same.

    Each round's have come before the next begins: what the agent cannot send it drops, too.
    """
    n_rounds, n_connects = 16, 100
    command = [str(program("hammer")), FIRST, "80", str(n_connects)]
    route = meshfd.Route(meshfd.Destination(None), hello)
    with open_talk() as talk:
        async with meshfd.spawn(
            command, routes=[route], stdin=talk.stdin_fd, stdout=talk.stdout_fd
        ) as running:

            def n_dropped() -> int:
                lost = running.statistics().events_lost + running._agent.events_dropped
                return running.n_events_dropped + lost

            def have_come(n: int) -> bool:
                return running._events.statistics().current_buffer_used + n_dropped() >= n

            assert (await talk.line()).startswith("parent: ")
            for n in range(1, n_rounds + 1):
                talk.tell("go")
                assert await talk.line() == "done"
                await wait_for(partial(have_come, n * n_connects), "the events of a round")
            await running.signal(signal.SIGKILL)
            assert await running.wait() == -signal.SIGKILL
            events = [event async for event in running]
            assert len(events) == EVENTS_MAX
            assert len(events) + n_dropped() == n_rounds * n_connects + 1


# --- decisions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "said"),
    [("pass", "hello"), ("deny", "ECONNREFUSED"), ("deny=EACCES", "EACCES"), ("redirect", "hello")],
)
async def test_verdicts(target: str, said: str) -> None:
    """decide() passes, refuses with its errno, or redirects."""
    calls: list[meshfd.Call] = []
    with Greeter() as server, open_talk() as talk:
        verdict = target_of(server) if target == "redirect" else meshfd.parse_target(target)
        host = FIRST if target == "redirect" else "127.0.0.1"
        port = port_of(server.listening)

        async def decide(call: meshfd.Call) -> meshfd.Verdict:
            calls.append(call)
            return verdict

        async with meshfd.spawn(
            TALK, decide=decide, stdin=talk.stdin_fd, stdout=talk.stdout_fd
        ) as program:
            talk.tell(f"{host} {port}")
            assert await talk.line() == f"{host} {said}"
    assert [call.asked for call in calls] == [asked(host, port)]
    assert calls[0].cookie
    assert program.statistics().asked == 1


async def test_verdicts_that_name_a_unix_socket(tmp_path: Path) -> None:
    """They are carried out where some route names one, and else refused: nothing is prepared."""
    where = str(tmp_path / "greeter.sock")
    verdict = meshfd.parse_target(f"unix:{where}")

    async def decide(call: meshfd.Call) -> meshfd.Verdict:
        assert str(call.asked) == f"{FIRST}:80"
        return verdict

    with Greeter(where=where), open_talk() as talk:
        async with meshfd.spawn(
            TALK,
            routes=[f"{FIRST}:80=ask", f"{SECOND}:80=unix:@none"],
            decide=decide,
            stdin=talk.stdin_fd,
            stdout=talk.stdout_fd,
        ) as program:
            talk.tell(f"{FIRST} 80")
            assert await talk.line() == f"{FIRST} hello"
            await program.signal(signal.SIGTERM)
            first, *_ = [event async for event in program]
    assert isinstance(first, meshfd.Redirected)
    assert first.given == meshfd.UnixAddress(where)


async def test_verdicts_that_name_a_unix_socket_unprepared() -> None:
    """Where no route names one, such a verdict is an error, which ends the context."""

    async def decide(_: meshfd.Call) -> meshfd.Verdict:
        return meshfd.parse_target("unix:@none")

    with open_talk() as talk:
        spawned = meshfd.spawn(TALK, decide=decide, stdin=talk.stdin_fd, stdout=talk.stdout_fd)
        with pytest.raises(ValueError, match="only if some route does"):  # noqa: PT012
            async with spawned as program:
                talk.tell(f"{FIRST} 80")
                await program.wait()


async def test_routes_that_need_another_filter() -> None:
    """The filter stays as it was when the program was started, and routes must do with it."""
    async with meshfd.spawn(SLEEP, routes=[f"{FIRST}=deny"]) as program:
        await program.set_routes([f"{FIRST}=pass"])
        for route in (f"{FIRST}=unix:@a", f"udp:{FIRST}=pass"):
            with pytest.raises(ValueError, match="need a program that was started with such a"):
                await program.set_routes([route])


async def test_ask_routes_alone_ask() -> None:
    """With a route that asks, calls that no route matches are not asked about."""
    calls: list[str] = []

    async def decide(call: meshfd.Call) -> meshfd.Verdict:
        calls.append(str(call.asked))
        return meshfd.Deny(errno.EACCES)

    with Greeter() as server, open_talk() as talk:
        routes = [f"{FIRST}:80=ask", f"{SECOND}:80=deny"]
        async with meshfd.spawn(
            TALK, routes=routes, decide=decide, stdin=talk.stdin_fd, stdout=talk.stdout_fd
        ):
            for line, said in [
                (f"{SECOND} 80", f"{SECOND} ECONNREFUSED"),
                (f"{FIRST} 80", f"{FIRST} EACCES"),
                (f"127.0.0.1 {port_of(server.listening)}", "127.0.0.1 hello"),
            ]:
                talk.tell(line)
                assert await talk.line() == said
    assert calls == [f"{FIRST}:80"]


@pytest.mark.parametrize("n_old", [1, 20_000])
async def test_decision_after_new_routes(n_old: int) -> None:
    """A call that waits while routes are replaced is decided, and counted for no other route."""
    old = [f"10.{number >> 8}.{number & 255}.0/24=deny" for number in range(n_old)]
    new = [f"{SECOND}:80=deny"]

    async def decide(_: meshfd.Call) -> meshfd.Verdict:
        await program.set_routes(new)
        return meshfd.Deny(errno.EACCES)

    with open_talk() as talk:
        async with meshfd.spawn(
            TALK,
            routes=[*old, f"{FIRST}:80=ask"],
            decide=decide,
            stdin=talk.stdin_fd,
            stdout=talk.stdout_fd,
        ) as program:
            for host, said in [(FIRST, "EACCES"), (SECOND, "ECONNREFUSED")]:
                talk.tell(f"{host} 80")
                assert await talk.line() == f"{host} {said}"
            assert list(program._agent.route_counts().values()) == [1]


async def test_slow_decision_holds_up_its_own_call_alone(hello: meshfd.Verdict) -> None:
    """While one call waits for its verdict, others are decided and connected."""
    slow_asked, release = trio.Event(), trio.Event()

    async def decide(call: meshfd.Call) -> meshfd.Verdict:
        if call.asked == asked(SECOND):
            slow_asked.set()
            await release.wait()
        return hello

    with open_talk() as talk:
        async with meshfd.spawn(
            TALK,
            decide=decide,
            ask_timeout_s=DEADLINE_S,
            stdin=talk.stdin_fd,
            stdout=talk.stdout_fd,
        ) as program:
            talk.tell(f"{SECOND} 80")
            await slow_asked.wait()
            talk.tell(f"{FIRST} 80")
            assert await talk.line() == f"{FIRST} hello"
            assert program.statistics().asks == 1
            release.set()
            assert await talk.line() == f"{SECOND} hello"


# Connects to HOST PORT again and again until that is done, and prints how each call ended.
UNTIL_CONNECTED: Final = """
import errno, select, socket, sys
with socket.socket() as one:
    one.setblocking(False)
    said = []
    while not said or said[-1] != "EISCONN":
        said.append(errno.errorcode.get(one.connect_ex((sys.argv[1], int(sys.argv[2]))), "0"))
        select.select([], [one], [])
print(*said)
"""


@pytest.mark.parametrize("ask", [True, False])
async def test_repeated_connect(ask: bool, hello: meshfd.Verdict) -> None:
    """A connect() that is repeated until EISCONN is one: asked about once, and reported once."""
    calls: list[str] = []

    async def decide(call: meshfd.Call) -> meshfd.Verdict:
        calls.append(str(call.asked))
        return hello

    route = meshfd.Route(meshfd.Destination(None), hello)
    with open_talk() as talk:
        async with meshfd.spawn(
            [sys.executable, "-c", UNTIL_CONNECTED, FIRST, "80"],
            routes=[] if ask else [route],
            decide=decide if ask else None,
            stdout=talk.stdout_fd,
        ) as program:
            assert await talk.line() == "EINPROGRESS 0 EISCONN"
            events = [event async for event in program]
    assert [type(event) for event in events] == [meshfd.Redirected, meshfd.Exited]
    assert program.statistics().redirected == 1
    assert calls == ([f"{FIRST}:80"] if ask else [])


async def test_restarted_connect(program: Programs) -> None:
    """A blocking connect() that a signal restarts is asked about once."""
    calls: list[str] = []
    with SilentServer() as server, open_talk() as talk:

        async def decide(call: meshfd.Call) -> meshfd.Verdict:
            calls.append(str(call.asked))
            return meshfd.parse_target(f"127.0.0.1:{port_of(server.listening)}")

        async with meshfd.spawn(
            [str(program("waits")), "restart", FIRST, "80"], decide=decide, stdout=talk.stdout_fd
        ) as running:
            assert (await talk.line()).startswith("pid: ")
            await trio.to_thread.run_sync(server.wait_for_caller)
            await running.signal(signal.SIGUSR1)
            assert await talk.line() == "handled"
            server.answer()
            assert await talk.line() == "connect: 0"
            assert await running.wait() == 0
    assert calls == [f"{FIRST}:80"]


async def test_udp_is_not_asked_about() -> None:
    """connect() of a UDP socket passes without a question."""
    calls: list[meshfd.Call] = []

    async def decide(call: meshfd.Call) -> meshfd.Verdict:
        calls.append(call)
        return meshfd.Deny(errno.EACCES)

    code = (
        "import socket\n"
        "one = socket.socket(type=socket.SOCK_DGRAM)\n"
        f"one.connect(({FIRST!r}, 80))\n"
        "print(*one.getpeername())\n"
    )
    with open_talk() as talk:
        async with meshfd.spawn(
            [sys.executable, "-c", code], decide=decide, stdout=talk.stdout_fd
        ) as program:
            assert await talk.line() == f"{FIRST} 80"
            assert await program.wait() == 0
    assert calls == []


async def test_decide_that_says_nothing() -> None:
    """What is no verdict is a mistake of the caller's: TypeError ends the context."""

    async def decide(call: meshfd.Call) -> meshfd.Verdict:
        return None  # type: ignore[return-value] # the mistake

    with open_talk() as talk:
        talk.tell(f"{FIRST} 80")
        with pytest.raises(TypeError, match="None"):
            async with meshfd.spawn(
                TALK, decide=decide, stdin=talk.stdin_fd, stdout=talk.stdout_fd
            ) as program:
                await program.wait()
    assert not alive(program.pid)


async def test_more_endpoints_than_one_connect_tries(hello: meshfd.Verdict) -> None:
    """Of many endpoints a verdict tries eight, and each verdict begins with the next one."""
    refusing = ",".join(f"127.0.0.2:{port}" for port in range(1, 9))
    assert isinstance(hello, meshfd.Redirect)
    live = hello.upstream.endpoints[0].address
    target = meshfd.parse_target(f"{refusing},{live}")

    async def decide(call: meshfd.Call) -> meshfd.Verdict:
        return target

    with open_talk() as talk:
        async with meshfd.spawn(
            TALK, decide=decide, stdin=talk.stdin_fd, stdout=talk.stdout_fd
        ) as program:
            for said in ("ECONNREFUSED", "hello"):
                talk.tell(f"{FIRST} 80")
                assert await talk.line() == f"{FIRST} {said}"
            await program.signal(signal.SIGKILL)


@pytest.mark.parametrize("seconds", [inf, nan, 1e9, -1])
async def test_a_timeout_that_cannot_be_counted(seconds: float) -> None:
    """A time that agents cannot count is refused with the most that they can."""
    with pytest.raises(ValueError, match="ask_timeout_s is a number of seconds, 0 to 2592000"):
        async with meshfd.spawn(SLEEP, ask_timeout_s=seconds):
            pytest.fail("it ran")


async def test_ask_without_decide() -> None:
    """A route that asks nobody is refused before anything is started."""
    with pytest.raises(ValueError, match="decide"):
        async with meshfd.spawn(SLEEP, routes=[f"{FIRST}:80=ask"]):
            pytest.fail("it ran")


class OddError(Exception):
    """Something of the caller's own."""


async def test_decide_raises() -> None:
    """What decide() raises ends the context: that very exception, in no group."""
    error = OddError("odd")

    async def decide(call: meshfd.Call) -> meshfd.Verdict:
        raise error

    with open_talk() as talk:
        talk.tell(f"{FIRST} 80")
        with pytest.raises(OddError) as caught:
            async with meshfd.spawn(
                TALK, decide=decide, stdin=talk.stdin_fd, stdout=talk.stdout_fd
            ) as program:
                await program.wait()
    assert caught.value is error
    assert not alive(program.pid)


async def test_body_raises() -> None:
    """What the context's body raises comes out as it is, and the program is gone."""
    error = OddError("odd")
    with pytest.raises(OddError) as caught:
        async with meshfd.spawn(SLEEP) as program:
            raise error
    assert caught.value is error
    assert not alive(program.pid)


@pytest.mark.parametrize(("ask_open", "said"), [(False, "ECONNREFUSED"), (True, "hello")])
async def test_no_verdict_in_time(ask_open: bool, said: str) -> None:
    """A call without a verdict is refused in the end, or passes; a Notice says so."""

    async def decide(call: meshfd.Call) -> meshfd.Verdict:
        await trio.sleep_forever()
        raise AssertionError

    with Greeter() as server, open_talk() as talk:
        async with meshfd.spawn(
            TALK,
            decide=decide,
            ask_timeout_s=0.05,
            ask_open=ask_open,
            stdin=talk.stdin_fd,
            stdout=talk.stdout_fd,
        ) as program:
            talk.tell(f"127.0.0.1 {port_of(server.listening)}")
            assert await talk.line() == f"127.0.0.1 {said}"
            event = await anext(aiter(program))
    assert isinstance(event, meshfd.Notice)
    assert event.kind is NoticeKind.ASK_TIMEOUT


async def test_late_verdict_is_passed_over(hello: meshfd.Verdict) -> None:
    """A verdict that comes after the default was given changes nothing."""
    release = trio.Event()

    async def decide(call: meshfd.Call) -> meshfd.Verdict:
        if call.asked == asked(SECOND):
            await release.wait()
        return hello

    with open_talk() as talk:
        async with meshfd.spawn(
            TALK, decide=decide, ask_timeout_s=0.3, stdin=talk.stdin_fd, stdout=talk.stdout_fd
        ) as program:
            talk.tell(f"{SECOND} 80")
            assert await talk.line() == f"{SECOND} ECONNREFUSED"
            release.set()
            await program.set_routes([f"{FIRST}:80=ask"])  # answered after the verdict
            talk.tell(f"{FIRST} 80")
            assert await talk.line() == f"{FIRST} hello"


async def test_too_many_asks(hello: meshfd.Verdict) -> None:
    """Calls past the limit get the default, with a Notice; those that wait are decided."""
    n_calls = N_ASKS_MAX + 44
    release, outcomes, n_asked = trio.Event(), Counter[str](), 0

    async def decide(call: meshfd.Call) -> meshfd.Verdict:
        nonlocal n_asked
        n_asked += 1
        await release.wait()
        return hello

    with open_talk() as talk:
        async with meshfd.spawn(
            TALK,
            decide=decide,
            ask_timeout_s=DEADLINE_S,
            stdin=talk.stdin_fd,
            stdout=talk.stdout_fd,
        ) as program:
            for _ in range(n_calls):
                talk.tell(f"{FIRST} 80")
            for _ in range(n_calls - N_ASKS_MAX):
                outcomes[await talk.line()] += 1
            release.set()
            for _ in range(N_ASKS_MAX):
                outcomes[await talk.line()] += 1
            statistics = program.statistics()
            await program.signal(signal.SIGKILL)
            events = [event async for event in program]
    # Where the channel was full for a moment, a few more had the default.
    assert outcomes == {f"{FIRST} hello": n_asked, f"{FIRST} ECONNREFUSED": n_calls - n_asked}
    assert 0 < n_asked <= N_ASKS_MAX
    assert (statistics.asked, statistics.asks) == (n_asked, 0)
    kinds = [event.kind for event in events if isinstance(event, meshfd.Notice)]
    assert kinds == [NoticeKind.ASK_FULL]


# --- routes at run time, several programs, statistics --------------------------------------------


async def test_set_routes() -> None:
    """New routes decide the next connect."""
    with Greeter("one") as one, Greeter("two") as two, open_talk() as talk:
        async with meshfd.spawn(
            TALK,
            routes=[meshfd.Route(meshfd.Destination(None), target_of(one))],
            stdin=talk.stdin_fd,
            stdout=talk.stdout_fd,
        ) as program:
            talk.tell(f"{FIRST} 80")
            assert await talk.line() == f"{FIRST} one"
            await program.set_routes([meshfd.Route(meshfd.Destination(None), target_of(two))])
            talk.tell(f"{FIRST} 80")
            assert await talk.line() == f"{FIRST} two"
            with pytest.raises(meshfd.RouteSyntaxError):
                await program.set_routes(["nonsense"])
            talk.tell(f"{FIRST} 80")
            assert await talk.line() == f"{FIRST} two"
            await program.set_routes([f"{FIRST}:80=deny"])
            talk.tell(f"{FIRST} 80")
            assert await talk.line() == f"{FIRST} ECONNREFUSED"


async def test_two_programs_at_once() -> None:
    """Each program has its own routes, and its end is its own."""
    with Greeter("one") as one, Greeter("two") as two, open_talk() as left, open_talk() as right:
        async with (
            meshfd.spawn(
                TALK,
                routes=[meshfd.Route(meshfd.Destination(None), target_of(one))],
                stdin=left.stdin_fd,
                stdout=left.stdout_fd,
            ) as first,
            meshfd.spawn(
                TALK,
                routes=[meshfd.Route(meshfd.Destination(None), target_of(two))],
                stdin=right.stdin_fd,
                stdout=right.stdout_fd,
            ) as second,
        ):
            left.tell(f"{FIRST} 80")
            right.tell(f"{FIRST} 80")
            assert await left.line() == f"{FIRST} one"
            assert await right.line() == f"{FIRST} two"
            await first.signal(signal.SIGKILL)
            assert await first.wait() == -signal.SIGKILL
            right.tell(f"{FIRST} 80")
            assert await right.line() == f"{FIRST} two"
            assert alive(second.pid)


async def test_statistics_add_up() -> None:
    """Every connect() is counted once, as what became of it; also after the end."""

    async def decide(call: meshfd.Call) -> meshfd.Verdict:
        return meshfd.Pass()

    with Greeter() as server, open_talk() as talk:
        real = port_of(server.listening)
        routes: list[meshfd.Route | str] = [
            meshfd.Route(meshfd.parse_route(f"{FIRST}=pass").destination, target_of(server)),
            f"{SECOND}=deny",
            "127.0.0.1=ask",
        ]
        async with meshfd.spawn(
            TALK, routes=routes, decide=decide, stdin=talk.stdin_fd, stdout=talk.stdout_fd
        ) as program:
            for host, port in [(FIRST, 80)] * 3 + [(SECOND, 80)] * 2 + [("127.0.0.1", real)]:
                talk.tell(f"{host} {port}")
                await talk.line()
    counted = program.statistics()
    assert (counted.redirected, counted.denied, counted.passed, counted.asked) == (3, 2, 1, 1)
    assert counted.connects == counted.redirected + counted.denied + counted.passed
    assert counted.calls == counted.connects  # nothing else is trapped: no listening socket, but
    assert sum(counted.connect_ns) == counted.redirected + counted.denied
    assert (counted.asks, counted.events_lost, counted.vanished) == (0, 0, 0)


# --- surroundings --------------------------------------------------------------------------------


async def test_environment() -> None:
    """The program has the given environment and nothing else."""
    with open_talk() as talk:
        command = ["/usr/bin/env"]
        async with meshfd.spawn(
            command, environment={"GIVEN": "ä b"}, stdout=talk.stdout_fd
        ) as program:
            assert await program.wait() == 0
            assert await talk.line() == "GIVEN=ä b"


async def test_inherited_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one it has ours as it is at that moment."""
    monkeypatch.setenv("OURS", "one")
    with open_talk() as talk:
        async with meshfd.spawn(["sh", "-c", 'echo "$OURS"'], stdout=talk.stdout_fd):
            assert await talk.line() == "one"


async def test_working_dir(tmp_path: Path) -> None:
    """The program starts in the given directory."""
    with open_talk() as talk:
        async with meshfd.spawn(
            ["pwd", "-P"], working_dir=str(tmp_path), stdout=talk.stdout_fd
        ) as program:
            assert await program.wait() == 0
            assert await talk.line() == str(tmp_path)


async def test_standard_files(tmp_path: Path) -> None:
    """The standard files are those given, as files or fds, and no other fd is inherited."""
    given, out, err = tmp_path / "in", tmp_path / "out", tmp_path / "err"
    given.write_text("given")
    script = "cat; echo complaint >&2; echo; ls /proc/self/fd"
    with given.open() as stdin, out.open("wb") as stdout, err.open("w") as stderr:
        async with meshfd.spawn(
            ["sh", "-c", script], stdin=stdin, stdout=stdout, stderr=stderr.fileno()
        ) as program:
            assert await program.wait() == 0
    assert err.read_text() == "complaint\n"
    assert out.read_text().splitlines() == ["given", "0", "1", "2", "3"]  # 3: the list itself


CLOSED = """
import os, sys, trio, meshfd
async def main():
    script = 'all=$(readlink /proc/$$/fd/[012]); echo $all >' + sys.argv[1]
    async with meshfd.spawn(["sh", "-c", script]) as program:
        assert await program.wait() == 0
os.closerange(0, 3)
trio.run(main)
"""


def test_closed_standard_files(tmp_path: Path) -> None:
    """A standard file that we lack is /dev/null for the program, not a file of meshfd's."""
    out = tmp_path / "out"
    subprocess.run([sys.executable, "-c", CLOSED, str(out)], check=True)
    assert out.read_text().split() == ["/dev/null"] * 3


# --- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code"), [(["/nonexistent"], errno.ENOENT), (["/etc/passwd"], errno.EACCES)]
)
async def test_program_that_cannot_be_run(words: list[str], code: int) -> None:
    """SpawnError comes by itself, and says which program and why."""
    with pytest.raises(meshfd.SpawnError, match=words[0]) as caught:
        async with meshfd.spawn(words):
            pytest.fail("it ran")
    assert (caught.value.errno, caught.value.stage) == (code, "exec")
    assert os.strerror(code) in str(caught.value)


async def test_working_dir_that_cannot_be_entered() -> None:
    """SpawnError names the stage."""
    with pytest.raises(meshfd.SpawnError, match="working directory") as caught:
        async with meshfd.spawn(SLEEP, working_dir="/nonexistent"):
            pytest.fail("it ran")
    assert caught.value.stage == "chdir"


async def test_taken_address() -> None:
    """ListenError names the address and why, before the program runs."""
    with Greeter() as taken:
        address = f"127.0.0.1:{port_of(taken.listening)}"
        with pytest.raises(meshfd.ListenError, match=f"{address}: Address already in use"):
            async with meshfd.spawn(SLEEP, listen=[address]):
                pytest.fail("it ran")


@pytest.mark.parametrize("routes", [["nonsense"], ["127.66.0.1:80=nowhere"], ["=pass"]])
async def test_route_that_is_none(routes: list[str]) -> None:
    """RouteSyntaxError comes before anything is started."""
    with pytest.raises(meshfd.RouteSyntaxError):
        async with meshfd.spawn(SLEEP, routes=routes):
            pytest.fail("it ran")


async def test_listening_socket_that_is_none() -> None:
    """So it does for a listening socket."""
    with pytest.raises(meshfd.RouteSyntaxError):
        async with meshfd.spawn(SLEEP, listen=["nonsense"]):
            pytest.fail("it ran")


# --- leaving -------------------------------------------------------------------------------------


async def test_leaving_kills_what_hides() -> None:
    """A grandchild in a session of its own, whose parents are gone, ends with the context."""
    script = "setsid sh -c 'sleep 1000 & echo $!' & wait; echo gone; sleep 1000"
    with open_talk() as talk:
        async with meshfd.spawn(["sh", "-c", script], stdout=talk.stdout_fd) as program:
            hidden = int(await talk.line())
            assert await talk.line() == "gone"
            assert alive(hidden)
    assert not alive(hidden)
    assert not alive(program.pid)


async def test_leaving_kills_what_outlives_the_program() -> None:
    """What the program left behind ends with the context, and not before."""
    with open_talk() as talk:
        script = "setsid sleep 1000 & echo $!"
        async with meshfd.spawn(["sh", "-c", script], stdout=talk.stdout_fd) as program:
            left = int(await talk.line())
            assert await program.wait() == 0
            assert alive(left)
    assert not alive(left)


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope when the run's tasks have taken so many steps."""

    def __init__(self, scope: trio.CancelScope, n_steps: int) -> None:
        """Count from now on."""
        self._scope = scope
        self._n_left = n_steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count one."""
        del task  # whose it is does not matter
        self._n_left -= 1
        if self._n_left == 0:
            self._scope.cancel()


async def cancelled_at(n_steps: int, port: int) -> bool:
    """Run a program and cancel at a step; whether that was before the end."""
    with trio.CancelScope() as scope:
        instrument = CancelAtStep(scope, n_steps)
        trio.lowlevel.add_instrument(instrument)
        try:
            async with meshfd.spawn(
                ["sh", "-c", "exit 3"],
                routes=[f"{FIRST}:80=deny"],
                listen=[f"127.0.0.1:{port}"],
            ) as program:
                assert [event async for event in program] == [
                    meshfd.Exited(program.pid, 3 << 8),
                ]
                assert await program.wait() == 3
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancelled_caught


async def test_cancellation_in_every_stage() -> None:
    """Cancelled at whichever step, no process and no fd is left."""
    fds, processes, port = open_fds(), running_below(), free_port()
    n_steps = 1
    while await cancelled_at(n_steps, port):
        gc.collect()
        assert running_below() <= processes, f"cancelled at step {n_steps}"
        assert open_fds() == fds, f"cancelled at step {n_steps}"
        n_steps += 1
    assert n_steps > 10


async def test_cancellation_kills() -> None:
    """A program whose context is cancelled is killed, not asked to end."""
    with open_talk() as talk:
        with trio.CancelScope() as scope:
            async with meshfd.spawn(
                [sys.executable, "-c", STUBBORN], stdout=talk.stdout_fd
            ) as program:
                assert await talk.line() == "up"
                scope.cancel()
                await trio.sleep_forever()
        assert not alive(program.pid)
        assert talk.unread() == ""


async def test_agent_that_is_lost() -> None:
    """When the agent is killed, wait() says so, and leaving ends the program all the same."""
    async with meshfd.spawn(SLEEP) as program:
        os.kill(program._agent.pid, signal.SIGKILL)
        with pytest.raises(meshfd.AgentLostError):
            await program.wait()
        with pytest.raises(meshfd.AgentLostError):
            await program.signal(signal.SIGTERM)
        assert program.statistics().connects == 0
    left = alive(program.pid)
    if left:
        os.kill(program.pid, signal.SIGKILL)
    assert not left
