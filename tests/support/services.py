"""Daemons as services of `meshfd run`, handed their listening sockets, for the tests of peers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.command import COMMAND, Word, without_proxies
from tests.support.processes import Processes, Program
from tests.support.servers import is_listening
from tests.support.waiting import wait_until

HOST: Final = "127.0.0.1"
HOST_ON_IPV6: Final = "[::ffff:127.0.0.1]"  # what a daemon binds that has IPv6 sockets alone
NAME: Final = "d"  # of a daemon that is served alone


@dataclass(frozen=True, slots=True)
class Mode:
    """How meshfd runs daemons and clients; ``key``: what turns it on."""

    name: str
    key: str = ""

    def __str__(self) -> str:
        return self.name

    @property
    def options(self) -> tuple[str, ...]:
        """What `meshfd exec` is told."""
        return (f"--{self.key}",) if self.key else ()

    @property
    def toml(self) -> str:
        """What a service is told."""
        return f"{self.key} = true" if self.key else ""


REDIRECT: Final = Mode("redirect")
TRANSPARENT: Final = Mode("transparent", "transparent")
STRICT: Final = Mode("strict", "strict")
MODES: Final = (REDIRECT, TRANSPARENT, STRICT)


@dataclass(frozen=True, slots=True)
class Service:
    """A service in a configuration; it binds ``ports`` of ``host``.

    ``toml``: whatever else it is told. JSON's strings, and lists of them, are TOML's, too.
    """

    name: str
    command: Sequence[Word]
    mode: Mode
    ports: tuple[int, ...] = ()
    toml: str = ""
    host: str = HOST

    def written(self) -> str:
        """Return its tables."""
        lines = [
            f"[service.{self.name}]",
            f"command = {json.dumps([os.fspath(word) for word in self.command])}",
            f'ready = "{"listen" if self.ports else "exec"}"',
            f'log = "{self.name}.log"',
            self.mode.toml,
            self.toml,
        ]
        for port in self.ports:
            lines += [f"[[service.{self.name}.listen]]", f'address = "{self.host}:{port}"']
        return "\n".join(lines) + "\n"


class Services:
    """What `meshfd run` runs, in one mode; configuration and logs are in ``directory``."""

    def __init__(self, mode: Mode, processes: Processes, directory: Path) -> None:
        """Start nothing yet."""
        self.mode = mode
        self.directory = directory
        self._processes = processes
        self._environment = without_proxies() | {"XDG_RUNTIME_DIR": str(directory)}
        self._n_read = 0

    def run(self, *services: Service) -> Program:
        """Start `meshfd run`; returns once their sockets are open, which is before they run.

        Where a client among them ends it all, that may be over by then.
        """
        configuration = self.directory / "services.toml"
        configuration.write_text("\n".join(service.written() for service in services))
        running = self._processes.start(
            [*COMMAND, "run", str(configuration)], env=self._environment, stdout=None
        )
        ports = [port for service in services for port in service.ports]

        def are_open() -> bool:
            code = running.popen.poll()
            if code not in {None, 0}:
                running.give_up("meshfd run has ended")
            return code == 0 or all(is_listening(port) for port in ports)

        wait_until(are_open, "the listening sockets")
        return running

    @contextlib.contextmanager
    def serving(
        self, command: Sequence[Word], *ports: int, toml: str = "", host: str = HOST
    ) -> Iterator[None]:
        """Run one daemon; when the block ends well it had its sockets, and leaves nothing."""
        running = self.run(Service(NAME, command, self.mode, ports, toml, host))
        yield
        assert all(self._handed()), self.log()
        running.signal(signal.SIGTERM)
        assert running.wait() == 0, running.errors()
        wait_until(lambda: not self._processes.running(), "the end of the daemon")
        self._log_of(NAME).unlink()
        self._n_read = 0

    def log(self, name: str = NAME) -> str:
        """Return what a service has said; the daemon alone, only since `forget_log`."""
        where = self._log_of(name)
        said = where.read_text(errors="replace") if where.exists() else ""
        return said[self._n_read :] if name == NAME else said

    def forget_log(self) -> None:
        """Begin anew to look at what the daemon says."""
        self._n_read += len(self.log())

    def _log_of(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def _handed(self) -> list[int]:
        """Return how often each of the daemon's listening sockets has been handed over."""
        done = self._processes.run([*COMMAND, "status", "--json"], env=self._environment)
        assert done.code == 0, done.err
        listening = json.loads(done.out)["services"][0]["listening"]
        return [int(one["handed"]) for one in listening]
