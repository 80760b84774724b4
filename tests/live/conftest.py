"""Fixtures for tests on the real kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.netns import open_named


@pytest.fixture
def named() -> Iterator[str]:
    """Make a namespace by name, with its loopback interface up."""
    with open_named() as name:
        yield name
