"""What a subject needs; without it the subject is left out, and the text says why."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from typing import Final

import pytest

from tests.bench.errors import MissingError
from tests.support.need import find_tool

FDS_OF_ITS_OWN: Final = 64


def need_root() -> None:
    """Need to be root.

    Raises:
        MissingError: who runs the benchmark is not.

    """
    if os.geteuid() != 0:
        raise MissingError("needs root")


def tool(name: str, package: str) -> str:
    """Return the path of a program; ``package``: Debian's, which has it.

    Raises:
        MissingError: it is not installed.

    """
    found = find_tool(name)
    if found is None:
        raise MissingError(f"{name} is not installed (Debian: {package})")
    return found


def need_fds(n: int) -> None:
    """Need that a program can have so many fds open, besides a few of its own.

    Raises:
        MissingError: the hard limit, to which our programs raise theirs, is lower.

    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < n + FDS_OF_ITS_OWN:
        raise MissingError(f"needs {n:,} fds, and the hard limit is {hard:,} (ulimit -Hn)")


@contextlib.contextmanager
def skips_as_missing() -> Iterator[None]:
    """What skips a test, or fails it where everything is required, leaves a subject out.

    Raises:
        MissingError: with the same reason.

    """
    try:
        yield
    except (pytest.skip.Exception, pytest.fail.Exception) as why:
        raise MissingError(str(why)) from why
