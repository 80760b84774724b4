"""PostgreSQL: a cluster that is made once a run, and served by one server at a time.

PostgreSQL refuses to be root: it is "nobody" then.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.certificates import Certificate
from tests.support.command import Way
from tests.support.need import require
from tests.support.ordinary_user import NOBODY, as_nobody
from tests.support.services import HOST

BINARIES: Final = Path("/usr/lib/postgresql")  # Debian keeps each version's below
USER: Final = "tester"  # of the database

CONFIGURATION: Final = """
listen_addresses = '{host}'
unix_socket_directories = ''
fsync = off
shared_buffers = '16MB'
max_connections = 40
autovacuum = off
log_statement = 'all'
ssl = on
ssl_cert_file = '{cert}'
ssl_key_file = '{key}'
"""


def tool(name: str) -> str:
    """Return the path of one of PostgreSQL's programs, of its newest version."""
    found = sorted(BINARIES.glob(f"*/bin/{name}"))
    require(found, f"PostgreSQL's {name} is not installed")
    return str(found[-1])


@dataclass(frozen=True, slots=True)
class Cluster:
    """A database cluster in ``data``."""

    data: Path
    certificate: Certificate

    def command(self, port: int) -> list[str]:
        """Return what serves it."""
        return [tool("postgres"), "-D", str(self.data), "-c", f"port={port}"]

    @property
    def toml(self) -> str:
        """What the service is told: INT ends all sessions, where TERM waits for them."""
        user = f'user = "{NOBODY}"\ngroup = "{NOBODY}"\n' if os.geteuid() == 0 else ""
        return f'{user}stop_signal = "INT"'

    def place(self, way: Way) -> str:
        """Return the database as its clients name it; they verify the server's address."""
        return (
            f"host={way.host} port={way.port} user={USER} dbname=postgres"
            f" sslmode=verify-full sslrootcert={self.certificate.cert}"
        )


def make_data(directory: Path) -> Path:
    """Make a cluster's data in a directory of the server's user; who comes is trusted."""
    data = directory / "cluster"
    command = [tool("initdb"), "-D", str(data), "-A", "trust", "-U", USER, "-E", "UTF8"]
    command += ["--locale=C", "--no-sync", "--no-instructions", "--wal-segsize=1"]
    done = subprocess.run(
        as_nobody(command), capture_output=True, text=True, check=False, cwd=directory
    )
    assert done.returncode == 0, done.stderr
    return data


def make_cluster(directory: Path, certificate: Certificate) -> Cluster:
    """Make a cluster in a directory of the server's user."""
    made = Cluster(make_data(directory), certificate)
    key = certificate.copy_key(made.data, NOBODY if os.geteuid() == 0 else None)
    with (made.data / "postgresql.conf").open("a") as configuration:
        configuration.write(CONFIGURATION.format(host=HOST, cert=certificate.cert, key=key))
    return made
