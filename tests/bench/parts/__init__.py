"""What is measured: a module for each part."""

from __future__ import annotations

from typing import Final

from tests.bench.parts.applications import APPLICATIONS
from tests.bench.parts.connect import CONNECT
from tests.bench.parts.path import PATH
from tests.bench.parts.untouched import UNTOUCHED

PARTS: Final = {part.name: part for part in (CONNECT, UNTOUCHED, PATH, APPLICATIONS)}
