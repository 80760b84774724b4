"""`meshfd run`, with real agents and programs."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trio

from meshfd.agent_process import AGENT_VARIABLE, agent_path
from meshfd.errors import ControlError, ListenError, MeshfdError, ServiceError
from meshfd.model import (
    Backoff,
    Configuration,
    Deny,
    Destination,
    Endpoint,
    ListeningSocket,
    OnExit,
    Ready,
    Redirect,
    Restart,
    Route,
    Service,
    SocketAddress,
    Track,
    UnixAddress,
    Upstream,
)
from meshfd.protocol import Request
from meshfd.routes import parse_route
from meshfd.supervisor import Supervisor
from tests.support.command import address_of
from tests.support.need import require_tool
from tests.support.ordinary_user import NOBODY
from tests.support.servers import Echo, Echoer, Greeter
from tests.support.waiting import DEADLINE_S, PAUSE_S

pytestmark = pytest.mark.live

FOREVER = ("sleep", "1000")
QUICK = Backoff(first_s=0.01, last_s=0.01)

# A daemon as daemons were before socket activation: it accepts, and answers its own pid.
DAEMON = """
import os, socket, sys
listening = socket.socket()
listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listening.bind(("127.0.0.1", int(sys.argv[1])))
listening.listen()
while True:
    with listening.accept()[0] as connection:
        connection.sendall(b"%d\\n" % os.getpid())
"""

# Connects each time that its file says another word, and appends the answer.
CLIENT = """
import socket, sys
def connect():
    try:
        with socket.create_connection(("127.66.0.1", 80), 10) as connection:
            return connection.makefile().readline().strip()
    except OSError as error:
        return error.strerror
while True:
    with open(sys.argv[1]) as asked:
        asked.readline()
    with open(sys.argv[2], "w") as answers:
        print(connect(), file=answers)
"""


# Says once what comes of a connection and of a datagram to the virtual address.
TALKER = """
import socket, sys, time
def connect():
    with socket.create_connection(("127.66.0.1", 80), 10) as one:
        return one.makefile().readline().strip()
def send():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(10)
        one.connect(("127.66.0.1", 80))
        one.send(b"there")
        return one.recv(100).decode()
def tell(call):
    try:
        return call()
    except OSError as error:
        return error.strerror
print(tell(connect), tell(send), sep=", ", flush=True)
time.sleep(1000)
"""


def free_port() -> int:
    """Return a port that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def address(port: int, ip: str = "127.0.0.1") -> SocketAddress:
    """Return an address of this machine."""
    return SocketAddress(ip_address(ip), port)


def daemon(name: str, port: int, **fields: Any) -> Service:
    """Return a service that listens on a port that is opened for it."""
    fields.setdefault("listen", (ListeningSocket("main", address(port)),))
    command = (sys.executable, "-c", DAEMON, str(port))
    return Service(name, command, ready=Ready.LISTEN, **fields)


def sleeper(name: str, **fields: Any) -> Service:
    """Return a service that does nothing for ever."""
    return Service(name, FOREVER, **fields)


def shell(name: str, script: str, *arguments: str, **fields: Any) -> Service:
    """Return a service that is a shell script."""
    return Service(name, ("sh", "-c", script, "sh", *arguments), **fields)


def route_to(port: int) -> Route:
    """Return the way from the virtual address to a port of this machine."""
    upstream = Upstream("u", (Endpoint(address(port)),))
    return Route(Destination(None, 80, 80), Redirect(upstream))


async def wait_until(look: Callable[[], object]) -> None:
    """Wait until a condition holds on which there is no event to wait for."""
    with trio.fail_after(DEADLINE_S):
        while not look():  # noqa: ASYNC110 -- see above
            await trio.sleep(PAUSE_S)


