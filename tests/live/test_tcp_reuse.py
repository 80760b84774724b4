"""Sockets with a past are connected: used again, bound, given a device or a mark."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from tests.support.command import KINDS, VIRTUAL, Meshfd, direct_way, written
from tests.support.need import require_root
from tests.support.netns import HERE, MARK, NOBODY_HERE, WIRE, Wire, open_wire
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Echo, Greeter, SilentServer, listening_socket, port_of

# DIAL FAMILY BOUND OPTION=VALUE,... WAIT ADDRESS PORT: what bind() and a non-blocking connect()
# say, where the socket is then, and with WAIT what came of it.
DIAL = """
import errno, select, socket, sys
family, bound, options, wait, address, port = sys.argv[1:]
NAMES = {"mark": (socket.SOL_SOCKET, socket.SO_MARK), "device": (socket.SOL_SOCKET, 25),
         "transparent": (socket.IPPROTO_IP, 19), "freebind": (socket.IPPROTO_IP, 15),
         "no-port": (socket.IPPROTO_IP, 24), "reuse": (socket.SOL_SOCKET, socket.SO_REUSEADDR)}
client = socket.socket(int(family))
client.setblocking(False)
for option in filter(None, options.split(",")):
    name, _, value = option.partition("=")
    client.setsockopt(*NAMES[name], int(value) if value.isdigit() else value.encode())
def tell(step, call, *words):
    try:
        result = call(*words)
    except OSError as error:
        result = errno.errorcode[error.errno]
    print(f"{step}: {result}")
def resolve(host, port):
    return socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)[0][4]
if bound:
    host, _, at = bound.rpartition("/")
    tell("bind", client.bind, resolve(host, int(at)))
    tell("name", lambda: client.getsockname()[0])
code = client.connect_ex(resolve(address, int(port)))
print("connect:", errno.errorcode.get(code, code))
tell("name", lambda: client.getsockname()[0])
if code == errno.EINPROGRESS and wait:
    select.select([], [client], [], 30)
    tell("SO_ERROR", lambda: client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    tell("bound port kept", lambda: not bound or at in ("0", str(client.getsockname()[1])))
"""

N_READS = 20_000
N_READS_QUICK = 5_000


@pytest.fixture
def other() -> Iterator[Greeter]:
    """Return a second server."""
    with Greeter("other") as server:
        yield server


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Return a network that nobody answers in. Needs root."""
    require_root()
    with open_wire() as opened:
        yield opened


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
@pytest.mark.parametrize("mode", ["connected", "nonblocking", "bound", "listening"])
def test_used_again(
    mode: str,
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
    other: Greeter,
) -> None:
    """Disconnected by AF_UNSPEC, a socket is connected by another route, and by the first again."""
    path = program("reuse")
    direct = direct_way(greeter.listening).words + direct_way(other.listening).words
    bare = processes.run([path, mode, *direct])
    first, second = meshfd.way(greeter.listening), meshfd.way(other.listening, port=81)
    options = first.options + second.options + kind
    under = processes.run(meshfd.exec(path, mode, *first.words, *second.words, options=options))
    assert bare.code == 0, bare.err
    assert under.lines == bare.lines, under.err
    assert "greeting: other" in under.lines


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_given_up(
    kind: tuple[str, ...],
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
    silent: SilentServer,
) -> None:
    """An attempt that nobody answers is given up by AF_UNSPEC; the next goes by another route."""
    path = program("reuse")
    direct = direct_way(silent.listening).words + direct_way(greeter.listening).words
    bare = processes.run([path, "unfinished", *direct])
    first, second = meshfd.way(silent.listening), meshfd.way(greeter.listening, port=81)
    words = [str(path), "unfinished", *first.words, *second.words]
    under = processes.run(meshfd.exec(*words, options=first.options + second.options + kind))
    assert bare.lines[:3] == [
        "connect: EINPROGRESS",
        "connect meanwhile: EALREADY",
        "disconnect: 0",
    ]
    assert under.lines == bare.lines, under.err


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "--strict" not in kind], ids=" ".join)
def test_reader_is_not_disturbed(
    kind: tuple[str, ...], meshfd: Meshfd, program: Programs, processes: Processes, quick: bool
) -> None:
    """Connected again by another thread, a blocking socket blocks its reader as ever."""
    with Echo() as server:
        way = meshfd.way(server.listening)
        words = (program("again"), *way.words, str(N_READS_QUICK if quick else N_READS))
        done = processes.run(meshfd.exec(*words, options=way.options + kind))
    expected = ["connect: 0", "connect again: EISCONN", "failed to wait: 0", "often: 1"]
    assert done.lines == expected, done.err


