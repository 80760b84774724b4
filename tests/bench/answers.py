"""A probe's answer: it comes in time, or it is an error that says who owes it."""

from __future__ import annotations

import json
import select
from typing import IO, Any, Final

from tests.bench.errors import BenchError
from tests.bench.metrics import Sample

_MS_PER_S: Final = 1000


def read_answer(pipe: IO[Any], asked: str, timeout_s: float) -> Sample:
    """Read the line that is next in a pipe, which has nothing buffered; ``asked``: whom for what.

    Raises:
        BenchError: the pipe's writers have ended, or took too long.

    """
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    if not poll.poll(timeout_s * _MS_PER_S):
        raise BenchError(f"{asked}: no answer within {timeout_s:.0f} s")
    line = pipe.readline()
    if not line:
        raise BenchError(f"{asked}: it ended")
    sample: Sample = json.loads(line)
    return sample