async def ask_daemon(port: int) -> int:
    """Connect, and return the pid that answered."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        return int(b"".join([piece async for piece in stream]))


class Running:
    """A supervisor that runs, and its configuration, which tests replace."""

    def __init__(self, configuration: Configuration, control: Path) -> None:
        self.configuration: Configuration | MeshfdError = configuration
        self.control = control
        self.block_on: Path | None = None
        self.reading = threading.Event()
        self.status: int | None = None
        self.ended = trio.Event()
        self.supervisor = Supervisor(self._load, control, dict(os.environ))

    def _load(self) -> Configuration:
        if self.block_on is not None:
            self.reading.set()
            with self.block_on.open() as file:
                file.readline()
        if isinstance(self.configuration, MeshfdError):
            raise self.configuration
        return self.configuration

    async def run(self) -> None:
        """Run to the end."""
        self.status = await self.supervisor.run()
        self.ended.set()

    async def ask(self, command: str, *names: str) -> dict[str, Any]:
        """Carry out a request; what a client would get."""
        result = await self.supervisor.handle(Request(command, names))
        answer: dict[str, Any] = json.loads(json.dumps(result))
        return answer

    async def service(self, name: str) -> dict[str, Any]:
        """Return the status of a service."""
        (one,) = (await self.ask("status", name))["services"]
        assert isinstance(one, dict)
        return one

    async def until(
        self, name: str, predicate: Callable[[dict[str, Any]], object]
    ) -> dict[str, Any]:
        """Wait until a service's status is as wanted."""
        with trio.fail_after(DEADLINE_S):
            while not predicate(one := await self.service(name)):  # noqa: ASYNC110 -- no event
                await trio.sleep(PAUSE_S)
        return one

    async def until_state(self, name: str, *states: str) -> dict[str, Any]:
        """Wait until a service is in one of these states."""
        return await self.until(name, lambda one: one["state"] in states)

    async def reload(self, *services: Service) -> dict[str, Any]:
        """Reload with these services as the configuration."""
        self.configuration = Configuration(services)
        return await self.ask("reload")

    async def end(self) -> int:
        """Wait for the supervisor's end; its status."""
        with trio.fail_after(DEADLINE_S):
            await self.ended.wait()
        assert self.status is not None
        return self.status


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    """Return a context that runs services, and stops them in the end."""

    @asynccontextmanager
    async def start(*services: Service) -> AsyncIterator[Running]:
        running = Running(Configuration(services), tmp_path / "control.sock")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.run)
            await wait_until(lambda: running.control.exists() or running.ended.is_set())
            yield running
            if not running.ended.is_set():
                os.kill(os.getpid(), signal.SIGTERM)
                await running.end()

    return start


Run = Callable[..., Any]


def parent_of(pid: int) -> int:
    """Return the parent's pid."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def environment_of(pid: int) -> list[str]:
    """Return a process's environment as NAME=VALUE."""
    return Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")


