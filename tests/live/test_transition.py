"""A service that lives without IPv4 has it all the same, in another network namespace."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.cgroups import new_place
from tests.support.configured import refused, report_of, start_run
from tests.support.need import require_root
from tests.support.netns import ask_within, within
from tests.support.ordinary_user import NOBODY, open_to_all
from tests.support.processes import Processes, children_of
from tests.support.servers import Echoer, Greeter, port_of, read_all
from tests.support.sock_diag import find_sockets
from tests.support.transition import (
    EGRESS4,
    SERVER4,
    SERVER6,
    SERVICE6,
    Transition,
    open_transition,
)
from tests.support.waiting import wait_until

# Opens sockets of each kind, and says of each: where it is, what it is called, and what it heard.
SOCKETS: Final = """
import json, os, pathlib, select, socket, sys
server4, port4, udp4, server6, port6, report = sys.argv[1:]
mapped = "::ffff:" + server4
def netns(one):  # SO_NETNS_COOKIE
    return int.from_bytes(one.getsockopt(socket.SOL_SOCKET, 71, 8), "little")
said = {}
def tell(kind, one, heard=b""):
    peer = None
    try:
        peer = one.getpeername()[0]
    except OSError:
        pass
    said[kind] = {
        "netns": netns(one), "name": one.getsockname()[0], "peer": peer, "heard": heard.decode()
    }
def call_errno(call, *words):
    try:
        call(*words)
    except OSError as error:
        return error.errno
def stream(kind, family, address, port, before=lambda one: None):
    one = socket.socket(family)
    before(one)
    one.connect((address, int(port)))
    tell(kind, one, one.makefile("rb").read())
def datagram(kind, family, address, connected=True):
    one = socket.socket(family, socket.SOCK_DGRAM)
    one.settimeout(20)
    if connected:
        one.connect((address, int(udp4)))
        one.send(b"hello")
    else:
        one.sendto(b"hello", (address, int(udp4)))
    tell(kind, one, one.recv(100))
    return one
stream("inet", socket.AF_INET, server4, port4)
stream("mapped", socket.AF_INET6, mapped, port4)
if port6 != "-":
    stream("inet6", socket.AF_INET6, server6, port6)
stream("bound", socket.AF_INET6, mapped, port4, lambda one: one.bind(("::", 4444)))
datagram("udp", socket.AF_INET, server4)
datagram("udp unconnected", socket.AF_INET, server4, connected=False)
datagram("udp mapped", socket.AF_INET6, mapped)

one = socket.socket(socket.AF_INET6)  # registered, and dup'ed, before it goes anywhere
one.setblocking(False)
other = one.dup()
epoll = select.epoll()
epoll.register(one, select.EPOLLOUT | select.EPOLLONESHOT)
epoll.register(other, select.EPOLLIN)
if port6 != "-":
    assert not epoll.poll(0)  # README, limits
assert one.connect_ex((mapped, int(port4))) == 115  # EINPROGRESS
seen = set()
while len(seen) < 2:
    seen |= {fd for fd, _ in epoll.poll(20)}
assert seen == {one.fileno(), other.fileno()}
tell("epoll", other, other.recv(100))

listening = socket.create_server(("0.0.0.0", 0))
tell("listening", listening)
client = socket.create_connection(("127.0.0.1", listening.getsockname()[1]), 20)
tell("accepted", listening.accept()[0])
for kind, address in ("loopback", "::ffff:127.0.0.1"), ("any mapped", "::ffff:0.0.0.0"):
    listening = socket.socket(socket.AF_INET6)
    listening.bind((address, 0))
    listening.listen()
    client = socket.create_connection(("127.0.0.1", listening.getsockname()[1]), 20)
    tell(kind + " listening", listening)
    tell(kind + " accepted", listening.accept()[0])
    one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    one.bind((address, 0))
    tell(kind + " udp", one)
    one = socket.socket(socket.AF_INET6)
    taken = (address, listening.getsockname()[1])
    said[kind + " taken"] = [call_errno(one.bind, taken), call_errno(listening.bind, taken)]
for kind, of in ("refused", socket.AF_INET), ("refused mapped", socket.AF_INET6):
    one = socket.socket(of)
    said[kind] = one.connect_ex(("127.0.0.1" if of == socket.AF_INET else "::ffff:127.0.0.1", 1))
one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 7)
said["broadcast"] = one.connect_ex((mapped.rpartition(".")[0] + ".255", 9))
said["ttl"] = one.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL)
if port6 != "-":
    one = datagram("udp mapped", socket.AF_INET6, mapped)
    one.connect((server6, 9))
    tell("udp home again", one)
