"""A load: a real server, and what its own benchmark measures of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.metrics import Metric, Sample
from tests.bench.part import Stage
from tests.bench.peers.daemon import running
from tests.bench.peers.need import tool
from tests.bench.peers.place import Place
from tests.bench.ways import Way
from tests.support.daemons import Daemon

# The server's port. It raises MissingError when the server or its benchmark is not installed.
Serve = Callable[[Stage, Place], AbstractContextManager[int]]
Ask = Callable[[Stage, Way], Sample]


@dataclass(frozen=True, slots=True)
class Load:
    """``serve`` runs the server in a place; each of ``asks`` measures it by a way."""

    name: str
    serve: Serve
    asks: Sequence[Ask]
    metrics: Sequence[Metric]


def serving(make: Callable[[int, Path, None], Daemon], needed: Mapping[str, str]) -> Serve:
    """Have one of the tests' daemons (tests/support/daemons.py) serve.

    ``needed``: programs, and Debian's package of each.
    """

    @contextmanager
    def serve(stage: Stage, place: Place) -> Iterator[int]:
        for program, package in needed.items():
            tool(program, package)
        port = place.free_port()
        with TemporaryDirectory(dir=stage.directory) as name:
            daemon = make(port, Path(name), None)
            command = [*place.prefix, *daemon.command]
            with running(command, Path(name, "said"), lambda: place.serves(port)):
                yield port

    return serve