def is_alive(pid: int) -> bool:
    """Whether there is such a process, zombies aside."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


# --- order ---------------------------------------------------------------------------------------


async def test_a_service_starts_when_what_it_depends_on_is_ready(run: Run) -> None:
    """The dependent starts after the daemon has called listen(), and never before."""
    port = free_port()
    gate = f"while ! [ -e /proc/self/fd/0 ]; do :; done; exec '{sys.executable}' -c \"$1\" {port}"
    slow = replace(daemon("db", port), command=("sh", "-c", gate, "sh", DAEMON))
    async with run(sleeper("app", depends_on=("db",)), slow) as running:
        app = await running.until_state("app", "running")
        db = await running.service("db")
        assert db["ready"]
        assert db["since"] <= app["since"]


async def test_services_stop_after_those_that_depend_on_them(run: Run, tmp_path: Path) -> None:
    """At the end the dependent is gone before what it depends on is even asked to stop."""
    record = tmp_path / "record"
    record.touch()
    script = "trap 'echo $1 >>$2; exit' TERM; echo >$3; while :; do sleep 0.01; done"
    up = [tmp_path / name for name in "abc"]
    services = [
        shell(name, script, name, str(record), str(file), depends_on=needs)
        for name, file, needs in zip("abc", up, [(), ("a",), ("b",)], strict=True)
    ]
    async with run(*services):
        await wait_until(lambda: all(file.exists() for file in up))
    assert record.read_text().split() == ["c", "b", "a"]


async def test_a_dependency_that_failed_fails_its_dependents(run: Run) -> None:
    """What cannot start for want of another says so, and all failed is the end with status 1."""
    port = free_port()
    failing = replace(daemon("db", port), command=("sh", "-c", "exit 3"))
    async with run(failing, sleeper("app", depends_on=("db",)), sleeper("other")) as running:
        app = await running.until_state("app", "failed")
        assert app["reason"] == "cannot start without db"
        await running.ask("stop", "other")
        assert (await running.service("db"))["last_exit"] == {"code": 3, "signal": None}


# --- restarts ------------------------------------------------------------------------------------


async def test_restart_by_policy(run: Run) -> None:
    """A service that is killed is started again, as another process, with the same socket."""
    port = free_port()
    async with run(daemon("web", port, restart=Restart.ON_FAILURE, backoff=QUICK)) as running:
        before = await running.until_state("web", "running")
        assert await ask_daemon(port) == before["pid"]
        os.kill(before["pid"], signal.SIGKILL)
        after = await running.until("web", lambda one: one["restarts"] == 1 and one["ready"])
        assert after["pid"] != before["pid"]
        assert after["last_exit"] == {"code": None, "signal": "SIGKILL"}
        assert after["listening"] == [{"name": "main", "address": f"127.0.0.1:{port}", "handed": 2}]
        assert await ask_daemon(port) == after["pid"]


async def test_what_a_daemon_leaves_behind_is_ended_before_the_restart(
    run: Run, tmp_path: Path
) -> None:
    """Workers of a main process that died do not go on beside the new ones, stubborn or not."""
    pids = tmp_path / "pids"
    pids.mkdir()
    script = "(trap '' TERM; exec sh -c 'echo >$0/$$; exec sleep 1000' $1) & wait"
    service = shell(
        "web", script, str(pids), restart=Restart.ALWAYS, backoff=QUICK, stop_timeout_s=0.1
    )
    async with run(service) as running:
        before = await running.until_state("web", "running")
        await wait_until(lambda: list(pids.iterdir()))
        (worker,) = (int(file.name) for file in pids.iterdir())
        os.kill(before["pid"], signal.SIGKILL)
        await running.until("web", lambda one: one["restarts"] == 1)
        assert not is_alive(worker)


async def test_a_stopping_service_takes_everything_with_it(run: Run, tmp_path: Path) -> None:
    """After a stop nothing of the service is left, what ignores SIGTERM included."""
    file = tmp_path / "pid"
    script = "trap '' TERM; sleep 1000 & echo $! >$1.part; mv $1.part $1; wait; wait; wait"
    async with run(
        shell("web", script, str(file), stop_timeout_s=0.1), sleeper("other")
    ) as running:
        await wait_until(file.exists)
        pid = (await running.service("web"))["pid"]
        await running.ask("stop", "web")
        assert not is_alive(pid)
        assert not is_alive(int(file.read_text()))
        web = await running.service("web")
        assert (web["state"], web["pid"], web["last_exit"]["signal"]) == (
            "stopped",
            None,
            "SIGKILL",
        )


async def test_a_service_waits_longer_each_time_and_can_be_started_at_once(run: Run) -> None:
    """A start cuts the delay before a restart short."""
    service = shell("web", "exit 1", restart=Restart.ALWAYS, backoff=Backoff(1000, 1000))
    async with run(service, sleeper("other")) as running:
        await running.until_state("web", "waiting")
        await running.ask("start", "web")
        web = await running.until_state("web", "waiting")
        assert web["restarts"] == 1
        await running.ask("stop", "web")
        assert (await running.service("web"))["state"] == "stopped"


async def test_a_wait_goes_by_what_is_in_force(run: Run) -> None:
    """A backoff that gets shorter ends a wait for a restart, and so does a policy without one."""
    service = shell("web", "exit 1", restart=Restart.ALWAYS, backoff=Backoff(1000, 1000))
    async with run(service, sleeper("other")) as running:
        await running.until_state("web", "waiting")
        shorter = replace(service, backoff=QUICK)
        await running.reload(shorter, sleeper("other"))
        await running.until("web", lambda one: one["restarts"] >= 2)
        await running.reload(service, sleeper("other"))
        await running.until_state("web", "waiting")
        await running.reload(replace(service, restart=Restart.NO), sleeper("other"))
        assert (await running.until_state("web", "failed"))["reason"] == "ended with status 1"


# --- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 128 + 9)]
)
async def test_stop_all_ends_with_the_services_status(run: Run, script: str, status: int) -> None:
    """The end of a service with on_exit = "stop-all" ends everything, with its status."""
    async with run(
        shell("tour", script, on_exit=OnExit.STOP_ALL), sleeper("web", restart=Restart.ALWAYS)
    ) as running:
        assert await running.end() == status


@pytest.mark.parametrize(("scripts", "status"), [(("exit", "exit"), 0), (("exit", "exit 3"), 1)])
async def test_the_end_of_the_last_service_is_the_end(
    run: Run, scripts: tuple[str, ...], status: int
) -> None:
    """When every service has ended and none will restart, so does meshfd: 1 if one failed."""
    services = [shell(f"s{i}", script) for i, script in enumerate(scripts)]
    async with run(*services) as running:
        assert await running.end() == status


async def test_a_second_signal_kills_at_once(run: Run, tmp_path: Path) -> None:
    """A service that takes its time to stop is not waited for after a second SIGTERM."""
    deaf = tmp_path / "deaf"
    script = "trap : TERM; echo >$1; while :; do sleep 0.01; done"
    async with run(shell("web", script, str(deaf), stop_timeout_s=1000)) as running:
        await wait_until(deaf.exists)
        os.kill(os.getpid(), signal.SIGINT)
        await running.until_state("web", "stopping")
        os.kill(os.getpid(), signal.SIGINT)
        assert await running.end() == 0


async def test_nothing_is_started_when_a_socket_cannot_be_opened(run: Run, tmp_path: Path) -> None:
    """A port that is taken is one line, and no service was started."""
    mark = tmp_path / "mark"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        configuration = Configuration((shell("first", "echo >$1", str(mark)), daemon("web", port)))
        running = Running(configuration, tmp_path / "control.sock")
        with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{port}"):
            await running.run()
    assert not mark.exists()


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"command": ("no-such-command",)}, "web: no-such-command is not found"),
        ({"command": ("/no/such/command",)}, "web: there is no /no/such/command"),
        ({"command": ("/etc/passwd",)}, "web: /etc/passwd is not executable"),
        ({"working_dir": Path("/no/such")}, "web: working_dir /no/such is not a directory"),
        ({"user": "no-such-user"}, "web: there is no user 'no-such-user'"),
    ],
)
async def test_nothing_is_started_when_something_is_missing(
    tmp_path: Path, fields: dict[str, Any], match: str
) -> None:
    """What is missing is one line, before anything has started."""
    mark = tmp_path / "mark"
    configuration = Configuration(
        (shell("first", "echo >$1", str(mark)), replace(sleeper("web"), **fields))
    )
    running = Running(configuration, tmp_path / "control.sock")
    with pytest.raises(ServiceError, match=match):
        await running.run()
    assert not mark.exists()


# --- requests ------------------------------------------------------------------------------------


async def test_start_brings_what_is_depended_on(run: Run) -> None:
    """Without autostart nothing runs; start runs a service after what it depends on."""
    port = free_port()
    async with run(
        sleeper("other"),
        daemon("db", port, autostart=False),
        sleeper("app", depends_on=("db",), autostart=False),
    ) as running:
        assert (await running.service("app"))["state"] == "stopped"
        assert (await running.service("db"))["state"] == "stopped"
        await running.ask("start", "app")
        assert (await running.service("app"))["ready"]
        assert await ask_daemon(port) == (await running.service("db"))["pid"]


async def test_clients_wait_for_a_daemon_that_is_not_there(run: Run) -> None:
    """A client that connects before the daemon runs is served when it does."""
    port = free_port()
    async with run(sleeper("other"), daemon("web", port, autostart=False)) as running:
        async with await trio.open_tcp_stream("127.0.0.1", port) as early:
            await running.ask("start", "web")
            answer = b"".join([piece async for piece in early])
        assert int(answer) == (await running.service("web"))["pid"]


async def test_restart_leaves_dependents_alone(run: Run) -> None:
    """Restarting a service restarts it alone, and answers when it is ready again."""
    port = free_port()
    async with run(daemon("db", port), sleeper("app", depends_on=("db",))) as running:
        app = await running.until_state("app", "running")
        db = await running.service("db")
        await running.ask("restart", "db")
        after = await running.service("db")
        assert after["ready"]
        assert after["pid"] != db["pid"]
        assert after["restarts"] == 0
        assert (await running.service("app"))["pid"] == app["pid"]


async def test_a_start_that_fails_says_why(run: Run) -> None:
    """A service that ends instead of getting ready is an error with its end in words."""
    failing = replace(daemon("web", free_port(), autostart=False), command=("sh", "-c", "exit 3"))
    async with run(sleeper("other"), failing) as running:
        with pytest.raises(ControlError, match="service web ended with status 3"):
            await running.ask("start", "web")


async def test_unknown_names_are_refused_as_a_whole(run: Run) -> None:
    """A request with a name that there is not does nothing to the others."""
    async with run(sleeper("web")) as running:
        before = await running.until_state("web", "running")
        for command in ("stop", "restart", "start", "status", "reload"):
            with pytest.raises(ControlError, match="no service is called nowhere"):
                await running.ask(command, "web", "nowhere")
        assert (await running.service("web"))["pid"] == before["pid"]


async def test_no_names_are_all_services(run: Run) -> None:
    """Stop and start without names mean every service; meshfd goes on without any."""
    async with run(sleeper("a"), sleeper("b", depends_on=("a",))) as running:
        await running.until_state("b", "running")
        await running.ask("stop")
        assert [(await running.service(name))["state"] for name in "ab"] == ["stopped"] * 2
        await running.ask("start")
        assert [(await running.service(name))["state"] for name in "ab"] == ["running"] * 2
        await running.ask("restart")
        assert [(await running.service(name))["state"] for name in "ab"] == ["running"] * 2


async def test_status_says_where_connections_went(run: Run) -> None:
    """The status has counters, costs, and which destinations led to which endpoint."""
    port = free_port()
    connect = f"import socket; socket.create_connection(('127.66.0.1', 80)); {'input()'!r}"
    client = Service(
        "client", (sys.executable, "-c", connect), depends_on=("web",), routes=(route_to(port),)
    )
    async with run(daemon("web", port), client) as running:
        await running.until("client", lambda one: one["connections"]["redirects"])
        connections = (await running.service("client"))["connections"]
        assert connections["redirected"] == 1
        assert connections["redirects"] == [
            {"asked": ":80", "given": f"127.0.0.1:{port}", "count": 1}
        ]
        assert connections["connect_p50_ns"] > 0


# --- reload --------------------------------------------------------------------------------------


async def test_routes_reach_a_running_service(run: Run, tmp_path: Path) -> None:
    """New routes decide the next connection of a program that is not even told."""
    asked, answers = tmp_path / "asked", tmp_path / "answers"
    os.mkfifo(asked)
    os.mkfifo(answers)
    one, other = free_port(), free_port()
    client = Service("client", (sys.executable, "-c", CLIENT, str(asked), str(answers)))
    daemons = [daemon("one", one), daemon("other", other)]

    async def connect() -> str:
        await trio.to_thread.run_sync(asked.write_text, "go\n", abandon_on_cancel=True)
        text = await trio.to_thread.run_sync(answers.read_text, abandon_on_cancel=True)
        return text.strip()

    async with run(*daemons, replace(client, routes=(route_to(one),))) as running:
        pids = [(await running.until_state(name, "running"))["pid"] for name in ("one", "other")]
        client_pid = (await running.until_state("client", "running"))["pid"]
        with trio.fail_after(DEADLINE_S):
            assert await connect() == str(pids[0])
            summary = await running.reload(*daemons, replace(client, routes=(route_to(other),)))
            assert (summary["updated"], summary["restarted"]) == (["client"], [])
            assert await connect() == str(pids[1])
            denied = Route(Destination(None, 80, 80), Deny(113))
            await running.reload(*daemons, replace(client, routes=(denied,)))
            assert await connect() == os.strerror(113)
        assert (await running.service("client"))["pid"] == client_pid


async def test_an_unchanged_service_is_not_touched(run: Run) -> None:
    """A reload restarts what has changed, starts what is new, stops what went; nothing else."""
    async with run(sleeper("same"), sleeper("changed"), sleeper("gone")) as running:
        names = ("same", "changed", "gone")
        before = {name: await running.until_state(name, "running") for name in names}
        summary = await running.reload(
            sleeper("same"),
            sleeper("changed", environment=(("A", "1"),)),
            sleeper("new", depends_on=("same",)),
        )
        assert summary == {
            "added": ["new"],
            "removed": ["gone"],
            "restarted": ["changed"],
            "started": [],
            "updated": [],
            "unchanged": ["same"],
        }
        await running.until_state("new", "running")
        changed = await running.until(
            "changed", lambda one: one["ready"] and one["pid"] != before["changed"]["pid"]
        )
        # It is there a moment after execve(2) has begun, which is when a program counts as started.
        await wait_until(lambda: "A=1" in environment_of(changed["pid"]))
        assert (await running.service("same"))["pid"] == before["same"]["pid"]
        assert not is_alive(before["gone"]["pid"])
        with pytest.raises(ControlError):
            await running.service("gone")


async def test_a_filter_that_changes_needs_another_agent(run: Run) -> None:
    """Changes of strict and track take a new agent, which gets the same listening sockets."""
    port = free_port()
    async with run(daemon("web", port), sleeper("other")) as running:
        before = await running.until_state("web", "running")
        await running.reload(
            daemon("web", port, track=Track.CONNECT, strict=True), sleeper("other")
        )
        after = await running.until("web", lambda one: one["ready"] and one["pid"] != before["pid"])
        assert await ask_daemon(port) == after["pid"]


async def test_routes_that_need_another_filter_come_and_go(run: Run, tmp_path: Path) -> None:
    """The first route to a unix socket, or for UDP, works at once, and so does the end of the last.

    The service is started again for each of them, under a filter that has what it needs.
    """
    file, where = tmp_path / "log", str(tmp_path / "greeter.sock")
    client = Service("client", (sys.executable, "-c", TALKER), log=str(file))
    with Greeter(where=where), Echoer() as echoer:
        unix = parse_route(f"127.66.0.1:80=unix:{where}")
        udp = parse_route(f"udp:127.66.0.1:80={address_of(echoer.socket)}")
        refused = "Connection refused"
        steps: tuple[tuple[tuple[Route, ...], str], ...] = (
            ((), f"{refused}, {refused}"),
            ((unix,), f"hello, {refused}"),
            ((unix, udp), "hello, echo:there"),
            ((udp,), f"{refused}, echo:there"),
            ((), f"{refused}, {refused}"),
        )
        said: list[str] = []
        async with run(client, sleeper("other")) as running:
            for routes, expected in steps:
                if said:
                    await running.reload(replace(client, routes=routes), sleeper("other"))
                said.append(expected)
                await wait_until(
                    lambda: file.exists() and file.read_text().count("\n") == len(said)
                )
                assert file.read_text().splitlines() == said


async def test_listening_sockets_come_and_go_without_a_restart(run: Run) -> None:
    """Sockets of a service that runs are opened and closed beside it."""
    port, more = free_port(), free_port()
    service = daemon("web", port)
    extra = ListeningSocket("more", address(more))
    async with run(service) as running:
        before = await running.until_state("web", "running")
        await running.reload(replace(service, listen=(*service.listen, extra)))
        async with await trio.open_tcp_stream("127.0.0.1", more):
            pass
        assert len((await running.service("web"))["listening"]) == 2
        await running.reload(service)
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", more)
        assert (await running.service("web"))["pid"] == before["pid"]


async def test_a_socket_moves_to_another_service(run: Run) -> None:
    """A port that one service gives up and another takes is opened once it is free."""
    port = free_port()
    async with run(daemon("old", port), sleeper("other")) as running:
        await running.until_state("old", "running")
        await running.reload(daemon("new", port), sleeper("other"))
        new = await running.until_state("new", "running")
        assert await ask_daemon(port) == new["pid"]


async def test_a_bad_configuration_changes_nothing(run: Run) -> None:
    """Files that cannot be read, and things that are missing, are refused; all runs on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with run(sleeper("web")) as running:
            before = await running.until_state("web", "running")
            running.configuration = MeshfdError("a.toml:1: no such key")
            with pytest.raises(MeshfdError, match="no such key"):
                await running.ask("reload")
            changed = sleeper("web", environment=(("A", "1"),))
            for bad, match in (
                (Service("bad", ("no-such-command",)), "bad: no-such-command is not found"),
                (daemon("bad", port), "cannot listen on"),
            ):
                with pytest.raises(MeshfdError, match=match):
                    await running.reload(changed, daemon("good", free_port()), bad)
                services = (await running.ask("status"))["services"]
                assert [(one["name"], one["pid"]) for one in services] == [("web", before["pid"])]


