"""Nonsense given to socket calls is answered by meshfd as by the kernel."""

from __future__ import annotations

import pytest

from tests.support.command import VIRTUAL, Meshfd, Way, direct_way
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.servers import Greeter, free_port, port_of

MODES = ["no-route", "strict", "create", "listen", "route", "route-strict", "route-create"]
# The C library connects through socketcall(2) there, which a strict service refuses.
KINDS = [(mode, "") for mode in MODES] + [
    (mode, "i386") for mode in MODES if not mode.endswith("strict")
]


def way_in(mode: str, meshfd: Meshfd, greeter: Greeter) -> Way:
    """Return how the program reaches the greeter in this mode, on the greeter's own port number."""
    direct = direct_way(greeter.listening)
    extra = {
        "strict": ("--strict",),
        "route-strict": ("--strict",),
        "create": ("--track", "create"),
        "route-create": ("--track", "create"),
        "listen": ("--listen", f"127.0.0.1:{free_port()}"),
    }.get(mode, ())
    if not mode.startswith("route") or meshfd.bare:
        return Way(direct.host, direct.port, extra)
    way = meshfd.way(greeter.listening, host=VIRTUAL, port=port_of(greeter.listening))
    return Way(way.host, way.port, way.options + extra)


@pytest.mark.parametrize(("mode", "variant"), KINDS)
def test_errnos(
    mode: str,
    variant: str,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    greeter: Greeter,
) -> None:
    """Short, long, missing, unmapped and foreign addresses, wrong fds and used sockets: same errno.

    So it is under every mode of meshfd, also where a route leads the good address elsewhere.
    """
    path = program("bad_addresses", variant)
    way = way_in(mode, meshfd, greeter)
    bare = processes.run([path, *direct_way(greeter.listening).words])
    assert bare.code == 0, bare.err
    under = processes.run(meshfd.exec(path, *way.words, options=way.options))
    assert under.code == 0, under.err
    assert under.lines == bare.lines


def test_ordinary_sockets(meshfd: Meshfd, program: Programs, processes: Processes) -> None:
    """Sockets that no route is about (UDP, unix, netlink, TCP of one's own) behave as ever."""
    path = program("ordinary")
    bare = processes.run([path])
    assert bare.code == 0, bare.err
    for options in ((), ("--strict",), ("--route", f"{VIRTUAL}:80=127.0.0.1:9")):
        under = processes.run(meshfd.exec(path, options=options))
        assert under.code == 0, under.err
        assert under.lines == bare.lines
