"""Fixtures for all tests, and the network that root's tests run in.

MESHFD_REQUIRE_LIVE=1  what is missing fails instead of skipping
MESHFD_QUICK=1         fewer rounds where a test repeats itself
MESHFD_TEST_BARE=1     programs run without meshfd (see tests/support/command.py)
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from meshfd.config import load_configuration
from meshfd.errors import ConfigError
from meshfd.model import Configuration
from tests.support.builds import Builds
from tests.support.command import Meshfd, find_meshfd
from tests.support.configured import Faults, Load
from tests.support.netns import enter_private_network
from tests.support.processes import Processes, adopt_orphans
from tests.support.programs import Programs
from tests.support.servers import Greeter, HttpServer, SilentServer

# No test judges by a clock: not how long an example takes, nor how long it takes to make one. In CI
# every run tries the same examples; elsewhere they vary, and what fails is remembered.
settings.register_profile(
    "meshfd",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
)
settings.load_profile("meshfd")


def take_signals() -> None:
    """Undo what started us in the background with signals ignored: programs would inherit that."""
    for signo in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(signo) is signal.SIG_IGN:
            signal.signal(
                signo, signal.default_int_handler if signo == signal.SIGINT else signal.SIG_DFL
            )


def pytest_configure(config: pytest.Config) -> None:
    """Isolate the run: for root in a network of its own; orphans stay below this process."""
    take_signals()
    adopt_orphans()
    if os.geteuid() == 0:
        enter_private_network()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their directory."""
    for item in items:
        directory = item.path.parent.name
        if directory in {"live", "peers"}:
            item.add_marker(directory)


@pytest.fixture(scope="session")
def quick() -> bool:
    """Whether fewer rounds will do."""
    return os.environ.get("MESHFD_QUICK") == "1"


@pytest.fixture(scope="session")
def meshfd() -> Meshfd:
    """Return the meshfd command."""
    return find_meshfd()


@pytest.fixture(scope="session")
def program() -> Iterator[Programs]:
    """Return the builder of C test programs: ``program("dial")``."""
    with tempfile.TemporaryDirectory(prefix="meshfd-programs-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # some tests run them as another user
        yield Programs(directory)


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Builds:
    """Return the builder of Go and Java peers."""
    return Builds(tmp_path_factory.mktemp("builds"))


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Start programs; none of them outlives the test."""
    started = Processes(tmp_path)
    yield started
    started.end()


@pytest.fixture
def greeter() -> Iterator[Greeter]:
    """Return a server that says hello."""
    with Greeter() as server:
        yield server


@pytest.fixture
def silent() -> Iterator[SilentServer]:
    """Return a server that does not answer before it is told to."""
    with SilentServer() as server:
        yield server


@pytest.fixture
def http_server() -> Iterator[HttpServer]:
    """Return an HTTP server."""
    with HttpServer() as server:
        yield server


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load texts as files a.toml, b.toml, ... of the folder that is the working directory."""
    monkeypatch.chdir(tmp_path)

    def load_texts(*texts: str) -> Configuration:
        files = [Path(f"{chr(ord('a') + n)}.toml") for n in range(len(texts))]
        for file, text in zip(files, texts, strict=True):
            file.write_text(text, encoding="utf-8")
        return load_configuration(files)

    return load_texts


@pytest.fixture
def faults(load: Load) -> Faults:
    """The faults of texts, as lines."""

    def load_faults(*texts: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(*texts)
        assert str(caught.value) == "\n".join(str(fault) for fault in caught.value.faults)
        return [str(fault) for fault in caught.value.faults]

    return load_faults