async def test_a_new_agent_that_cannot_listen_changes_nothing(run: Run) -> None:
    """A change that needs a new agent is refused while the old one still runs."""
    port = free_port()
    elsewhere = ListeningSocket("main", address(port, "203.0.113.1"))  # not of this machine
    async with run(daemon("web", port)) as running:
        before = await running.until_state("web", "running")
        with pytest.raises(ListenError, match=f"cannot listen on 203.0.113.1:{port}"):
            await running.reload(replace(daemon("web", port), strict=True, listen=(elsewhere,)))
        after = await running.service("web")
        assert (after["pid"], after["listening"]) == (before["pid"], before["listening"])
        assert await ask_daemon(port) == before["pid"]


async def test_what_had_to_go_for_a_port_is_put_back(run: Run) -> None:
    """Where a port is given up in vain, its service runs again as it was, and that is an error."""
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        other = ListeningSocket("main", address(port, "127.0.0.2"))
        old, kept = daemon("web", port), daemon("kept", free_port())
        async with run(old, kept) as running:
            before = await running.until_state("web", "running")
            kept_before = await running.until_state("kept", "running")
            for new in (
                [replace(old, strict=True, listen=(other,)), replace(kept, listen=())],
                [daemon("new", port, listen=(other,)), kept],
                [replace(kept, listen=(*kept.listen, other))],
            ):
                text = f"cannot listen on 127.0.0.2:{port}: .*; started again as before: web$"
                with pytest.raises(MeshfdError, match=text):
                    await running.reload(*new)
                after = await running.until_state("web", "running")
                assert after["pid"] != before["pid"]
                assert await ask_daemon(port) == after["pid"]
                kept_after = await running.service("kept")
                assert kept_after["listening"] == kept_before["listening"]
                assert kept_after["pid"] == kept_before["pid"]
                assert len((await running.ask("status"))["services"]) == len((old, kept))


