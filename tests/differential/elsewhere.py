"""``python -m tests.differential.elsewhere [OPTION...] FDS DEST=TARGET... -- PROGRAM...``.

The program runs in a new network namespace, and each route of TCP leads to a place in the one that
we were started in: so all that it connects is another socket than it made. Needs root. The fds are
sent to its standard input, as in `tests.differential.asking`; "-": there are none, and its standard
input is ours. What is worth a line in the log goes to standard error.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import trio

import meshfd
from meshfd.model import Protocol, Redirect
from tests.differential.asking import fds_as_input, split_words
from tests.support.netns import enter_private_network, make_unreachable


async def main() -> int:
    """Return the program's exit status."""
    options, fds, routes, program = split_words(sys.argv[1:])
    places = f"/proc/{os.getppid()}/ns/net"
    enter_private_network()
    make_unreachable()
    table = []
    for route in map(meshfd.parse_route, routes):
        if isinstance(route.verdict, Redirect) and route.destination.protocol is Protocol.TCP:
            upstream = replace(route.verdict.upstream, netns=places)
            table.append(replace(route, verdict=Redirect(upstream)))
    with fds_as_input(fds) as stdin:
        async with meshfd.spawn(
            program,
            routes=table,
            strict="--strict" in options,
            track=meshfd.Track.CREATE if "create" in options else meshfd.Track.CONNECT,
            stdin=stdin,
        ) as running:
            async for event in running:
                if isinstance(event, meshfd.Notice):
                    print(event.kind.value, file=sys.stderr)
            return await running.wait()


if __name__ == "__main__":
    sys.exit(trio.run(main))
