"""PostgreSQL and a client of it as two services of one configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.support.clients import way_to
from tests.support.command import VIRTUAL, Meshfd
from tests.support.postgres import Cluster, tool
from tests.support.processes import Processes
from tests.support.servers import free_port
from tests.support.services import HOST, Mode, Service, Services

# The server listens before it has looked through its files, and turns clients away until then.
CLIENT_TOML: Final = """\
depends_on = ["d"]
restart = "on-failure"
backoff = "20ms"
on_exit = "stop-all"
"""


def test_two_services(
    mode: Mode, meshfd: Meshfd, processes: Processes, tmp_path: Path, cluster: Cluster
) -> None:
    """The client, started again until the server takes it, is served; meshfd ends as it does."""
    meshfd.need()
    port = free_port()
    client = [tool("pgbench"), "-i", cluster.place(way_to(port))]
    routes = f'routes = {{ "{VIRTUAL}" = "{HOST}:{port}" }}'
    services = Services(mode, processes, tmp_path)
    running = services.run(
        Service("d", cluster.command(port), mode, (port,), cluster.toml),
        Service("client", client, mode, toml=CLIENT_TOML + routes),
    )
    assert running.wait() == 0, running.errors() + services.log("client") + services.log()
    assert "done in " in services.log("client")
    assert "database system is shut down" in services.log()
