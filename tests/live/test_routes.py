"""Where connections lead: routes, their order, endpoints, families."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from tests.support.command import Meshfd, address_of, direct_way, written
from tests.support.ordinary_user import as_ordinary_user
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter, dead_port, port_of

N_ROUNDS = 20
DENIED = ["ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "ETIMEDOUT", "EACCES"]


@pytest.fixture(autouse=True)
def _about_meshfd(meshfd: Meshfd) -> None:
    meshfd.need()


@pytest.fixture
def other() -> Iterator[Greeter]:
    """Return a second server."""
    with Greeter("other") as server:
        yield server


class Dialler:
    """Runs dial.c under routes."""

    def __init__(self, meshfd: Meshfd, program: Programs, processes: Processes) -> None:
        """Build it."""
        self._meshfd = meshfd
        self._path = program("dial")
        self._processes = processes

    def __call__(self, host: str, port: int, *options: str, mode: str = "") -> str:
        """Return the greeting, or the errno when there is none."""
        words = [host, str(port), *([mode] if mode else [])]
        done = self._processes.run(self._meshfd.exec(self._path, *words, options=options))
        assert done.lines, done.err
        return done.lines[-1].partition(": ")[2]


@pytest.fixture
def dial(meshfd: Meshfd, program: Programs, processes: Processes) -> Dialler:
    """Return `Dialler`."""
    return Dialler(meshfd, program, processes)


@pytest.mark.parametrize(
    "destination",
    [
        "127.66.0.1:80",
        "127.66.0.1",
        "127.66.0.0/16:80",
        "127.66.0.0/16",
        "127.66.0.1:1-80",
        "127.66.0.1:80-65535",
        ":80",
        ":1-100",
    ],
)
@pytest.mark.parametrize("extra", [(), ("--strict",), ("--track", "create")])
def test_destinations(
    destination: str, extra: tuple[str, ...], dial: Dialler, greeter: Greeter
) -> None:
    """A destination may be an address, a network, a port or a range of ports."""
    route = f"{destination}={address_of(greeter.listening)}"
    assert dial("127.66.0.1", 80, "--route", route, *extra) == "hello"


@pytest.mark.parametrize("destination", ["127.66.0.2:80", "127.66.0.1:81", "127.67.0.0/16", ":81"])
def test_other_destinations(destination: str, dial: Dialler, greeter: Greeter) -> None:
    """What no route is about goes where the program asked, where nobody is."""
    route = f"{destination}={address_of(greeter.listening)}"
    assert dial("127.66.0.1", 80, "--route", route) == "ECONNREFUSED"


@pytest.mark.parametrize("extra", [(), ("--strict",), ("--track", "create")])
def test_unrouted(extra: tuple[str, ...], dial: Dialler, greeter: Greeter) -> None:
    """A program whose destination has no route reaches it."""
    assert dial(*_pair(direct_way(greeter.listening).words), *extra) == "hello"


def _pair(words: tuple[str, str]) -> tuple[str, int]:
    return words[0], int(words[1])


def test_most_specific_wins(dial: Dialler, greeter: Greeter, other: Greeter) -> None:
    """The longer prefix wins, whatever comes first."""
    there, elsewhere = address_of(greeter.listening), address_of(other.listening)
    wide, narrow = f"127.66.0.0/16={elsewhere}", f"127.66.0.1:80={there}"
    assert dial("127.66.0.1", 80, "--route", wide, "--route", narrow) == "hello"
    assert dial("127.66.0.1", 80, "--route", narrow, "--route", wide) == "hello"
    assert dial("127.66.0.2", 80, "--route", narrow, "--route", wide) == "other"


def test_first_given_wins(dial: Dialler, greeter: Greeter, other: Greeter) -> None:
    """Between equals (as long a prefix, as many ports) the first that was given wins."""
    there, elsewhere = address_of(greeter.listening), address_of(other.listening)
    first, second = f"127.66.0.1:61-80={there}", f"127.66.0.1:80-99={elsewhere}"
    assert dial("127.66.0.1", 80, "--route", first, "--route", second) == "hello"
    assert dial("127.66.0.1", 80, "--route", second, "--route", first) == "other"


def test_pass_and_deny(dial: Dialler, greeter: Greeter) -> None:
    """Exceptions are made by more specific routes: pass, or deny."""
    host, port = direct_way(greeter.listening).words
    deny_all = ("--deny", "127.0.0.0/8")
    assert dial(host, int(port), *deny_all) == "ECONNREFUSED"
    assert dial(host, int(port), *deny_all, "--route", f"{host}:{port}=pass") == "hello"
    everywhere = ("--route", f"127.0.0.0/8={address_of(greeter.listening)}")
    assert dial("127.66.0.1", 80, *everywhere, "--deny", "127.66.0.1:80") == "ECONNREFUSED"


@pytest.mark.parametrize("name", DENIED)
@pytest.mark.parametrize("extra", [(), ("--strict",)])
def test_deny(name: str, extra: tuple[str, ...], dial: Dialler) -> None:
    """A denied connection fails with the errno that was chosen."""
    assert dial("127.66.0.1", 80, "--route", f"127.66.0.1:80=deny={name}", *extra) == name


@pytest.mark.parametrize(
    ("server", "host", "mode"),
    [
        pytest.param("127.0.0.1", "0.0.0.0", "", id="v4"),
        pytest.param("127.0.0.1", "0.0.0.0", "mapped", id="mapped"),
        pytest.param("::1", "::", "", id="v6"),
        pytest.param("::1", "::", "v6only", id="v6only"),
    ],
)
@pytest.mark.parametrize("extra", [(), ("--strict",)])
def test_wildcard_is_this_host(
    server: str, host: str, mode: str, extra: tuple[str, ...], dial: Dialler
) -> None:
    """Who connects to the wildcard address means this host: routes about that decide."""
    with Greeter(family=socket.AF_INET6 if ":" in server else socket.AF_INET) as there:
        port = port_of(there.listening)
        assert dial(host, port, *extra, mode=mode) == "hello"
        denied = ("--deny", written(server, port))
        assert dial(host, port, *denied, *extra, mode=mode) == "ECONNREFUSED"
    assert there.n_greeted == 1


# Bound to the second address, it connects to the third, and the kernel takes it to the first.
BOUND = """
import errno, socket, sys
family, bound, asked, port = sys.argv[1:]
with socket.socket(int(family)) as client:
    client.bind((bound, 0))
    code = client.connect_ex((asked, int(port)))
    print(errno.errorcode.get(code, code))
