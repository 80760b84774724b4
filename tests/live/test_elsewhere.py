"""Upstreams that are reached, and sockets that listen, in another network namespace.

What a program can see of it is compared by random sequences (tests/differential, modes elsewhere).
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import pytest
import trio

import meshfd
from meshfd.agent import AgentOptions, open_agent
from meshfd.model import ListeningSocket, SocketAddress
from meshfd.netns import NEW
from tests.differential.runs import ELSEWHERE
from tests.support.command import COMMAND, VIRTUAL, address_of, way_to
from tests.support.configured import refused, report_of, start_run, toml_command
from tests.support.need import require, require_root
from tests.support.netns import ask_within
from tests.support.ordinary_user import NOBODY
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Echo, Greeter
from tests.support.transition import EGRESS4, SERVER4, SERVICE6, Transition, open_transition
from tests.support.waited import each_way, see_it_refused
from tests.support.waiting import wait_until

# Connects in every way, and says by which addresses, and what it heard.
CLIENT: Final = """
import json, os, pathlib, select, socket, sys
host, report = sys.argv[1:]
said = []
for family, address in (socket.AF_INET, host), (socket.AF_INET6, "::ffff:" + host):
    for blocking in True, False:
        one = socket.socket(family)
        one.setblocking(blocking)
        result = one.connect_ex((address, 80))
        assert result == (0 if blocking else 115)  # EINPROGRESS
        select.select([one], [], [], 20)
        said.append([one.getsockname()[0], one.getpeername()[0], one.recv(100).decode()])
pathlib.Path(report + ".new").write_text(json.dumps({"said": said}))
os.rename(report + ".new", report)
"""

# Binds where it could not by itself, and tells one client in which namespaces its sockets are.
SERVER: Final = """
import json, socket, sys
def netns(one):  # SO_NETNS_COOKIE
    return int.from_bytes(one.getsockopt(socket.SOL_SOCKET, 71, 8), "little")
listening = socket.create_server((sys.argv[1], 8000))
accepted, _ = listening.accept()
accepted.sendall(json.dumps([netns(socket.socket()), netns(listening), netns(accepted)]).encode())
"""

# Says again and again what comes of connecting.
AGAIN: Final = """
import socket, sys, time
while True:
    try:
        print(socket.create_connection((sys.argv[1], 80)).recv(100).decode().strip(), flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
    time.sleep(0.02)
"""


# As an ordinary user: has rights in a network of its own, and connects a socket from there.
OWN_NETWORK: Final = """
import ctypes, encodings.idna, json, os, socket, sys
host, uid = sys.argv[1], int(sys.argv[2])
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
if os.fork() == 0:
    if ctypes.CDLL(None).unshare(0x50000000) == 0:  # CLONE_NEWUSER | CLONE_NEWNET
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, 36, 77)  # SO_MARK
        one.bind(("0.0.0.0", 80))
        socket.send_fds(theirs, [b"made"], [one.fileno()])
    os._exit(0)
theirs.close()
fds = socket.recv_fds(ours, 10, 1)[1]
one = socket.socket(fileno=fds[0]) if fds else None
print(json.dumps(one and [one.connect_ex((host, 80)), one.getsockname()[0]]), flush=True)
"""

# Makes use of its rights, and connects; then makes use of them, drops them, and connects.
DROPPED: Final = """
import encodings.idna, json, os, socket, sys
host, uid = sys.argv[1], int(sys.argv[2])
def make(port):
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    one.setsockopt(socket.SOL_SOCKET, 36, 77)  # SO_MARK
    if port:
        one.bind(("0.0.0.0", port))
    return one
def connected(one):
    result = one.connect_ex((host, 80))
    options = [one.getsockopt(socket.SOL_SOCKET, name) for name in (socket.SO_KEEPALIVE, 36)]
    return [result, options, one.getsockname()[1] in {1001, 1002}]
