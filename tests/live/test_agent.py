"""One agent: route tables replaced in full swing, whoever dies, and channels nobody reads."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import signal
import socket
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import trio.testing

from meshfd import engine
from meshfd.agent import AgentOptions, Scope, open_agent
from meshfd.agent_process import AGENT_VARIABLE, check_done, start_agent
from meshfd.channel import receive_packet, send_packet
from meshfd.engine import LISTEN_MAX, Done, WireError
from meshfd.errors import (
    AgentLostError,
    ListenError,
    MeshfdError,
    NotSupportedError,
    SpawnError,
)
from meshfd.events import Denied, Emptied, Event, Exited, Listening
from meshfd.features import Features
from meshfd.model import Deny, Destination, ListeningSocket, Redirect, Route, SocketAddress
from meshfd.program import Program
from meshfd.route_table import compile_routes
from meshfd.routes import parse_route
from tests.support.processes import Processes, children_of, state_of
from tests.support.servers import Greeter, free_port, port_of
from tests.support.talking import TALKER, Talk, alive, open_fds, open_talk, running_below, wait_for
from tests.support.waiting import DEADLINE_S, wait_until

VIRTUAL: Final = "127.66.0.1"
N_LISTENERS_MAX: Final = 32  # MFD_LISTENERS_MAX, native/meshfd.h
EVERYWHERE: Final = Destination(None)
NULL: Final = (os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC),) * 3


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """See after each test that no process and no fd is left."""
    gc.collect()
    fds, processes = open_fds(), running_below()
    yield
    gc.collect()  # a traceback's frames hold the statistics, whose mmap(2) keeps an fd
    assert running_below() <= processes
    assert open_fds().items() <= fds.items()


def program_of(*words: str | Path, new_session: bool = False) -> Program:
    """Return a program with our environment."""
    argv = tuple(os.fspath(word) for word in words)
    return Program(argv, tuple(os.environ.items()), new_session=new_session)


def stdio_of(talk: Talk) -> tuple[int, int, int]:
    """Return standard files for `Agent.spawn`."""
    return (talk.stdin_fd, talk.stdout_fd, 2)


def route_to(server: Greeter, destination: Destination = EVERYWHERE) -> Route:
    """Return a route to a server."""
    return Route(
        destination, parse_route(f"{VIRTUAL}=127.0.0.1:{port_of(server.listening)}").verdict
    )


# --- route tables --------------------------------------------------------------------------------

# Connects N times, and prints how many greetings of each kind there were.
COUNTING: Final = """
import collections, socket, sys
counts = collections.Counter()
for _ in range(int(sys.argv[1])):
    with socket.socket() as connection:
        connection.connect(("127.66.0.1", 80))
        counts[connection.makefile().readline().strip()] += 1
