"""proxychains4: a library that is loaded before the C library and replaces connect().

Theory of operation: its option `dnat` gives a destination another address, but only on the way to
a proxy: what it connects directly (`localnet`) goes to the old address. So there is a SOCKS5
server, microsocks, which makes the connection; it has a thread for each and carries the data. It
says a line about each, which an option of its newer versions (-q) prevents; that of others goes to
/dev/null, with all else that it says.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.bench.part import Stage
from tests.bench.peers.daemon import running
from tests.bench.peers.need import tool
from tests.bench.peers.place import HERE
from tests.bench.programs import SERVER_ADDRESS, VIRTUAL_ADDRESS
from tests.bench.ways import Way

PROXYCHAINS: Final = "proxychains4 + microsocks"
CONFIGURATION: Final = """\
strict_chain
quiet_mode
dnat {virtual}:{port} {server}:{port}
[ProxyList]
socks5 {server} {proxy_port}
"""


def quiet(microsocks: str) -> list[str]:
    """Return the option that has it say nothing, if its usage knows one."""
    asked = subprocess.run([microsocks, "-h"], capture_output=True, text=True, check=False)
    return ["-q"] if "option -q" in asked.stdout + asked.stderr else []


@contextlib.contextmanager
def redirected(stage: Stage, port: int) -> Iterator[Way]:
    """Redirect connections to the virtual address.

    Raises:
        MissingError: proxychains4 or microsocks is not installed.

    """
    proxychains = tool("proxychains4", "proxychains4")
    microsocks = tool("microsocks", "microsocks")
    proxy_port = HERE.free_port()
    configuration = stage.directory / f"proxychains-{proxy_port}.conf"
    configuration.write_text(
        CONFIGURATION.format(
            virtual=VIRTUAL_ADDRESS, server=SERVER_ADDRESS, port=port, proxy_port=proxy_port
        )
    )
    command = [microsocks, *quiet(microsocks), "-i", SERVER_ADDRESS, "-p", str(proxy_port)]
    with running(command, Path(os.devnull), lambda: HERE.serves(proxy_port)) as pid:
        prefix = (proxychains, "-q", "-f", str(configuration))
        yield Way(prefix, VIRTUAL_ADDRESS, port, (pid,))
