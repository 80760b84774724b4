"""``python -m tests.bench``: measure meshfd against what people would use instead.

Figures of different runs do not compare on a machine that does other things too; the ratios of one
run do. Nothing here judges them. As root it all happens in network namespaces of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from tests.bench.environment import describe
from tests.bench.errors import BenchError, MissingError
from tests.bench.part import Result, Stage
from tests.bench.parts import PARTS
from tests.bench.plot import plot
from tests.bench.programs import build
from tests.bench.report import as_markdown, as_text, document
from tests.support.netns import enter_private_network

EXIT_MISSING = 2
EXIT_SIGNAL = 128  # and its number: blocks are left, and with them all that we started


def positive(text: str) -> int:
    """Read a number of rounds.

    Raises:
        ValueError: it is none.

    """
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def writable_directory(text: str) -> Path:
    """Make a directory, if it is not there, and try to write into it before all the work.

    Raises:
        argparse.ArgumentTypeError: that is not possible.

    """
    directory = Path(text)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from error
    return directory


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"default: all of {', '.join(PARTS)}"
    )
    parser.add_argument("--quick", action="store_true", help="only see that it works")
    parser.add_argument("--rounds", type=positive, help="how often each subject is measured")
    parser.add_argument(
        "--output",
        type=writable_directory,
        metavar="DIR",
        help="write bench.json, .md, .png and .svg there",
    )
    parser.add_argument(
        "--complete", action="store_true", help="exit with 2 if something had to be left out"
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.parts if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    return arguments


def enter_network() -> None:
    """Have a network of our own.

    Raises:
        BenchError: we may not, though we are root.

    """
    try:
        enter_private_network()
    except OSError as error:
        raise BenchError(
            f"{error.strerror}; run it as another user, or with CAP_SYS_ADMIN"
        ) from error


def measure(arguments: argparse.Namespace) -> list[Result]:
    """Run the parts that were asked for; each table is printed as soon as it is complete."""
    results = []
    with tempfile.TemporaryDirectory(prefix="meshfd-bench-") as name:
        build(Path(name))
        for part in PARTS.values():
            if not arguments.parts or part.name in arguments.parts:
                results.append(part.run(Stage(Path(name), arguments.quick), arguments.rounds))
                print(as_text(results[-1]), flush=True)
    return results


def write(results: list[Result], directory: Path, *, is_quick: bool) -> bool:
    """Write the document, the tables and the plot; whether there was all that it takes."""
    environment = describe(is_quick=is_quick)
    text = json.dumps(document(results, environment), indent=1)
    (directory / "bench.json").write_text(f"{text}\n")
    (directory / "bench.md").write_text(as_markdown(results, environment))
    try:
        plot(results, directory)
    except MissingError as why:
        print(f"left out: the plot: {why}")
        return False
    return True


def main() -> int:
    """Return the exit status: 1 when something could not be built or run."""
    arguments = parse_arguments()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each start of meshfd compiles it anew
    for signo in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signo) != signal.SIG_IGN:  # nohup(1)
            signal.signal(signo, lambda signo, _: sys.exit(EXIT_SIGNAL + signo))
    try:
        if os.geteuid() == 0:
            enter_network()
        results = measure(arguments)
    except (BenchError, MissingError, pytest.skip.Exception, pytest.fail.Exception) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    is_complete = not any(result.missing for result in results)
    if arguments.output:
        is_complete &= write(results, arguments.output, is_quick=arguments.quick)
    return EXIT_MISSING if arguments.complete and not is_complete else 0


if __name__ == "__main__":
    sys.exit(main())