async def test_a_port_that_a_running_service_keeps_is_no_port_to_take(run: Run) -> None:
    """A socket that its program has and would keep is not given to another; nothing changes."""
    port = free_port()
    old, kept = daemon("old", port), daemon("kept", free_port())
    moved = daemon("new", port)
    async with run(old, kept) as running:
        before = await running.until_state("old", "running")
        with pytest.raises(ServiceError, match=f"127.0.0.1:{port} cannot be given up: service old"):
            await running.reload(replace(old, listen=()), kept, moved)
        assert (await running.service("old"))["listening"] == before["listening"]
        assert len((await running.ask("status"))["services"]) == len((old, kept))
        await running.ask("stop", "old")
        await running.reload(replace(old, listen=()), kept, moved)
        new = await running.until_state("new", "running")
        assert await ask_daemon(port) == new["pid"]


async def test_a_reload_says_what_became_of_what_did_not_run(run: Run) -> None:
    """What failed is started again by a change of what is started; what was stopped is not."""
    failing, stopped = shell("failing", "exit 3"), sleeper("stopped")
    by_hand = shell("by-hand", "exit 3", autostart=False)
    async with run(sleeper("other"), failing, stopped, by_hand) as running:
        await running.until_state("failing", "failed")
        await running.ask("start", "by-hand")
        await running.until_state("by-hand", "failed")
        await running.until_state("stopped", "running")
        await running.ask("stop", "stopped")
        summary = await running.reload(
            sleeper("other"),
            sleeper("failing"),
            replace(stopped, strict=True),
            replace(by_hand, command=FOREVER),
        )
        assert summary["started"] == ["failing"]
        assert summary["restarted"] == []
        assert summary["updated"] == ["stopped", "by-hand"]
        await running.until_state("failing", "running")
        assert (await running.service("stopped"))["state"] == "stopped"
        assert (await running.service("by-hand"))["state"] == "failed"