print(" ".join(f"{name}={count}" for name, count in sorted(counts.items())), flush=True)
"""


async def test_routes_replaced_while_programs_connect() -> None:
    """Each connection goes by the old table or the new one, and none fails."""
    n_connects, n_replaced = 2000, 0
    with Greeter("one") as one, Greeter("two") as two, open_talk() as talk:
        tables = [[route_to(one)], [route_to(two)]]
        async with open_agent(AgentOptions()) as agent:
            await agent.set_routes(tables[0])
            program = program_of(sys.executable, "-c", COUNTING, str(n_connects))
            await agent.spawn(program, stdio=stdio_of(talk))
            async with trio.open_nursery() as nursery:

                async def replace() -> None:
                    nonlocal n_replaced
                    while True:
                        n_replaced += 1
                        await agent.set_routes(tables[n_replaced % 2])

                nursery.start_soon(replace)
                counts = dict(word.split("=") for word in (await talk.line()).split())
                nursery.cancel_scope.cancel()
            statistics = agent.statistics()
    assert set(counts) == {"one", "two"}
    assert sum(map(int, counts.values())) == n_connects
    assert statistics.redirected == n_connects
    assert n_replaced > 10


async def test_counts_survive_replacement() -> None:
    """What a route and an endpoint have counted goes on when both are in the new table, too."""
    n_connects = 1000
    with Greeter("one") as one, open_talk() as talk:
        kept = route_to(one)
        others = [parse_route(f":{port}=deny") for port in (1, 2, 3)]
        async with open_agent(AgentOptions()) as agent:
            await agent.set_routes([kept])
            program = program_of(sys.executable, "-c", COUNTING, str(n_connects))
            await agent.spawn(program, stdio=stdio_of(talk))
            async with trio.open_nursery() as nursery:

                async def replace() -> None:
                    n_replaced = 0
                    while True:
                        n_replaced += 1
                        await agent.set_routes([others[n_replaced % 3], kept])

                async def end() -> None:
                    assert await talk.line() == f"one={n_connects}"
                    done.set()

                done = trio.Event()
                nursery.start_soon(end)
                with trio.CancelScope() as replacing:
                    nursery.start_soon(_cancel_when, done, replacing)
                    await replace()
            await agent.set_routes([kept])
            assert isinstance(kept.verdict, Redirect)
            upstream = kept.verdict.upstream
            endpoint = upstream.endpoints[0]
            assert agent.endpoint_counts() == {(upstream, endpoint): n_connects}
            assert agent.route_counts() == {kept: n_connects}
            await agent.set_routes([others[0]])
            assert agent.route_counts() == {others[0]: 0}
            assert agent.endpoint_counts() == {}


async def test_counts_survive_cancellation() -> None:
    """A table that its caller did not wait for is in force, once the agent has it, and counts."""
    old, new = (parse_route(f"{VIRTUAL}=deny={name}") for name in ("EPERM", "ETIMEDOUT"))
    with open_talk() as talk:
        async with open_agent(AgentOptions()) as agent:
            await agent.set_routes([old])
            await agent.spawn(program_of(sys.executable, "-c", TALKER), stdio=stdio_of(talk))
            async with trio.open_nursery() as nursery:
                os.kill(agent.pid, signal.SIGSTOP)
                nursery.start_soon(agent.set_routes, [new])
                while not agent._requests:  # the table is compiled in another thread
                    await trio.lowlevel.checkpoint()
                await trio.testing.wait_all_tasks_blocked()  # it was sent
                nursery.cancel_scope.cancel()
            os.kill(agent.pid, signal.SIGCONT)
            talk.tell(f"{VIRTUAL} 80")
            assert await talk.line() == f"{VIRTUAL} ETIMEDOUT"
            await agent.close_listening(0)  # answers come in order
            assert agent.route_counts() == {new: 1}


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def test_tables_replaced_at_once() -> None:
    """Of several tables set at once, the counts are of the one that is in force."""
    route = parse_route(f"{VIRTUAL}=deny=EACCES")
    routes = [parse_route(f"{VIRTUAL}=deny={name}") for name in ("EPERM", "ETIMEDOUT")]
    with open_talk() as talk:
        async with open_agent(AgentOptions()) as agent:
            await agent.set_routes([route])
            await agent.spawn(program_of(sys.executable, "-c", TALKER), stdio=stdio_of(talk))
            for _ in range(10):
                async with trio.open_nursery() as nursery:
                    for one in routes:
                        nursery.start_soon(agent.set_routes, [one])
                before = agent.route_counts()
                talk.tell(f"{VIRTUAL} 80")
                name = (await talk.line()).split()[1]
                (counted,) = (+(agent.route_counts() - before)).elements()
                assert counted.verdict == Deny(getattr(errno, name))


# --- deaths --------------------------------------------------------------------------------------


async def test_killed_agent() -> None:
    """Pending and later requests raise AgentLostError, its session ends, the counters stay."""
    with open_talk() as talk:
        async with open_agent(AgentOptions()) as agent:
            await agent.set_routes([parse_route(":80=deny")])
            program = program_of(sys.executable, "-c", TALKER, new_session=True)
            pid = await agent.spawn(program, stdio=stdio_of(talk))
            talk.tell(f"{VIRTUAL} 80")
            assert await talk.line() == f"{VIRTUAL} ECONNREFUSED"
            os.kill(agent.pid, signal.SIGSTOP)
            lost: list[str] = []
            async with trio.open_nursery() as nursery:

                async def request(name: str, *arguments: Any) -> None:
                    with pytest.raises(AgentLostError):
                        await getattr(agent, name)(*arguments)
                    lost.append(name)

                nursery.start_soon(request, "set_routes", [])
                nursery.start_soon(request, "signal", signal.SIGTERM)
                nursery.start_soon(request, "close_listening", 0)
                await trio.testing.wait_all_tasks_blocked()
                os.kill(agent.pid, signal.SIGKILL)
            assert sorted(lost) == ["close_listening", "set_routes", "signal"]
            with pytest.raises(AgentLostError):
                await agent.set_routes([])
            assert [event async for event in agent.events] == []
            assert alive(pid)
        assert not alive(pid)
    assert agent.statistics().denied == 1
    assert sum(agent.route_counts().values()) == 1


# Runs the program of its arguments under an agent, and says when it runs.
SUPERVISOR: Final = """
import os, sys
import trio
import trio.testing
from meshfd.agent import AgentOptions, open_agent
from meshfd.events import Exited
from meshfd.program import Program
from meshfd.routes import parse_route

