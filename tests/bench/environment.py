"""Where and of what a document's figures are."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from tests.support.need import find_tool

PEERS: Final = {  # what prints a version, on either output
    "envoy": ("--version",),
    "haproxy": ("-v",),
    "iptables": ("--version",),
    "microsocks": ("-h",),
    "nginx": ("-v",),
    "pgbench": ("--version",),
    "redis-server": ("--version",),
    "wrk": ("-v",),
}


def describe(*, is_quick: bool) -> dict[str, Any]:
    """Machine, kernel, versions, and whether the run was a quick one."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "is_quick": is_quick,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "meshfd": version("meshfd"),
        "peers": {name: _version(name, *words) for name, words in PEERS.items()},
    }


def _cpu() -> str | None:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return None


def _version(name: str, *words: str) -> str | None:
    """The first line that it says; None: it is not here."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else find_tool(name)
    if found is None:
        return None
    done = subprocess.run(
        [found, *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].replace(found, name).strip() if lines else None  # some print their path