async def test_sighup_reloads(run: Run) -> None:
    """SIGHUP does what `meshfd reload` does."""
    async with run(sleeper("web")) as running:
        before = await running.until_state("web", "running")
        running.configuration = Configuration((sleeper("web"), sleeper("new")))
        os.kill(os.getpid(), signal.SIGHUP)
        with trio.fail_after(DEADLINE_S):
            while len((await running.ask("status"))["services"]) == 1:  # noqa: ASYNC110 -- no event
                await trio.sleep(PAUSE_S)
        await running.until_state("new", "running")
        assert (await running.service("web"))["pid"] == before["pid"]


async def test_the_end_waits_for_no_file(run: Run, tmp_path: Path) -> None:
    """A reload whose files cannot be read to their end does not keep meshfd from ending."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    both = os.open(fifo, os.O_RDWR)  # so that nobody who opens it waits
    try:
        async with run(sleeper("web")) as running:
            await running.until_state("web", "running")
            running.block_on = fifo
            async with trio.open_nursery() as nursery:

                async def reload() -> None:
                    with pytest.raises(ControlError, match="meshfd is stopping"):
                        await running.ask("reload")

                nursery.start_soon(reload)
                nursery.start_soon(reload)
                await wait_until(running.reading.is_set)
                os.kill(os.getpid(), signal.SIGTERM)
                assert await running.end() == 0
    finally:
        os.write(both, b"\n")  # lets the thread go
        os.close(both)


# Becomes the agent, but the first to come tells that it is there and waits for a word.
LATE_AGENT = """#!{python}
import os, sys
try:
    os.rename("{there}", "{there}.taken")