said = [connected(make(0)), connected(make(1001))]
later = [make(0), make(1002)]
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
print(json.dumps(said + [connected(one) for one in later]), flush=True)
"""

# Says of options that no listening socket has whether they are set, before and after connecting.
OPTIONS: Final = """
import json, socket, sys
wanted = [  # level, option, value
    (socket.SOL_SOCKET, socket.SO_BROADCAST, 1), (socket.SOL_SOCKET, 35, 1),  # SO_TIMESTAMPNS
    (socket.SOL_SOCKET, 47, 1000000),  # SO_MAX_PACING_RATE
    (socket.IPPROTO_IP, socket.IP_RETOPTS, 1),
    (socket.IPPROTO_IPV6, socket.IPV6_DONTFRAG, 1), (socket.IPPROTO_TCP, 16, 1),  # ..THIN_LINEAR..
]
one = socket.socket(socket.AF_INET6)
for option in wanted:
    one.setsockopt(*option)
def read():
    return [one.getsockopt(level, name) for level, name, _ in wanted]
before = read()
one.connect(("::ffff:" + sys.argv[1], 80))
print(json.dumps([before, read()]), flush=True)
"""

# Registered once, a socket goes from failure to failure, now here, now there, and arrives.
TO_AND_FRO: Final = """
import errno, json, select, socket, sys
host, said = sys.argv[1], []
one = socket.socket()
one.setblocking(False)
epoll = select.epoll()
epoll.register(one, select.EPOLLIN)
def connect(address, port):
    result = errno.ECONNABORTED  # what is left of an attempt that has failed
    while result == errno.ECONNABORTED:
        result = one.connect_ex((address, port))
    events = epoll.poll(20)
    said.append([result, [fd == one.fileno() for fd, _ in events],
                 one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)])
for address, port in (host, 81), ("127.0.0.1", 1), (host, 80):
    connect(address, port)
print(json.dumps([*said, one.recv(100).decode()]), flush=True)
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Transition]:
    """Make the namespaces. Needs root."""
    require_root()
    with open_transition() as made:
        yield made


def service(command: list[str], more: str) -> str:
    """Return a service in a namespace of its own."""
    return f'[service.web]\n{toml_command(command)}netns = "new"\n{more}\n'


def upstream(name: str, netns: str, *endpoints: str) -> str:
    """Return an upstream that is reached from another one."""
    return f'[upstream.{name}]\nnetns = "{netns}"\nendpoints = {json.dumps(endpoints)}\n'


@pytest.mark.parametrize("keys", ["", "transparent = true", "strict = true"], ids=str)
def test_upstream(keys: str, processes: Processes, tmp_path: Path, place: Transition) -> None:
    """A route leads through the upstream's namespace; what cannot be reached is passed over."""
    report = tmp_path / "report"
    with Greeter("hello", host=SERVER4) as greeter:
        endpoints = "203.0.113.1:80", address_of(greeter.listening)
        route = f'routes = {{ "{VIRTUAL}:80" = "upstream:far" }}\n'
        more = f"{keys}\n{route}{upstream('far', place.egress, *endpoints)}"
        command = [sys.executable, "-c", CLIENT, VIRTUAL, str(report)]
        running = start_run(processes, tmp_path, service(command, more))
        said = report_of(running, report)["said"]
        assert running.finish().code == 0
    peer = VIRTUAL if "transparent" in keys else SERVER4
    expected = [EGRESS4, peer, "hello\n"], [f"::ffff:{EGRESS4}", f"::ffff:{peer}", "hello\n"]
    assert said == [one for one in expected for _ in range(2)]


@pytest.mark.parametrize("bound", [EGRESS4, "0.0.0.0"])
def test_listening(bound: str, processes: Processes, tmp_path: Path, place: Transition) -> None:
    """A daemon is handed a socket of another namespace, and what it accepts is there, too."""
    more = f'[[service.web.listen]]\naddress = "{bound}:8000"\nnetns = "{place.egress}"\n'
    command = [sys.executable, "-c", SERVER, bound]
    running = start_run(processes, tmp_path, service(command, more))
    wait_until(lambda: "started" in running.errors(), "the daemon")
    with socket.create_connection((EGRESS4, 8000), 20) as client:
        home, *others = json.loads(client.makefile().read())
    there = ask_within(place.egress, _netns_cookie)
    assert others == [there, there]
    assert home != there
    assert running.finish().code == 0


