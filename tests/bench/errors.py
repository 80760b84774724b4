"""What ends a benchmark."""

from __future__ import annotations


class BenchError(Exception):
    """A program of the benchmark could not be built or run; the text says which and why."""
