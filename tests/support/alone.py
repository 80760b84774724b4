"""Run a program in a network namespace of its own, with nothing but the loopback device in it.

What runs beside it can take no port from it, and nothing that it sends leaves the machine. An
ordinary user makes a user namespace for that, in which the program keeps the user's number and has
no privilege, as outside.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from functools import cache

from tests.support.need import require, require_tool

_UP = 'ip link set lo up && exec "$@"'
_WITHOUT_PRIVILEGES = ("setpriv", "--inh-caps=-all", "--ambient-caps=-all", "--")


@cache
def _prefix() -> tuple[str, ...]:
    for tool in ("ip", "setpriv"):
        require_tool(tool)
    unshare = require_tool("unshare")
    shell = ("--net", "--", "sh", "-c", _UP, "sh")
    if os.geteuid() == 0:
        return (unshare, *shell)
    return (unshare, "--user", "--map-current-user", "--keep-caps", *shell, *_WITHOUT_PRIVILEGES)


def alone(command: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return a command line that runs ``command`` so."""
    return [*_prefix(), *(os.fspath(word) for word in command)]


def need_alone() -> None:
    """Skip where such a namespace cannot be made."""
    trial = subprocess.run(alone(["true"]), capture_output=True, text=True, check=False)
    require(trial.returncode == 0, f"no network namespace can be made: {trial.stderr.strip()}")
