"""``python -m tests.bench.asking TARGET PROGRAM...``: a Python function decides each connection."""

from __future__ import annotations

import sys

import trio

import meshfd


async def main(text: str, program: list[str]) -> int:
    """Return the program's exit status."""
    target = meshfd.parse_target(text)

    async def decide(_: meshfd.Call) -> meshfd.Verdict:
        return target

    async with meshfd.spawn(program, decide=decide) as running:
        return await running.wait()


if __name__ == "__main__":
    sys.exit(trio.run(main, sys.argv[1], sys.argv[2:]))