class Dial:
    """Runs DIAL bare to an endpoint and, redirected to it, under meshfd."""

    def __init__(self, meshfd: Meshfd, processes: Processes, kind: tuple[str, ...]) -> None:
        """Run it in this mode of meshfd."""
        self._meshfd = meshfd
        self._processes = processes
        self._kind = kind

    def __call__(
        self, endpoint: str, port: int, *, bound: str = "", options: str = "", mapped: bool = False
    ) -> tuple[list[str], list[str]]:
        """Return both transcripts."""
        family = socket.AF_INET6 if mapped else socket.AF_INET
        prefix = "::ffff:" if mapped else ""
        wait = "" if endpoint == NOBODY_HERE or "device" in options else "wait"
        words = [sys.executable, "-c", DIAL, str(int(family)), bound, options, wait]
        bare = self._processes.run([*words, prefix + endpoint, str(port)])
        route = ("--route", f"{VIRTUAL}:80={written(endpoint, port)}")
        command = self._meshfd.exec(*words, prefix + VIRTUAL, "80", options=route + self._kind)
        under = self._processes.run(command)
        assert bare.code == 0, bare.err
        return bare.lines, under.lines


@pytest.fixture(params=KINDS, ids=" ".join)
def dial(request: pytest.FixtureRequest, meshfd: Meshfd, processes: Processes) -> Dial:
    """Return `Dial` for each mode of meshfd."""
    meshfd.need()
    return Dial(meshfd, processes, request.param)


@pytest.mark.parametrize(
    ("bound", "options", "mapped"),
    [
        pytest.param("127.0.0.2/0", "", False, id="address"),
        pytest.param("127.0.0.2/23456", "reuse=1", False, id="port"),
        pytest.param("127.0.0.2/0", "no-port=1", False, id="no-port"),
        pytest.param("127.0.0.2/0", "freebind=1", False, id="freebind"),
        pytest.param("::ffff:127.0.0.2/0", "", True, id="mapped"),
        pytest.param("::1/0", "", True, id="v6-to-v4"),
        pytest.param("::/0", "", True, id="any-to-v4"),
    ],
)
def test_bound(bound: str, options: str, mapped: bool, dial: Dial, greeter: Greeter) -> None:
    """A bound socket keeps its address, or fails as it would to the endpoint itself."""
    bare, under = dial(
        "127.0.0.1", port_of(greeter.listening), bound=bound, options=options, mapped=mapped
    )
    assert under == bare
    assert ("connect: EINPROGRESS" in bare) == (bound != "::1/0")