async def main():
    options = AgentOptions(report_decisions=True, stop_timeout_s=2.0)
    async with open_agent(options) as agent:
        await agent.set_routes([parse_route(":80=deny")])
        program = Program(tuple(sys.argv[1:]), tuple(os.environ.items()))
        pid = await agent.spawn(program, stdio=(0, 1, 2))
        async for event in agent.events:
            if isinstance(event, Exited):
                statistics = agent.statistics()
                counts = f"{statistics.denied} {statistics.events_lost}"
                os.write(1, f"exited {event.code} {counts}\\n".encode())  # others write here, too
                if "leaves" not in sys.argv:
                    break

trio.run(main)
"""

# Starts a grandchild that hides, and says when it is asked to end, but does not.
STUBBORN: Final = """
import signal, subprocess
signal.signal(signal.SIGTERM, lambda *_: print("asked to end", flush=True))
subprocess.run(["setsid", "-f", "sleep", "1000"], check=True)
print("up", flush=True)
while True:
    signal.pause()
"""


def test_killed_supervisor(processes: Processes) -> None:
    """The service is asked to end, then killed with all that it started, and the agent exits."""
    supervisor = processes.start([sys.executable, "-c", SUPERVISOR, sys.executable, "-c", STUBBORN])
    assert supervisor.line() == "up"
    supervisor.signal(signal.SIGKILL)
    assert supervisor.line() == "asked to end"
    assert supervisor.wait() == -signal.SIGKILL
    wait_until(lambda: not processes.running(), "the end of everything")


# Leaves a process that says when it is asked to end; ends when it is asked to, or at once.
LEAVING: Final = """
import os, signal, sys
if os.fork() == 0:
    asked = lambda *_: (print("leftover asked to end", flush=True), os._exit(0))
    signal.signal(signal.SIGTERM, asked)
    print("up", flush=True)
    while True:
        signal.pause()
if "stays" in sys.argv:
    signal.pause()
"""


@pytest.mark.parametrize("main", ["stays", "leaves"])
def test_killed_supervisor_and_what_is_left(main: str, processes: Processes) -> None:
    """What the main process leaves behind is asked to end, too, whenever it is left."""
    supervisor = processes.start(
        [sys.executable, "-c", SUPERVISOR, sys.executable, "-c", LEAVING, main]
    )
    seen = {supervisor.line() for _ in range(1 if main == "stays" else 2)}
    assert seen == ({"up"} if main == "stays" else {"up", "exited 0 0 0"})
    supervisor.signal(signal.SIGKILL)
    assert supervisor.line() == "leftover asked to end"
    assert supervisor.wait() == -signal.SIGKILL
    wait_until(lambda: not processes.running(), "the end of everything")


REFUSED: Final = """
import os, socket, sys
os.read(0, 3)  # "go" and its end: others may read the same pipe
for _ in range(int(sys.argv[1])):
    with socket.socket() as connection:
        assert connection.connect_ex(("127.66.0.1", 80)) == 111
