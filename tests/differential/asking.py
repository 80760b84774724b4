"""``python -m tests.differential.asking [--strict] FDS DEST=TARGET... -- PROGRAM...``.

Routes by asking. Each connect() of the program is decided here, by the same list of routes that
the other modes have; those of UDP are meshfd's own, since nobody is asked about datagrams.
``meshfd.spawn`` lets a program inherit no fds, so those of the places are sent to its standard
input, in their order.
"""

from __future__ import annotations

import socket
import sys

import trio

import meshfd


async def main() -> int:
    """Return the program's exit status."""
    words = sys.argv[1:]
    at = words.index("--")
    options, program = words[:at], words[at + 1 :]
    strict = options[0] == "--strict"
    fds, *routes = options[strict:]
    verdicts = {}
    for route in map(meshfd.parse_route, routes):
        to = route.destination
        if to.network is not None and to.protocol is meshfd.Protocol.TCP:
            verdicts[to.network.network_address, to.first_port] = route.verdict

    async def decide(call: meshfd.Call) -> meshfd.Verdict:
        return verdicts.get((call.asked.ip, call.asked.port), meshfd.Pass())

    ours, theirs = socket.socketpair()
    for fd in fds.split(","):
        socket.send_fds(ours, [b"."], [int(fd)])
    async with meshfd.spawn(
        program,
        routes=[route for route in routes if route.startswith("udp:")],
        decide=decide,
        strict=strict,
        stdin=theirs.fileno(),
    ) as running:
        theirs.close()
        return await running.wait()


if __name__ == "__main__":
    sys.exit(trio.run(main))
