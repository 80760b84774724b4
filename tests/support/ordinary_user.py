"""Run a program as an ordinary user, whoever runs the tests.

When root runs them, the user is "nobody", who keeps one right of root's: to read everywhere,
because Python itself may be installed where nobody else may go.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tests.support.need import require_tool

NOBODY = 65534  # user and group, by convention of every distribution
READ_EVERYWHERE = "-all,+dac_read_search"


def as_nobody(command: Sequence[str]) -> list[str]:
    """Return a command line that runs ``command`` so, without even that right."""
    if os.geteuid() != 0:
        return list(command)
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return [require_tool("setpriv"), *user, "--", *command]


def as_ordinary_user(command: Sequence[str]) -> list[str]:
    """Return a command line that runs ``command`` so."""
    if os.geteuid() != 0:
        return list(command)
    return [
        require_tool("setpriv"),
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        f"--inh-caps={READ_EVERYWHERE}",
        f"--ambient-caps={READ_EVERYWHERE}",
        "--",
        *command,
    ]


def open_to_all(directory: Path) -> Path:
    """Let every user enter one of pytest's directories; return it."""
    for path in (directory, *directory.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/tmp"):
            path.chmod(path.stat().st_mode | 0o055)
    return directory