except FileNotFoundError:
    pass
else:
    open("{there}.taken", "w").close()
    open("{go}").close()
os.execv("{agent}", ["meshfd-agent", *sys.argv[1:]])
"""


async def test_a_reload_waits_for_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SIGHUP while agents are still being started is carried out after that."""
    late, there, go = (tmp_path / name for name in ("late", "there", "go"))
    os.mkfifo(there)
    os.mkfifo(go)
    late.write_text(
        LATE_AGENT.format(python=sys.executable, there=there, go=go, agent=agent_path())
    )
    late.chmod(0o755)
    monkeypatch.setenv(AGENT_VARIABLE, str(late))
    running = Running(Configuration((sleeper("a"), sleeper("b"))), tmp_path / "control.sock")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.run)
        await trio.to_thread.run_sync(there.read_bytes)
        changed = sleeper("b", environment=(("A", "1"),))
        running.configuration = Configuration((sleeper("a"), changed, sleeper("c")))
        os.kill(os.getpid(), signal.SIGHUP)
        for _ in range(100):  # enough for it to be taken, if it is not made to wait
            await trio.lowlevel.checkpoint()
        await trio.to_thread.run_sync(go.write_bytes, b"")
        await wait_until(running.control.exists)
        await running.until("b", lambda one: one["ready"] and one["pid"] is not None)
        with trio.fail_after(DEADLINE_S):
            while len((await running.ask("status"))["services"]) < 3:  # noqa: ASYNC110 -- no event
                await trio.sleep(PAUSE_S)
        await running.until_state("c", "running")
        await running.until("b", lambda one: one["ready"] and "A=1" in environment_of(one["pid"]))
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running.end() == 0


