"""``python -m tests.differential.asking [--strict] FDS DEST=TARGET... -- PROGRAM...``.

Routes by asking. Each connect() of the program is decided here, by the same list of routes that
the other modes have; those of UDP are meshfd's own, since nobody is asked about datagrams.
``meshfd.spawn`` lets a program inherit no fds, so those of the places are sent to its standard
input, in their order.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator

import trio

import meshfd


def split_words(words: list[str]) -> tuple[list[str], str, list[str], list[str]]:
    """Return the options, the fds, the routes, and the program with its arguments."""
    at = words.index("--")
    before, program = words[:at], words[at + 1 :]
    routes = [word for word in before if "=" in word]
    *options, fds = before[: len(before) - len(routes)]
    return options, fds, routes, program


@contextlib.contextmanager
def fds_as_input(fds: str) -> Iterator[int]:
    """Give a standard input on which these fds arrive; "-": ours."""
    if fds == "-":
        yield sys.stdin.fileno()
        return
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for fd in fds.split(","):
            socket.send_fds(ours, [b"."], [int(fd)])
        yield theirs.fileno()


async def main() -> int:
    """Return the program's exit status."""
    options, fds, routes, program = split_words(sys.argv[1:])
    verdicts = {}
    for route in map(meshfd.parse_route, routes):
        to = route.destination
        if to.network is not None and to.protocol is meshfd.Protocol.TCP:
            verdicts[to.network.network_address, to.first_port] = route.verdict

    async def decide(call: meshfd.Call) -> meshfd.Verdict:
        return verdicts.get((call.asked.ip, call.asked.port), meshfd.Pass())

    with fds_as_input(fds) as stdin:
        async with meshfd.spawn(
            program,
            routes=[route for route in routes if route.startswith("udp:")],
            decide=decide,
            strict="--strict" in options,
            stdin=stdin,
        ) as running:
            return await running.wait()


if __name__ == "__main__":
    sys.exit(trio.run(main))
