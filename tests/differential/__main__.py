"""``python -m tests.differential``: compare bare runs with runs under meshfd, for many seeds.

It prints each difference with the smallest sequence that shows it; exit status 1: there was one.
As root it works in a network namespace of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.differential.runs import MODES, RunError
from tests.differential.search import Search
from tests.support.netns import enter_private_network
from tests.support.programs import Programs

BATCH = 1000  # seeds between two lines of progress


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--seeds", type=int, default=BATCH, help=f"how many (default {BATCH})")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="default 0")
    parser.add_argument(
        "--mode",
        action="append",
        choices=MODES,
        dest="modes",
        help="compare this mode (repeat it; default: all)",
    )
    return parser.parse_args()


def main() -> int:
    """Return the exit status."""
    arguments = parse_arguments()
    n_differences = 0
    end = arguments.first + arguments.seeds
    if os.geteuid() == 0:
        enter_private_network()
    with tempfile.TemporaryDirectory(prefix="meshfd-differential-") as name:
        programs = Programs(Path(name))
        for first in range(arguments.first, end, BATCH):
            last = min(first + BATCH, end)
            with Search(programs, range(first, last)) as search:
                for mode in arguments.modes or MODES:
                    try:
                        found = search.differences(MODES[mode])
                    except RunError as error:
                        n_differences += 1
                        print(f"seeds {first} to {last - 1}: {error}")
                        continue
                    n_differences += len(found)
                    for difference in found:
                        print(difference, end="\n\n", flush=True)
            print(f"seeds up to {last - 1}: {n_differences} differences", file=sys.stderr)
    return 1 if n_differences else 0


if __name__ == "__main__":
    sys.exit(main())