async def test_a_reload_of_one_service_leaves_the_others(run: Run) -> None:
    """With a name, only that service becomes what the files say."""
    async with run(sleeper("a"), sleeper("b")) as running:
        before = {name: await running.until_state(name, "running") for name in "ab"}
        changed = (("A", "1"),)
        running.configuration = Configuration(
            (sleeper("a", environment=changed), sleeper("b", environment=changed))
        )
        await running.ask("reload", "a")
        await running.until("a", lambda one: one["ready"] and one["pid"] != before["a"]["pid"])
        assert (await running.service("b"))["pid"] == before["b"]["pid"]


# --- what goes wrong -----------------------------------------------------------------------------


async def test_a_lost_agent_is_replaced(run: Run) -> None:
    """When an agent is killed, its program is ended and both start again, as after a failure."""
    port = free_port()
    async with run(daemon("web", port, restart=Restart.ALWAYS, backoff=QUICK)) as running:
        before = await running.until_state("web", "running")
        os.kill(parent_of(before["pid"]), signal.SIGKILL)
        after = await running.until("web", lambda one: one["ready"] and one["pid"] != before["pid"])
        assert not is_alive(before["pid"])
        assert await ask_daemon(port) == after["pid"]


async def test_output_goes_to_the_log_file(run: Run, tmp_path: Path) -> None:
    """A log file is private, gets both outputs, and is appended to by each start."""
    file = tmp_path / "log"
    script = "echo out; echo error >&2; exit 1"
    service = shell("web", script, log=str(file), restart=Restart.ON_FAILURE, backoff=QUICK)
    async with run(service) as running:
        await running.until("web", lambda one: one["restarts"] >= 2)
        await running.ask("stop", "web")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().startswith("out\nerror\nout\nerror\n")


async def test_a_service_runs_as_its_user(run: Run, tmp_path: Path) -> None:
    """A user sets the ids, the groups and the environment of a login."""
    if os.geteuid() != 0:
        pytest.skip("only root can change the user")
    file = tmp_path / "log"
    service = shell("web", "id -u; id -g; echo $USER; exec sleep 1000", log=str(file))
    async with run(replace(service, user="nobody", environment=(("A", "1"),))) as running:
        await running.until_state("web", "running")
        await wait_until(lambda: len(file.read_text().split()) >= 3)
    assert file.read_text().split() == ["65534", "65534", "nobody"]


async def test_a_unix_socket_is_connected_to_as_the_services_user(run: Run, tmp_path: Path) -> None:
    """Its server sees the user of the service, not of meshfd, and the status names the socket."""
    if os.geteuid() != 0:
        pytest.skip("only root can change the user")
    name = f"@meshfd-user-{os.getpid()}"
    upstream = Upstream("hidden", (Endpoint(UnixAddress(name)),))
    client = (
        "use Socket; socket(S, PF_INET, SOCK_STREAM, 0);"
        "connect(S, sockaddr_in(80, inet_aton('127.66.0.1'))) or die; sysread(S, $x, 1)"
    )
    service = Service(
        "client",
        (require_tool("perl"), "-e", client),
        user="nobody",
        routes=(Route(Destination(None, 80, 80), Redirect(upstream)),),
    )
    with Echo(name) as echo:
        async with run(service, sleeper("other")) as running:
            report = await running.until_state("client", "stopped", "failed")
    assert [peer[1:] for peer in echo.peers] == [(NOBODY, NOBODY)]
    (row,) = report["connections"]["redirects"]
    assert (row["asked"], row["given"], row["count"]) == (":80", f"unix:{name}", 1)


async def test_a_service_that_loses_its_user(run: Run, tmp_path: Path) -> None:
    """A reload that takes `user` away leaves nothing of it, in sockets or on the way there."""
    if os.geteuid() != 0:
        pytest.skip("only root can change the user")
    file = tmp_path / "log"
    owner = "use Socket; socket(my $s, PF_INET, SOCK_STREAM, 0); $|=1; print +(stat $s)[4], qq(\n)"
    service = Service(
        "web", (require_tool("perl"), "-e", f"{owner}; sleep"), log=str(file), track=Track.CREATE
    )
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    async with run(replace(service, user="nobody")) as running:
        await wait_until(lambda: file.exists() and len(file.read_text().split()) == 1)
        await running.reload(replace(service, working_dir=private))
        await wait_until(lambda: len(file.read_text().split()) == 2)
    assert file.read_text().split() == ["65534", "0"]