@pytest.mark.parametrize(
    ("endpoint", "bound", "options", "said"),
    [
        pytest.param(NOBODY_HERE, "", "", f"name: {HERE}", id="reachable"),
        pytest.param(NOBODY_HERE, "127.0.0.2/0", "", "connect: EINVAL", id="bound-to-loopback"),
        pytest.param(NOBODY_HERE, "", f"mark={MARK}", "connect: EACCES", id="mark"),
        pytest.param("127.0.0.1", "", f"device={WIRE}", f"name: {HERE}", id="device"),
        pytest.param(NOBODY_HERE, "192.0.2.9/0", "freebind=1", "connect: ENETUNREACH", id="free"),
        pytest.param(NOBODY_HERE, "192.0.2.9/0", "transparent=1", "name: 192.0.2.9", id="transp"),
        pytest.param(NOBODY_HERE, "192.0.2.9/0", "", "bind: EADDRNOTAVAIL", id="not-ours"),
        pytest.param("127.0.0.1", f"{HERE}/0", "", "SO_ERROR: 0", id="bound-to-the-wire"),
    ],
)
def test_on_a_wire(
    endpoint: str, bound: str, options: str, said: str, wire: Wire, dial: Dial, greeter: Greeter
) -> None:
    """Bound address, device and mark decide about the endpoint as about an address asked for."""
    bare, under = dial(endpoint, port_of(greeter.listening), bound=bound, options=options)
    assert under == bare
    assert said in bare


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_scope(
    kind: tuple[str, ...], meshfd: Meshfd, processes: Processes, wire: Wire, greeter: Greeter
) -> None:
    """A link-local address passes with its scope, whatever is routed besides; so does a denial."""
    meshfd.need()
    with socket.create_server((wire.link_local, 0, 0, wire.index), family=socket.AF_INET6) as one:
        port = port_of(one)
        scoped = f"{wire.link_local}%{wire.name}"
        words = [sys.executable, "-c", DIAL, str(int(socket.AF_INET6)), "", "", "wait"]
        words += [scoped, str(port)]
        bare = processes.run(words)
        assert "SO_ERROR: 0" in bare.lines, bare.err
        route = ("--route", f"{VIRTUAL}:80=127.0.0.1:{port_of(greeter.listening)}")
        assert processes.run(meshfd.exec(*words, options=route + kind)).lines == bare.lines
        deny = ("--deny", f"[{wire.link_local}]:{port}")
        denied = processes.run(meshfd.exec(*words, options=deny + kind))
        assert denied.lines[0] == "connect: ECONNREFUSED"
        words[-2] = wire.link_local
        without = processes.run(words)
        assert without.lines[0] == "connect: EINVAL"
        assert processes.run(meshfd.exec(*words, options=route + kind)).lines == without.lines


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_two_destinations_one_endpoint(
    kind: tuple[str, ...], meshfd: Meshfd, processes: Processes
) -> None:
    """Two sockets with one local address and port cannot both reach one endpoint, by any name.

    The second says EADDRNOTAVAIL, as it does bare to one address.
    """
    code = """
import errno, socket, sys
hosts, port = sys.argv[1:3], int(sys.argv[3])
clients = [socket.socket() for _ in hosts]
for client in clients:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
clients[0].bind(("127.0.0.2", 0))
clients[1].bind(clients[0].getsockname())
for client, host in zip(clients, hosts):
    code = client.connect_ex((host, port))
    print(errno.errorcode.get(code, code))
"""
    with listening_socket() as server:
        port = str(port_of(server))
        words = [sys.executable, "-c", code]
        bare = processes.run([*words, "127.0.0.1", "127.0.0.1", port])
        route = ("--route", f"127.66.0.0/16={written('127.0.0.1', port_of(server))}")
        under = processes.run(
            meshfd.exec(*words, "127.66.0.1", "127.66.0.2", port, options=route + kind)
        )
    assert bare.lines == ["0", "EADDRNOTAVAIL"]
    if not meshfd.bare:
        assert under.lines == bare.lines


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_one_port_two_destinations(
    kind: tuple[str, ...],
    meshfd: Meshfd,
    processes: Processes,
    greeter: Greeter,
    other: Greeter,
) -> None:
    """Two sockets that share a port, by SO_REUSEPORT, each reach their own server from it."""
    code = """
import socket, sys
clients = [socket.socket() for _ in range(2)]
for client in clients:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
clients[0].bind(("127.0.0.2", 0))
clients[1].bind(clients[0].getsockname())
for client, host, port in zip(clients, sys.argv[1::2], sys.argv[2::2]):
    client.connect((host, int(port)))
    print(client.makefile().readline().strip())
print("one name:", clients[0].getsockname() == clients[1].getsockname())
"""
    words = [sys.executable, "-c", code]
    first, second = meshfd.way(greeter.listening), meshfd.way(other.listening, port=81)
    options = first.options + second.options + kind
    under = processes.run(meshfd.exec(*words, *first.words, *second.words, options=options))
    assert under.lines == ["hello", "other", "one name: True"], under.err
