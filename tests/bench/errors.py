"""What can go wrong in a benchmark."""

from __future__ import annotations


class BenchError(Exception):
    """Something that belongs to the benchmark itself could not be built or run."""


class MissingError(Exception):
    """What one subject needs is not here; it is left out, and the text says why."""