"""


@pytest.mark.parametrize("extra", [(), ("--strict",)])
@pytest.mark.parametrize(
    ("meant", "family", "bound", "asked"),
    [
        ("127.0.0.5", socket.AF_INET, "127.0.0.5", "0.0.0.0"),
        ("127.0.0.5", socket.AF_INET6, "::ffff:127.0.0.5", "::ffff:0.0.0.0"),
        ("127.0.0.1", socket.AF_INET6, "::ffff:127.0.0.5", "::"),
    ],
)
def test_wildcard_of_a_bound_socket(
    meant: str,
    family: int,
    bound: str,
    asked: str,
    extra: tuple[str, ...],
    meshfd: Meshfd,
    processes: Processes,
) -> None:
    """A socket that is bound means another address by the wildcard; routes about that decide."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = port_of(server)
        words = [sys.executable, "-c", BOUND, str(int(family)), bound, asked, str(port)]
        denied = ("--deny", f"{meant}:{port}")
        elsewhere = ("--deny", f"127.0.0.9:{port}", "--deny", f"[::1]:{port}")
        assert processes.run(words).lines == ["0"]
        assert processes.run(meshfd.exec(*words, options=(*extra, *elsewhere))).lines == ["0"]
        under = processes.run(meshfd.exec(*words, options=(*extra, *denied)))
        assert under.lines == ["ECONNREFUSED"]


@pytest.mark.parametrize("mode", ["accepted", "flags"])
def test_next_endpoint_of_nonblocking(
    mode: str, meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter
) -> None:
    """A non-blocking connect, too, moves on when an endpoint refuses, and notices nothing of it."""
    path = program("states")
    bare = processes.run([path, mode, *direct_way(greeter.listening).words])
    with dead_port() as port:
        route = f"127.66.0.1:80=127.0.0.1:{port},{address_of(greeter.listening)}"
        for _ in range(2):  # round-robin begins elsewhere each time, if it is kept anywhere
            under = processes.run(
                meshfd.exec(path, mode, "127.66.0.1", "80", options=("--route", route))
            )
            assert under.lines == bare.lines


