"""``python -m tests.bench.elsewhere elsewhere|ipv4 DEST=TARGET -- PROGRAM...``.

The program runs in a network namespace of its own, and the route leads through the one that we were
started in. With ``ipv4``, its sockets of AF_INET are made in a third. Needs root.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import trio

import meshfd
from meshfd.netns import OWN_PATH
from tests.support.need import require_tool
from tests.support.netns import enter_private_network

_ADDRESS = "10.66.98.1/32"  # a namespace without one has no IPv4


def open_ipv4() -> str:
    """Enter a new namespace that has an address of IPv4; its path."""
    enter_private_network()
    subprocess.run([require_tool("ip"), "address", "add", _ADDRESS, "dev", "lo"], check=True)
    return f"/proc/self/fd/{os.open(OWN_PATH, os.O_RDONLY)}"


async def main(ipv4: str | None, text: str, program: list[str]) -> int:
    """Return the program's exit status; ``ipv4`` is the namespace that has IPv4."""
    servers = f"/proc/{os.getppid()}/ns/net"
    route = meshfd.parse_route(text)
    assert isinstance(route.verdict, meshfd.Redirect)
    away = meshfd.Redirect(replace(route.verdict.upstream, netns=servers))
    async with meshfd.spawn(
        program, routes=[replace(route, verdict=away)], ipv4_netns=ipv4
    ) as running:
        return await running.wait()


if __name__ == "__main__":
    kind, destination, _, *words = sys.argv[1:]
    namespace = open_ipv4() if kind == "ipv4" else None
    enter_private_network()
    sys.exit(trio.run(main, namespace, destination, words))