def _said(processes: Processes, directory: Path, place: Transition, program: str) -> Any:
    """Return what a program says that can reach a server on port 80, and nobody on port 81."""
    with Greeter("hello", host=SERVER4) as greeter:
        routes = f'routes = {{ "{VIRTUAL}:80" = "upstream:far", "{VIRTUAL}:81" = "upstream:no" }}\n'
        far = upstream("far", place.egress, address_of(greeter.listening))
        more = f"{routes}{far}{upstream('no', place.egress, f'{SERVER4}:1')}"
        command = [sys.executable, "-c", program, VIRTUAL, str(NOBODY)]
        running = start_run(processes, directory, service(command, more))
        said = json.loads(running.line())
        assert running.finish().code == 0
    return said


def test_replaced_again(processes: Processes, tmp_path: Path, place: Transition) -> None:
    """Registrations in an epoll instance go along each time."""
    failed = [errno.EINPROGRESS, [True], errno.ECONNREFUSED]
    arrived = [errno.EINPROGRESS, [True], 0]
    assert _said(processes, tmp_path, place, TO_AND_FRO) == [failed, failed, arrived, "hello\n"]


def test_a_network_of_the_program_s_own(
    processes: Processes, tmp_path: Path, place: Transition
) -> None:
    """A socket from there stays there: it brings neither its port nor its mark along."""
    said = _said(processes, tmp_path, place, OWN_NETWORK)
    require(said is not None, "an ordinary user cannot make a user namespace")
    assert said == [errno.ENETUNREACH, "0.0.0.0"]


def test_options(processes: Processes, tmp_path: Path, place: Transition) -> None:
    """Options that matter to a client alone go along, too."""
    before, after = _said(processes, tmp_path, place, OPTIONS)
    assert all(before)
    assert before == after


def test_rights(processes: Processes, tmp_path: Path, place: Transition) -> None:
    """What takes a privilege is done there for who has it then, not for who had it once."""
    assert _said(processes, tmp_path, place, DROPPED) == [
        [0, [1, 77], False],
        [0, [1, 77], True],
        [0, [1, 0], False],
        [errno.EACCES, [1, 77], True],  # as it was
    ]


def _netns_cookie() -> int:
    with socket.socket() as one:
        return int.from_bytes(one.getsockopt(socket.SOL_SOCKET, 71, 8), "little")


def test_address_in_use(processes: Processes, tmp_path: Path, place: Transition) -> None:
    """An address that is taken there is one line, which says where; nothing is started."""
    with ask_within(place.egress, lambda: socket.create_server((EGRESS4, 0))) as taken:
        address = address_of(taken)
        more = f'[[service.web.listen]]\naddress = "{address}"\nnetns = "{place.egress}"\n'
        line = refused(start_run(processes, tmp_path, service(["true"], more)))
    where = f"in network namespace /run/netns/{place.egress}"
    assert f"cannot listen on {address} {where}: Address already in use" in line


def test_reload(processes: Processes, tmp_path: Path, place: Transition) -> None:
    """The first route through another namespace needs a new agent; one more namespace does not."""
    with Greeter("one", host=SERVER4) as one, Greeter("two", host=SERVER4) as two:

        def text(routed: str, *upstreams: str) -> str:
            command = [sys.executable, "-c", AGAIN, VIRTUAL]
            return service(
                command, f'routes = {{ "{VIRTUAL}:80" = "{routed}" }}\n' + "".join(upstreams)
            )

        running = start_run(processes, tmp_path, text("pass"))
        wait_until(lambda: running.line() == "Connection refused", "a failure")
        first = upstream("first", place.egress, address_of(one.listening))
        second = upstream("second", "host", address_of(two.listening))
        for n_agents, (answer, new) in enumerate(
            (
                ("one", text("upstream:first", first)),
                ("two", text("upstream:second", first, second)),
            )
        ):
            (tmp_path / "meshfd.toml").write_text(new)
            running.signal(signal.SIGHUP)
            wait_until(lambda: running.line() == answer, "an answer")  # noqa: B023 -- at once
            assert running.errors().count("started pid") == 2, n_agents
        running.signal(signal.SIGTERM)
        running.wait()


