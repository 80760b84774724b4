"""A service without IPv4, a namespace that has it, and a server that both lead to.

    service  --IPv6-->  here  <--IPv4--  egress

"Here" is the network that root's tests run in; see `tests.support.netns`.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.support.configured import toml_command
from tests.support.need import require_tool
from tests.support.netns import open_named

SERVER4: Final = "10.66.4.1"  # here, reached from egress
EGRESS4: Final = "10.66.4.2"
SERVER6: Final = "fd66:4::1"  # here, reached from the service
SERVICE6: Final = "fd66:4::2"
_LINKS: Final = (
    # interface here, namespace, address here, address there
    ("mfdegress", "egress", f"{SERVER4}/24", f"{EGRESS4}/24"),
    ("mfdservice", "service", f"{SERVER6}/64", f"{SERVICE6}/64"),
)


@dataclass(frozen=True, slots=True)
class Transition:
    """Names of the namespaces, as ip-netns(8) has them."""

    service: str
    egress: str

    def configuration(self, command: list[str], more: str = "", *, name: str = "legacy") -> str:
        """Return a service that lives without IPv4; ``more``: its further keys and tables."""
        return (
            f'[service.{name}]\n{toml_command(command)}netns = "{self.service}"\n'
            f'transition = {{ ipv4_netns = "{self.egress}" }}\n{more}\n'
        )


@contextlib.contextmanager
def open_transition() -> Iterator[Transition]:
    """Make the namespaces and the links, for as long as the block lasts."""
    ip = require_tool("ip")

    def run(*words: str) -> None:
        subprocess.run([ip, *words], check=True)

    with open_named() as service, open_named() as egress, contextlib.ExitStack() as links:
        names = {"service": service, "egress": egress}
        for here, where, our_address, their_address in _LINKS:
            there = names[where]
            run("link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", there)
            links.callback(run, "link", "delete", here)
            nodad = ("nodad",) if ":" in our_address else ()
            run("address", "add", our_address, "dev", here, *nodad)
            run("link", "set", here, "up")
            run("-n", there, "address", "add", their_address, "dev", "eth0", *nodad)
            run("-n", there, "link", "set", "eth0", "up")
        yield Transition(service, egress)
