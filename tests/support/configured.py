"""`meshfd run` with a configuration of a test's own, and what its programs report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from meshfd.model import Configuration
from tests.support.command import COMMAND
from tests.support.processes import Processes, Program
from tests.support.waiting import wait_until

Load = Callable[..., Configuration]
"""Reads texts as one configuration: the fixture ``load``."""

Faults = Callable[..., list[str]]
"""Reads texts; their faults, as lines: the fixture ``faults``."""


def toml_command(words: Sequence[str]) -> str:
    """Return the line that has a service's command; lists of JSON's strings are TOML's, too."""
    return f"command = {json.dumps(list(words))}\n"


def start_run(
    processes: Processes, directory: Path, text: str, *, prefix: Sequence[str] = ()
) -> Program:
    """Start ``meshfd run``, its configuration and its control socket in ``directory``.

    ``prefix``: a command that runs it.
    """
    file = directory / "meshfd.toml"
    file.write_text(text)
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(directory)}
    return processes.start([*prefix, *COMMAND, "run", str(file)], env=environment, cwd="/")


def report_of(running: Program, report: Path) -> dict[str, Any]:
    """Return the JSON that a service's program has put there, once it is."""

    def is_there() -> bool:
        has_ended = running.popen.poll() is not None  # before: it may report and end meanwhile
        if not report.exists() and has_ended:
            running.give_up("meshfd run has ended")
        return report.exists()

    wait_until(is_there, "the program's report")
    return dict(json.loads(report.read_text()))


def refused(running: Program) -> str:
    """Return the one line that meshfd says when nothing was started."""
    done = running.finish()
    assert done.code != 0
    (line,) = done.err.splitlines()
    return line