def test_next_endpoint(dial: Dialler, greeter: Greeter) -> None:
    """When an endpoint refuses at once the next one is tried, before the program hears of it."""
    there = address_of(greeter.listening)
    with dead_port() as port, dead_port() as another:
        dead, gone = f"127.0.0.1:{port}", f"127.0.0.1:{another}"
        for targets in (f"{dead},{there}", f"{there},{dead}", f"{dead},{gone},{there}"):
            assert dial("127.66.0.1", 80, "--route", f"127.66.0.1:80={targets}") == "hello"
        assert dial("127.66.0.1", 80, "--route", f"127.66.0.1:80={dead},{gone}") == "ECONNREFUSED"


def test_round_robin(
    meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter, other: Greeter
) -> None:
    """Two endpoints get the same number of connections."""
    way = meshfd.way(greeter.listening, other.listening)
    done = processes.run(
        meshfd.exec(program("crowd"), *way.words, "1", str(2 * N_ROUNDS), options=way.options)
    )
    assert done.lines == [f"greeted: {2 * N_ROUNDS}"], done.err
    assert (greeter.n_greeted, other.n_greeted) == (N_ROUNDS, N_ROUNDS)


@pytest.mark.parametrize("host", ["[::1]", "[2001:db8::1]", "[2001:db8::]/32"])
def test_ipv6(host: str, dial: Dialler) -> None:
    """IPv6 destinations lead to IPv6 endpoints."""
    with Greeter(family=socket.AF_INET6) as six:
        target = host.partition("]")[0].strip("[")
        target = "2001:db8::1" if target.endswith("::") else target
        assert dial(target, 80, "--route", f"{host}:80={address_of(six.listening)}") == "hello"


def test_mapped(dial: Dialler, greeter: Greeter) -> None:
    """An IPv4 destination asked for on an IPv6 socket follows the IPv4 route to its endpoint."""
    route = f"127.66.0.1:80={address_of(greeter.listening)}"
    assert dial("127.66.0.1", 80, "--route", route, mode="mapped") == "hello"


def test_v6_destination_to_v4(dial: Dialler, greeter: Greeter) -> None:
    """An IPv6 destination may have an IPv4 endpoint, where the socket is not V6ONLY."""
    route = f"[2001:db8::1]:80={address_of(greeter.listening)}"
    assert dial("2001:db8::1", 80, "--route", route, mode="mapped") == "hello"


def test_v6only(dial: Dialler, greeter: Greeter) -> None:
    """A V6ONLY socket gets no IPv4 endpoint; with an IPv6 one besides it gets that."""
    with Greeter("six", family=socket.AF_INET6) as six:
        four = address_of(greeter.listening)
        route = f"[2001:db8::1]:80={four},{address_of(six.listening)}"
        assert dial("2001:db8::1", 80, "--route", route, mode="v6only") == "six"
        failure = dial("2001:db8::1", 80, "--route", f"[2001:db8::1]:80={four}", mode="v6only")
        assert failure in {"ENETUNREACH", "EADDRNOTAVAIL", "EAFNOSUPPORT"}


def test_log(meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter) -> None:
    """--log - tells each redirection: what was asked for and what was given."""
    way = meshfd.way(greeter.listening)
    done = processes.run(
        meshfd.exec(program("dial"), *way.words, options=(*way.options, "--log", "-"))
    )
    assert done.lines == ["connect: 0", "greeting: hello"]
    lines = [line for line in done.err.splitlines() if "127.66.0.1:80" in line]
    assert len(lines) == 1
    assert f"127.0.0.1:{port_of(greeter.listening)}" in lines[0]


def test_ordinary_user(
    meshfd: Meshfd, program: Programs, processes: Processes, greeter: Greeter
) -> None:
    """All of this needs no root."""
    way = meshfd.way(greeter.listening)
    command = meshfd.exec(program("dial", "static"), *way.words, options=way.options)
    done = processes.run(as_ordinary_user(command), cwd="/")
    assert done.lines == ["connect: 0", "greeting: hello"], done.err
