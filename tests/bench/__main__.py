"""``python -m tests.bench``: print what meshfd costs.

Figures of different runs do not compare on a machine that does other things too; the ratios of one
run do. Nothing here judges them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.bench.errors import BenchError
from tests.bench.report import document, table
from tests.bench.rounds import (
    DEFAULT_MODES,
    FULL,
    MODES,
    QUICK,
    build,
    cgroups,
    run_rounds,
    serve,
)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only see that it works")
    parser.add_argument("--rounds", type=int, help=f"default {FULL.rounds}, quick {QUICK.rounds}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument(
        "--mode",
        action="append",
        choices=MODES,
        dest="modes",
        help=f"measure this mode (repeat it; default: {', '.join(DEFAULT_MODES)})",
    )
    return parser.parse_args()


def main() -> int:
    """Return the exit status: 1 when a program could not be built or run."""
    arguments = parse_arguments()
    modes = [mode for mode in MODES if mode in (arguments.modes or DEFAULT_MODES)]
    effort = QUICK if arguments.quick else FULL
    if arguments.rounds:
        effort = replace(effort, rounds=max(1, arguments.rounds))
    rounds = []
    try:
        with tempfile.TemporaryDirectory(prefix="meshfd-bench-") as name:
            directory = Path(name)
            build(directory)
            with serve(directory) as port, cgroups(modes) as places:
                for samples in run_rounds(modes, effort, directory, port, places):
                    rounds.append(samples)
                    print(f"\rround {len(rounds)} of {effort.rounds}", end="", file=sys.stderr)
            print(file=sys.stderr)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(table(rounds, modes))
    if arguments.json:
        arguments.json.write_text(json.dumps(document(rounds, modes), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
