"""What is measured: a module for each part."""

from __future__ import annotations

from typing import Final

from tests.bench.parts import (
    applications,
    belonging,
    connect,
    datagrams,
    lives,
    memory,
    path,
    scale,
    start,
    untouched,
)

PARTS: Final = {
    one.PART.name: one.PART
    for one in (
        connect,
        scale,
        path,
        untouched,
        memory,
        start,
        applications,
        datagrams,
        belonging,
        lives,
    )
}