print("done", flush=True)
"""


def test_supervisor_that_reads_no_more(processes: Processes) -> None:
    """Reports that nobody reads never hold the program up; its end is told in the end."""
    n_connects = 5000
    inner = [sys.executable, "-c", REFUSED, str(n_connects)]
    supervisor = processes.start([sys.executable, "-c", SUPERVISOR, *inner])

    def started() -> bool:
        agents = children_of(supervisor.pid)
        return any(children_of(agent) for agent in agents)

    wait_until(started, "the program")
    supervisor.signal(signal.SIGSTOP)
    wait_until(lambda: state_of(supervisor.pid) == "T", "the supervisor's stop")
    supervisor.tell("go")
    assert supervisor.line() == "done"
    supervisor.signal(signal.SIGCONT)
    said, code, denied, events_lost = supervisor.line().split()
    assert (said, int(code), int(denied)) == ("exited", 0, n_connects)
    assert 0 < int(events_lost) < n_connects
    assert supervisor.finish().code == 0


LISTENING: Final = """
import socket
for _ in range(3000):
    socket.create_server(("127.0.0.1", 0)).close()
print("done", flush=True)
"""


async def test_requests_are_answered_when_nobody_reads_events() -> None:
    """With as many unread events as are kept, and more to come, requests are still answered."""
    with open_talk() as talk:
        with trio.move_on_after(5) as scope:
            async with open_agent(AgentOptions()) as agent:
                await agent.spawn(program_of(sys.executable, "-c", LISTENING), stdio=stdio_of(talk))
                assert await talk.line() == "done"
                await agent.set_routes([])
        assert not scope.cancelled_caught


# --- starts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "error"),
    [
        ("/nonexistent", NotSupportedError),
        ("/etc/passwd", NotSupportedError),
        ("/bin/true", AgentLostError),
    ],
)
async def test_agent_that_cannot_be_started(
    agent: str, error: type[MeshfdError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that is missing, no program, or ends at once is told from one another."""
    monkeypatch.setenv(AGENT_VARIABLE, agent)
    with pytest.raises(error):
        async with open_agent(AgentOptions()):
            pytest.fail("it runs")


