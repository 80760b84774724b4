"""Say what a test needs; without it the test is skipped with that reason.

With MESHFD_REQUIRE_LIVE=1 (CI) a missing need is a failure. Two things are no fault of the machine
and stay skips: who runs the tests (root or not), and a run without meshfd (MESHFD_TEST_BARE=1).
"""

from __future__ import annotations

import os
import shutil

import pytest

SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def require(present: object, what: str) -> None:
    """Skip, or fail where everything is required, unless ``present`` is true."""
    if present:
        return
    if os.environ.get("MESHFD_REQUIRE_LIVE") == "1":
        pytest.fail(f"{what}, and MESHFD_REQUIRE_LIVE=1 asks for it")
    pytest.skip(what)


def find_tool(name: str) -> str | None:
    """Return the path of a program; daemons are looked for where root's PATH has them, too."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_DIRECTORIES])
    return shutil.which(name, path=path)


def require_tool(name: str) -> str:
    """Return the path of a program that the test needs."""
    found = find_tool(name)
    require(found, f"{name} is not installed")
    assert found is not None
    return found


def require_root() -> None:
    """Skip for an ordinary user."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