pathlib.Path(report + ".new").write_text(json.dumps(said))
os.rename(report + ".new", report)
print("done", flush=True)
"""

TIME_WAIT: Final = "06"  # include/net/tcp_states.h


@pytest.fixture(scope="module")
def place() -> Iterator[Transition]:
    """Make the namespaces. Needs root."""
    require_root()
    with open_transition() as made:
        yield made


def _without_netns(said: dict[str, Any]) -> dict[str, Any]:
    return {
        kind: {key: value for key, value in one.items() if key != "netns"}
        if isinstance(one, dict)
        else one
        for kind, one in said.items()
    }


@pytest.mark.parametrize("keys", ["", "strict = true", 'track = "create"'], ids=str)
def test_sockets(keys: str, processes: Processes, tmp_path: Path, place: Transition) -> None:
    """All of IPv4 is as for a program that runs where IPv4 is; IPv6 stays at home."""
    with (
        Greeter("four", host=SERVER4) as four,
        Greeter("six", socket.AF_INET6, host=SERVER6) as six,
        Echoer(address=(SERVER4, 0)) as echo,
    ):
        ports = str(port_of(four.listening)), str(port_of(echo.socket))
        words = [sys.executable, "-c", SOCKETS, SERVER4, *ports]
        bare_report, report = tmp_path / "bare", tmp_path / "report"
        bare = processes.run([*within(place.egress), *words, SERVER6, "-", str(bare_report)])
        assert bare.code == 0, bare.err
        command = [*words, SERVER6, str(port_of(six.listening)), str(report)]
        running = start_run(processes, tmp_path, place.configuration(command, keys))
        said = report_of(running, report)
        assert running.finish().code == 0
    expected = json.loads(bare_report.read_text())
    there = {one["netns"] for one in expected.values() if isinstance(one, dict)}
    home = said.pop("udp home again")
    inet6 = said.pop("inet6")
    assert (inet6["name"], inet6["heard"]) == (SERVICE6, "six\n")
    assert home["name"] == SERVICE6
    assert home["netns"] == inet6["netns"]
    assert home["netns"] not in there
    assert {one["netns"] for one in said.values() if isinstance(one, dict)} == there
    assert _without_netns(said) == _without_netns(expected)
    assert said["mapped"]["name"] == f"::ffff:{EGRESS4}"


# Binds twice, which only what is handed over allows, and answers one client.
SERVER: Final = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
made = [socket.socket(family) for _ in range(2)]
for one in made:
    one.bind((sys.argv[1], 8000))
made[0].listen()
made[0].accept()[0].sendall(b"served\\n")
"""


@pytest.mark.parametrize("bound", ["0.0.0.0", "::"])
@pytest.mark.parametrize("named", [False, True], ids=["default", "named"])
def test_handed(
    named: bool, bound: str, processes: Processes, tmp_path: Path, place: Transition
) -> None:
    """What binds to all of IPv4, or of both, is handed the socket that is where IPv4 is."""
    more = '[[service.legacy.listen]]\naddress = "0.0.0.0:8000"\n'
    more += f'netns = "{place.egress}"\n' * named
    command = [sys.executable, "-c", SERVER, bound]
    running = start_run(processes, tmp_path, place.configuration(command, more))
    wait_until(lambda: "started" in running.errors(), "the daemon")
    with socket.create_connection((EGRESS4, 8000), 20) as client:
        assert client.makefile().read() == "served\n"
    assert running.finish().code == 0


# Moves to a cgroup below, becomes another user, and says by which inodes its sockets are known.
BELONGING: Final = """
import encodings.idna, json, os, pathlib, socket, sys, time
server, port, nested, uid, report = sys.argv[1:]
if nested != "-":
    pathlib.Path(nested).mkdir()
    pathlib.Path(nested, "cgroup.procs").write_text("0")
os.setgid(int(uid))
os.setuid(int(uid))
listening = socket.create_server(("0.0.0.0", 0))
stream = socket.create_connection((server, port), 20)
mapped = socket.create_connection(("::ffff:" + server, port), 20)
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagram.connect((server, 9))
made = {"listening": listening, "stream": stream, "mapped": mapped, "datagram": datagram}
inodes = {kind: os.fstat(one.fileno()).st_ino for kind, one in made.items()}
pathlib.Path(report + ".new").write_text(json.dumps(inodes))
os.rename(report + ".new", report)
time.sleep(1000)
"""


@pytest.mark.parametrize("nested", [False, True], ids=["service's", "nested"])
def test_sockets_belong_to_the_program(
    nested: bool, processes: Processes, tmp_path: Path, place: Transition
) -> None:
    """Those in the other namespace are of the cgroup and the user that the program has."""
    with Greeter("four", host=SERVER4) as four, new_place() as cgroups:
        own = cgroups.directory / "legacy"
        expected = own / "below" if nested else own
        open_to_all(tmp_path).chmod(0o777)
        words = [SERVER4, str(port_of(four.listening)), str(expected) if nested else "-"]
        command = [sys.executable, "-c", BELONGING, *words, str(NOBODY), str(tmp_path / "report")]
        keys = f'cgroup = "{cgroups.path}/legacy"'
        running = start_run(processes, tmp_path, place.configuration(command, keys))
        inodes = report_of(running, tmp_path / "report")
        found = ask_within(place.egress, lambda: find_sockets(socket.AF_INET, socket.AF_INET6))
        told = {kind: (found[inode].cgroup, found[inode].uid) for kind, inode in inodes.items()}
        assert set(told.values()) == {(expected.stat().st_ino, NOBODY)}, told
        running.signal(signal.SIGTERM)
        done = running.finish()
        assert (done.code, own.exists()) == (0, False), done.err