async def test_agent_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent whose packets are of another version is refused, with both named."""
    other = tmp_path / "agent"
    other.write_text(
        f"#!{sys.executable}\n"
        "import socket, sys\n"
        "channel = socket.socket(fileno=int(sys.argv[2]))\n"
        "packet = bytearray(channel.recv(4096))\n"
        "packet[0] = 99\n"
        "channel.send(packet)\n"
        "channel.recv(4096)\n"
    )
    other.chmod(0o755)
    monkeypatch.setenv(AGENT_VARIABLE, str(other))
    with pytest.raises(WireError, match=f"version 99, this meshfd {engine.WIRE_VERSION}"):
        async with open_agent(AgentOptions()):
            pytest.fail("it runs")


async def test_too_many_living_programs(tmp_path: Path) -> None:
    """Past the limit a spawn fails with an error; when a program has ended there is room again."""
    async with open_agent(AgentOptions()) as agent:
        pids = [
            await agent.spawn(program_of("sleep", "1000"), stdio=NULL)
            for _ in range(N_LISTENERS_MAX)
        ]
        with pytest.raises(SpawnError, match="too many programs"):
            await agent.spawn(program_of("sleep", "1000"), stdio=NULL)
        assert agent.statistics().calls == 0
        os.kill(pids[0], signal.SIGKILL)
        await wait_for(lambda: agent.statistics().listeners < N_LISTENERS_MAX, "the listener's end")
        await agent.spawn(program_of("sleep", "1000"), stdio=NULL)


async def test_spawn_that_fails_has_started_nothing() -> None:
    """A program for which there is no room never runs, and signals go where they went before."""
    async with open_agent(AgentOptions()) as agent:
        pids = [
            await agent.spawn(program_of("sleep", "1000"), stdio=NULL)
            for _ in range(N_LISTENERS_MAX)
        ]
        with pytest.raises(SpawnError):
            await agent.spawn(program_of("sleep", "1000"), stdio=NULL)
        await agent.signal(signal.SIGUSR1)
        with trio.fail_after(DEADLINE_S / 10):
            event = await anext(aiter(agent.events))
        assert event == Exited(pids[-1], signal.SIGUSR1)


async def test_too_many_listening_sockets() -> None:
    """Past the limit ListenError says so; closing one makes room."""
    async with open_agent(AgentOptions()) as agent:

        async def open_one() -> int:
            address = SocketAddress(ip_address("127.0.0.1"), free_port())
            return await agent.open_listening(ListeningSocket("one", address))

        assert [await open_one() for _ in range(LISTEN_MAX)] == list(range(LISTEN_MAX))
        with pytest.raises(ListenError, match=r"cannot listen on 127\.0\.0\.1:\d+: "):
            await open_one()
        await agent.close_listening(7)
        assert await open_one() == 7


# --- packets -------------------------------------------------------------------------------------


class Raw:
    """An agent, and our end of its channel as it is."""

    def __init__(self) -> None:
        """Start and set up."""
        self.pid, channel_fd = start_agent(inherit=False)
        self.channel = socket.socket(fileno=channel_fd)
        timeout = struct.pack("ll", int(DEADLINE_S), 0)  # struct timeval
        self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        self.seq = 0
        self.events: list[Event] = []
        self.stats_fd = -1

    def answer(self) -> Done:
        """Return the next answer; events before it are put aside."""
        while True:
            message, fds = receive_packet(self.channel.fileno())
            for fd in fds:
                self.stats_fd = fd
            if isinstance(message, Done):
                return message
            self.events.append(message)

    def ask(self, packet: bytes, *fds: int) -> Done:
        """Send a packet and return its answer."""
        send_packet(self.channel.fileno(), packet, fds)
        return self.answer()

    def setup(self) -> None:
        """Have decisions reported."""
        packet = engine.encode_setup(
            1,
            Features(),
            report_decisions=True,
            ask_open=False,
            ask_timeout_s=DEADLINE_S,
            stop_signal=signal.SIGKILL,
            stop_timeout_s=0.0,
        )
        assert self.ask(packet).errno == 0

    def spawn(self, *words: str | Path, stdio: tuple[int, int, int] = NULL) -> int:
        """Start a program."""
        block_fd = engine.program_block(program_of(*words))
        packet = engine.encode_spawn(9, inherit=False, new_session=False, ready_any=False)
        done = self.ask(packet, block_fd, *stdio)
        os.close(block_fd)
        assert done.errno == 0
        return done.value

    def set_routes(self, *routes: Route) -> Done:
        """Set a route table."""
        table = compile_routes(routes)
        done = self.ask(engine.encode_routes(8), table.table_fd, table.tally_fd)
        table.close()
        return done

    def end(self) -> int:
        """Hang up; the agent's exit code."""
        self.channel.close()
        if self.stats_fd >= 0:
            os.close(self.stats_fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def raw() -> Iterator[Raw]:
    """Return an agent that is set up; it must exit by itself when we hang up."""
    agent = Raw()
    agent.setup()
    yield agent
    assert agent.end() == 0


def changed(packet: bytes, at: int, value: int, width: int) -> bytes:
    """Return a packet with one field replaced."""
    return packet[:at] + value.to_bytes(width, sys.byteorder) + packet[at + width :]


def still_serves(agent: Raw) -> None:
    """See that the agent goes on."""
    assert agent.set_routes(parse_route(":80=deny")).errno == 0


def test_packet_of_another_version(raw: Raw) -> None:
    """It is refused with the agent's version, the user is told both, and the agent goes on."""
    done = raw.ask(changed(engine.encode_signal(5, 9, everything=True), 0, 99, 2))
    assert (done.seq, done.errno, done.value) == (5, errno.EPROTONOSUPPORT, engine.WIRE_VERSION)
    with pytest.raises(NotSupportedError, match=f"version {done.value}.* {engine.WIRE_VERSION}"):
        check_done(done)
    still_serves(raw)


SIGNAL: Final = engine.encode_signal(5, 9, everything=True)
SPAWN: Final = engine.encode_spawn(5, inherit=False, new_session=False, ready_any=False)
ROUTES: Final = engine.encode_routes(5)
VERDICT_TYPE: Final = 7


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(SIGNAL[:1], id="a byte"),
        pytest.param(SIGNAL[:15], id="less than a header"),
        pytest.param(SIGNAL[:16], id="a header alone"),
        pytest.param(SIGNAL[:-1], id="a byte too short"),
        pytest.param(SIGNAL + b"\0", id="a byte too long"),
        pytest.param(SIGNAL + bytes(4000), id="longer than any"),
        pytest.param(changed(SIGNAL, 4, 0, 4), id="size 0"),
        pytest.param(changed(SIGNAL, 4, 2**32 - 1, 4), id="size 2^32-1"),
        pytest.param(changed(SIGNAL, 2, 0, 2), id="type 0"),
        pytest.param(changed(SIGNAL, 2, 64, 2), id="an answer"),
        pytest.param(changed(SIGNAL, 2, 65535, 2), id="type 65535"),
        pytest.param(changed(SIGNAL, 2, VERDICT_TYPE, 2), id="a short verdict"),
        pytest.param(SPAWN, id="spawn without files"),
        pytest.param(ROUTES, id="routes without a table"),
    ],
)
def test_malformed_packet(packet: bytes, raw: Raw) -> None:
    """It is answered with EBADMSG, changes nothing, and the agent goes on."""
    sleeping = raw.spawn("sleep", "1000")
    assert raw.ask(packet).errno == errno.EBADMSG
    still_serves(raw)
    assert alive(sleeping)


