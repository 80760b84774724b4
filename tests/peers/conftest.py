"""Fixtures of the exchanges between real daemons and clients.

A daemon serves all tests of a module that run in one mode; the clients are each test's own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Certificate, make_certificate
from tests.support.clients import Clients
from tests.support.command import Meshfd
from tests.support.ordinary_user import NOBODY
from tests.support.postgres import Cluster, make_cluster
from tests.support.processes import Processes
from tests.support.services import MODES, Mode, Services


@pytest.fixture(scope="module", params=MODES, ids=str)
def mode(request: pytest.FixtureRequest) -> Mode:
    """Return the mode that everything of a test runs in: each in turn."""
    found = request.param
    assert isinstance(found, Mode)
    return found


@pytest.fixture(scope="module")
def services(
    meshfd: Meshfd, mode: Mode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Services]:
    """Return what runs daemons in the mode; nothing of them outlives it."""
    meshfd.need()
    directory = tmp_path_factory.mktemp("services")
    processes = Processes(directory)
    yield Services(mode, processes, directory)
    processes.end()


@pytest.fixture
def clients(meshfd: Meshfd, mode: Mode, services: Services, processes: Processes) -> Clients:
    """Return what runs the test's clients; what the daemon has said before is forgotten."""
    services.forget_log()
    return Clients(meshfd, mode, processes)


@pytest.fixture(scope="session")
def certificate() -> Iterator[Certificate]:
    """Return a server's certificate, which everybody can read."""
    with tempfile.TemporaryDirectory(prefix="meshfd-certificate-") as name:
        Path(name).chmod(0o755)
        made = make_certificate(Path(name))
        for file in (made.key, made.store):
            file.chmod(0o644)
        yield made


@pytest.fixture(scope="session")
def users_directory() -> Iterator[Path]:
    """Return a directory of the ordinary user's: of "nobody" when root runs the tests."""
    with tempfile.TemporaryDirectory(prefix="meshfd-user-") as name:
        if os.geteuid() == 0:
            shutil.chown(name, NOBODY, NOBODY)
        yield Path(name)


@pytest.fixture(scope="session")
def cluster(users_directory: Path, certificate: Certificate) -> Cluster:
    """Return PostgreSQL's cluster, to be served by one server at a time."""
    return make_cluster(users_directory, certificate)
