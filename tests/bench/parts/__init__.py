"""What is measured: a module for each part."""

from __future__ import annotations

from typing import Final

from tests.bench.parts import belonging, connect, lives, memory, scale, start, untouched

PARTS: Final = {
    one.PART.name: one.PART for one in (connect, scale, untouched, memory, start, belonging, lives)
}