@pytest.mark.parametrize("n_fds", [1, 2, 3])
def test_spawn_with_too_few_files(n_fds: int, raw: Raw) -> None:
    """It is refused, and the agent keeps none of them."""
    block_fd = engine.program_block(program_of("true"))
    fds = (block_fd, *NULL)[:n_fds]
    assert raw.ask(SPAWN, *fds).errno == errno.EBADMSG
    os.close(block_fd)
    still_serves(raw)


def test_files_that_belong_to_no_request(raw: Raw) -> None:
    """The agent closes them: whoever waits for the end of a pipe gets it."""
    reader, writer = os.pipe()
    assert raw.ask(SIGNAL, *(writer,) * 4).errno == 0
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)


def sealed(content: bytes, seals: int) -> int:
    """Return a memfd."""
    fd = os.memfd_create("table", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def test_unsealed_table(raw: Raw) -> None:
    """A table that could still change is refused; the one in force stays."""
    assert raw.set_routes(parse_route(":80=deny=EACCES")).errno == 0
    table = compile_routes([parse_route(":80=deny=EPERM")])
    content = os.pread(table.table_fd, os.fstat(table.table_fd).st_size, 0)
    table.close()
    fd = sealed(content, 0)
    assert raw.ask(ROUTES, fd).errno != 0
    os.close(fd)
    assert denied_with(raw) == errno.EACCES


@pytest.mark.parametrize("content", [b"", b"\0", bytes(4096), b"\xff" * 4096])
def test_table_that_is_none(content: bytes, raw: Raw) -> None:
    """A sealed file of something else is refused; the table in force stays."""
    assert raw.set_routes(parse_route(":80=deny=EACCES")).errno == 0
    fd = sealed(content, 0x1 | 0x2 | 0x4 | 0x8)  # every seal of fcntl(2)
    assert raw.ask(ROUTES, fd).errno != 0
    os.close(fd)
    assert denied_with(raw) == errno.EACCES


def denied_with(agent: Raw) -> int:
    """Have a program connect; the errno that the agent says it was given."""
    code = f"import socket; socket.socket().connect_ex(({VIRTUAL!r}, 80))"
    agent.spawn(sys.executable, "-c", code)
    while not any(isinstance(event, Exited) for event in agent.events):
        message, _ = receive_packet(agent.channel.fileno())
        assert not isinstance(message, Done)
        agent.events.append(message)
    (denied,) = (event for event in agent.events if isinstance(event, Denied))
    return denied.errno


# --- a full channel ------------------------------------------------------------------------------


def test_ends_are_told_although_the_channel_was_full(raw: Raw) -> None:
    """The end of every program, and that of the last, is reported when there is room again."""
    n_programs, n_connects = 8, 1000
    assert raw.set_routes(parse_route(":80=deny")).errno == 0
    with open_talk() as talk:
        stdio = (talk.stdin_fd, talk.stdout_fd, 2)
        pids = [
            raw.spawn(sys.executable, "-c", REFUSED, str(n_connects), stdio=stdio)
            for _ in range(n_programs)
        ]
        for _ in range(n_programs):
            talk.tell("go")
        wait_until(lambda: not any(alive(pid) for pid in pids), "the end of all")
    kinds: Counter[str] = Counter()
    ended: list[Exited] = []
    while not kinds["Emptied"]:
        event, _ = receive_packet(raw.channel.fileno())
        kinds[type(event).__name__] += 1
        if isinstance(event, Exited):
            ended.append(event)
    assert sorted(event.pid for event in ended) == sorted(pids)
    assert {event.code for event in ended} == {0}
    assert 0 < kinds["Denied"] < n_programs * n_connects


def test_readiness_is_told_although_the_channel_was_full(raw: Raw) -> None:
    """HandedOver and Listening of a listening socket wait for room, too."""
    assert raw.set_routes(parse_route(":80=deny")).errno == 0
    address = SocketAddress(ip_address("127.0.0.1"), free_port())
    done = raw.ask(engine.encode_listen(3, ListeningSocket("one", address)))
    assert (done.errno, done.value) == (0, 0)
    code = (
        "import socket\n"
        "for _ in range(2000): socket.socket().connect_ex(('127.66.0.1', 80))\n"
        f"one = socket.create_server(('127.0.0.1', {address.port}))\n"
        "print('ready', flush=True)\n"
        "one.accept()\n"
    )
    with open_talk() as talk:
        pid = raw.spawn(sys.executable, "-c", code, stdio=(talk.stdin_fd, talk.stdout_fd, 2))
        trio.run(talk.line)
        told: list[Event] = []
        while len(told) < 2:
            event, _ = receive_packet(raw.channel.fileno())
            if not isinstance(event, Denied):
                assert not isinstance(event, Done)
                told.append(event)
    assert {type(event).__name__ for event in told} == {"HandedOver", "Listening"}
    assert Listening(pid, 0, address) in told


async def test_kill_all() -> None:
    """SIGKILL to everything ends all generations; the agent goes on."""
    script = "for i in 1 2 3 4 5 6 7 8; do (setsid sleep 1000 & sleep 1000) & done; echo up; wait"
    with open_talk() as talk:
        async with open_agent(AgentOptions()) as agent:
            pid = await agent.spawn(program_of("sh", "-c", script), stdio=stdio_of(talk))
            assert await talk.line() == "up"
            await agent.signal(signal.SIGKILL, Scope.ALL)
            assert [await anext(aiter(agent.events)) for _ in range(2)] == [
                Exited(pid, signal.SIGKILL),
                Emptied(),
            ]
            assert children_of(agent.pid) == []
            await agent.set_routes([])