def test_listening(processes: Processes, tmp_path: Path, place: Transition) -> None:
    """A daemon is handed a socket of IPv4 where its IPv4 is, and one of IPv6 at home."""
    code = (
        "import socket\n"
        "four = socket.create_server(('0.0.0.0', 8000))\n"
        "six = socket.create_server(('::', 8001), family=socket.AF_INET6)\n"
        "for one, says in (four, b'four'), (six, b'six'): one.accept()[0].sendall(says)\n"
    )
    listen = '[[service.legacy.listen]]\naddress = "{0}"\n'
    more = listen.format("0.0.0.0:8000") + listen.format("[::]:8001") + "v6only = true\n"
    command = [sys.executable, "-c", code]
    running = start_run(processes, tmp_path, place.configuration(command, more))
    wait_until(lambda: "started" in running.errors(), "the daemon")
    for address, expected in ((EGRESS4, 8000), b"four"), ((SERVICE6, 8001), b"six"):
        with socket.create_connection(address, 20) as client:
            assert read_all(client) == expected
    assert running.finish().code == 0


def test_bare_is_without_ipv4(processes: Processes, place: Transition) -> None:
    """The control: without the transition no IPv4 address is reached from there."""
    code = f"import socket; socket.create_connection(({SERVER4!r}, 80))"
    done = processes.run([*within(place.service), sys.executable, "-c", code])
    assert "Network is unreachable" in done.err


@pytest.mark.parametrize(
    ("egress", "expected"),
    [
        (
            "meshfd-nowhere",
            "network namespace /run/netns/meshfd-nowhere: No such file or directory",
        ),
        ("{service}", "network namespace /run/netns/{service}: the service lives there"),
        ("{empty}", "network namespace /run/netns/{empty} has no IPv4 address but loopback's"),
        ("/etc/passwd", "network namespace /etc/passwd: this file is no network namespace"),
    ],
)
def test_faults(
    egress: str, expected: str, processes: Processes, tmp_path: Path, place: Transition, named: str
) -> None:
    """A namespace that cannot serve is named in one line, and nothing is started."""
    names = {"service": place.service, "empty": named}
    wrong = Transition(place.service, egress.format(**names))
    touched = tmp_path / "touched"
    running = start_run(processes, tmp_path, wrong.configuration(["touch", str(touched)]))
    line = refused(running)
    assert expected.format(**names) in line
    assert "legacy" in line
    assert not touched.exists()


def test_from_host_to_host(processes: Processes, tmp_path: Path) -> None:
    """Our own namespace is called that, not by the path that stands for it."""
    require_root()
    text = Transition("host", "host").configuration(["true"])
    assert refused(start_run(processes, tmp_path, text)) == (
        "meshfd: service legacy: meshfd's own network namespace: the service lives there, with its "
        "IPv4; leave the transition out"
    )


@pytest.mark.parametrize("killed", ["meshfd", "program"])
def test_nothing_is_left(
    killed: str, processes: Processes, tmp_path: Path, place: Transition
) -> None:
    """Whoever is killed: no process and no socket of the service is left in either namespace."""
    with Greeter("four", host=SERVER4) as four:
        code = (
            "import pathlib, socket, sys, time\n"
            "held = [socket.create_server(('0.0.0.0', 7777))]\n"
            "held += [socket.socket(socket.AF_INET6) for _ in range(10)]\n"
            f"for one in held[1:]: one.connect(('::ffff:{SERVER4}', {port_of(four.listening)}))\n"
            "pathlib.Path(sys.argv[1]).write_text('{}')\n"
            "time.sleep(1000)\n"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "report")]
        running = start_run(processes, tmp_path, place.configuration(command))
        report_of(running, tmp_path / "report")
        if killed == "meshfd":
            running.signal(signal.SIGKILL)
        else:
            (agent,) = children_of(running.pid)
            (program,) = children_of(agent)
            processes.run(["kill", "-KILL", str(program)])
            running.finish()
        wait_until(lambda: not processes.running(), "the end of everything")
        for name in (place.service, place.egress):
            table = processes.run([*within(name), "cat", "/proc/net/tcp", "/proc/net/tcp6"]).out
            rows = [line.split() for line in table.splitlines() if re.match(r"\s*\d+:", line)]
            assert all(row[3] == TIME_WAIT for row in rows), table