def test_refused_reload(processes: Processes, tmp_path: Path, place: Transition) -> None:
    """Where a new route's namespace cannot be had, all is as it was, and that is said."""
    with Greeter("one", host=SERVER4) as one:

        def text(netns: str) -> str:
            command = [sys.executable, "-c", AGAIN, VIRTUAL]
            more = f'routes = {{ "{VIRTUAL}:80" = "upstream:far" }}\n'
            return service(command, more + upstream("far", netns, address_of(one.listening)))

        running = start_run(processes, tmp_path, text(place.egress))
        assert running.line() == "one"
        (tmp_path / "meshfd.toml").write_text(text("meshfd-nowhere"))
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
        done = processes.run([*COMMAND, "reload"], env=environment)
        assert (done.code, done.err) == (
            1,
            (
                "meshfd: service web: network namespace /run/netns/meshfd-nowhere: No such file or "
                "directory; make it (ip netns add meshfd-nowhere)\n"
            ),
        )
        (tmp_path / "meshfd.toml").write_text(text(place.egress))
        assert processes.run([*COMMAND, "reload"], env=environment).out == "unchanged: web\n"
        running.signal(signal.SIGTERM)
        running.wait()


@pytest.mark.parametrize("variant", ["", "i386"])
@each_way
def test_waited_for(
    mode: str, expected: list[str], variant: str, program: Programs, processes: Processes
) -> None:
    """A thread that sleeps on the socket would never wake: connect() is refused, and says why."""
    require_root()
    with Echo() as echo:
        way = way_to(address_of(echo.listening))
        words = [str(program("standin", variant)), mode, *way.words]
        running = processes.start([*ELSEWHERE, "-", *way.options[1:], "--", *words])
        see_it_refused(running, expected)


ONCE: Final = (
    "import socket, sys; one = socket.create_connection((sys.argv[1], 80));"
    "print(one.getsockname()[0], one.recv(100).decode().strip())"
)


@pytest.mark.parametrize("how", ["upstream", "transition"])
async def test_verdicts(how: str, place: Transition, tmp_path: Path) -> None:
    """The library's verdicts lead elsewhere, too: to an upstream's namespace, and to IPv4's."""
    with Greeter("hello", host=SERVER4) as greeter, (tmp_path / "out").open("wb") as out:
        there = meshfd.parse_target(address_of(greeter.listening))
        assert isinstance(there, meshfd.Redirect)
        if how == "upstream":
            there = meshfd.Redirect(replace(there.upstream, netns=place.egress))

        async def decide(call: meshfd.Call) -> meshfd.Verdict:
            return there if str(call.asked) == f"{VIRTUAL}:80" else meshfd.Pass()

        async with meshfd.spawn(
            [sys.executable, "-c", ONCE, VIRTUAL],
            routes=[replace(meshfd.parse_route(":1=pass"), verdict=there)],
            decide=decide,
            netns=place.service,
            ipv4_netns=None if how == "upstream" else place.egress,
            stdout=out,
        ) as program:
            async for _ in program:
                pass
            assert await program.wait() == 0
    assert (tmp_path / "out").read_text() == f"{EGRESS4} hello\n"


async def test_namespaces_that_are_named_at_once(place: Transition) -> None:
    """Two tasks that name two namespaces, which the agent has not heard of, each mean their own."""
    addresses = {place.service: SERVICE6, place.egress: EGRESS4}
    async with open_agent(AgentOptions(netns=NEW)) as agent, trio.open_nursery() as nursery:
        for name, ip in addresses.items():
            address = SocketAddress(ip_address(ip), 8000)
            nursery.start_soon(agent.open_listening, ListeningSocket(name, address, netns=name))


async def test_verdict_that_is_not_prepared_for(place: Transition, greeter: Greeter) -> None:
    """Without a route that leads elsewhere no verdict can."""
    there = meshfd.parse_target(address_of(greeter.listening))
    assert isinstance(there, meshfd.Redirect)
    away = meshfd.Redirect(replace(there.upstream, netns=place.egress))

    async def decide(call: meshfd.Call) -> meshfd.Verdict:
        return away

    with pytest.raises(ValueError, match="only if some route does"):
        async with meshfd.spawn(
            [sys.executable, "-c", ONCE, VIRTUAL], decide=decide, netns=place.service
        ) as program:
            await program.wait()
