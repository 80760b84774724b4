"""``python -m tests.bench.many_routes N DEST=TARGET [REPORT] -- PROGRAM...``: run it with N routes.

The one that is named is the last of them. With REPORT, a file, the table is replaced all the time
while the program runs, and how long each replacement took is written there, a line of nanoseconds.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Sequence
from ipaddress import IPv4Address, ip_network

import trio

from meshfd.agent import Agent, AgentOptions, open_agent
from meshfd.events import Exited
from meshfd.model import Deny, Destination, Route
from meshfd.program import Program
from meshfd.routes import parse_route

FIRST = int(IPv4Address("10.0.0.0"))
STANDARD = (0, 1, 2)


def many_routes(n: int, last: Route) -> list[Route]:
    """As many routes: to a host of its own each, but for the last."""
    refused = Deny(errno.ECONNREFUSED)
    hosts = (ip_network((FIRST + i, 32)) for i in range(n - 1))
    return [*(Route(Destination(host), refused) for host in hosts), last]


async def replace_for_ever(agent: Agent, routes: Sequence[Route], name: str) -> None:
    """Replace the table until cancelled; write down how long that took."""
    async with await trio.open_file(name, "a") as report:
        while True:
            begin = time.monotonic_ns()
            await agent.set_routes(routes)
            await report.write(f"{time.monotonic_ns() - begin}\n")
            await report.flush()


async def main(n: int, text: str, report: str | None, words: Sequence[str]) -> None:
    """Run the program to its end."""
    routes = many_routes(n, parse_route(text))
    async with open_agent(AgentOptions()) as agent, trio.open_nursery() as nursery:
        await agent.set_routes(routes)
        await agent.spawn(Program(tuple(words), tuple(os.environ.items())), stdio=STANDARD)
        if report is not None:
            nursery.start_soon(replace_for_ever, agent, routes, report)
        async for event in agent.events:
            if isinstance(event, Exited):
                nursery.cancel_scope.cancel()


if __name__ == "__main__":
    number, route, *others = sys.argv[1:]
    separator = others.index("--")
    trio.run(main, int(number), route, others[0] if separator else None, others[separator + 1 :])
