"""The command line of every command but `exec`, which has `meshfd.exec_options`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from meshfd.exec_options import USAGE

_DESCRIPTION = """\
Redirect the connections of unmodified programs, and hand them listening sockets that were opened
before they started. In the data path there is nothing.
"""

_EPILOG = """\
meshfd exec --help and the like say more. --debug before the command shows tracebacks and logs more.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser; ``command`` is None when none was given."""
    parser = argparse.ArgumentParser(
        prog="meshfd",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _add_exec(commands)

    run = _add(commands, "run", "run the services of these files until they or you end it")
    run.add_argument("config", nargs="+", type=Path, metavar="CONFIG")
    run.add_argument("--log-format", choices=["human", "json"], default="human")

    check = _add(
        commands, "check", "read these files; exit 1 and one line per fault if there are any"
    )
    check.add_argument("config", nargs="+", type=Path, metavar="CONFIG")

    status = _add(commands, "status", "services, their sockets and where their connections went")
    status.add_argument("--json", action="store_true", help="for scripts; fields are a promise")
    status.add_argument(
        "--connections",
        action="store_true",
        help="the sockets that are open now, and whose they are",
    )

    for name, text in (
        ("start", "start services and what they depend on; return when they are ready"),
        ("stop", "stop services; return when they are gone"),
        ("restart", "stop and start services; return when they are ready"),
        ("reload", "read the files again and apply what changed, for all services or the named"),
    ):
        command = _add(commands, name, text)
        command.add_argument("names", nargs="*", metavar="NAME", help="a service; none: all")

    doctor = _add(
        commands, "doctor", "what this kernel and user allow, and what is lost without it"
    )
    doctor.add_argument("--json", action="store_true", help="for scripts")
    return parser


class _Version(argparse.Action):
    """Look the version up only when it is asked for: that reads the installation's files."""

    def __init__(self, option_strings: list[str], dest: str, **_: object) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import (  # noqa: PLC0415 -- slow, and hardly ever asked for
            PackageNotFoundError,
            version,
        )

        try:
            number = version("meshfd")
        except PackageNotFoundError:
            number = "(not installed)"
        sys.stdout.write(f"meshfd {number}\n")
        parser.exit(0)


_Commands = argparse._SubParsersAction  # noqa: SLF001 -- argparse gives it no public name


def _add(
    commands: _Commands[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=text, description=text, allow_abbrev=False)


def _add_exec(commands: _Commands[argparse.ArgumentParser]) -> None:
    """For the list of commands only: `meshfd.cli.main` reads its options without this parser."""
    text = "run one command with routes and listening sockets"
    commands.add_parser("exec", help=text, usage=USAGE, add_help=False)
