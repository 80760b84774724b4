"""What a subject needs; without it the subject is left out, and the text says why."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from tests.bench.errors import MissingError
from tests.support.need import find_tool


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
