"""The command `meshfd`: words in, exit status out.

Theory of operation: `main` looks at the command's name first and imports only what that command
needs, because `meshfd exec` stands in front of other programs and must start fast. Results go to
standard output, everything else to standard error. A `MeshfdError` is one line and its own exit
status; with --debug in front of the command it is a traceback.
"""

# ruff: noqa: PLC0415 -- each command imports only what it needs

from __future__ import annotations

import gc
import os
import sys

from meshfd.errors import MeshfdError
from meshfd.standard_files import fill_standard_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import Any, TextIO

INTERRUPTED = 130
# sysexits and shells alike take this for a command line that makes no sense.
USAGE_STATUS = 2


def main(words: list[str] | None = None) -> int:
    """Run the command line (by default the process's own); the exit status."""
    fill_standard_files()
    words = _own_words() if words is None else words
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    debug = words[:1] == ["--debug"]
    if debug:
        words = words[1:]
    try:
        return _carry_out(words, debug=debug)
    except MeshfdError as error:
        if debug:
            raise
        for line in str(error).splitlines():
            sys.stderr.write(f"meshfd: {line}\n")
        return _exec_status(error) if words[:1] == ["exec"] else error.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # nobody reads our output
        return 1


def _nowhere() -> TextIO:
    """What stands in for a standard file that was closed when we were started."""
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123


def _carry_out(words: list[str], *, debug: bool) -> int:
    """Do what the words say, and see to it that the result is written.

    Raises:
        MeshfdError: it cannot be done, or the result not be written.
        BrokenPipeError: whoever was to read the result has gone.

    """
    try:
        return _exec(words[1:]) if words[:1] == ["exec"] else _dispatch(words, debug=debug)
    finally:
        _say("")


def _say(text: str) -> None:
    """Write to standard output, now."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # Keep the interpreter from trying again at its end.
        null_fd = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_fd, sys.stdout.fileno())
        os.close(null_fd)
        if isinstance(error, BrokenPipeError):
            raise
        message = f"cannot write to standard output: {error.strerror}"
        raise MeshfdError(message) from error


def _own_words() -> list[str]:
    """What the process was started with; signals that `run` takes when it is up are held back."""
    words = sys.argv[1:]
    if "run" in words[:2]:
        _hold_signals()
    return words


def _hold_signals() -> None:
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))


def _exec(words: list[str]) -> int:
    gc.disable()  # while we import it would be run often, and find nothing
    from meshfd.exec_options import USAGE, parse_exec_options
    from meshfd.features import features_of
    from meshfd.foreground import run

    gc.freeze()  # what is here now stays to the end, and need not be looked through then
    gc.enable()
    options = parse_exec_options(words)
    if options.help:
        _say(USAGE)
        return 0
    return run(
        routes=tuple(options.routes),
        listen=tuple(options.listen),
        features=features_of(
            options.routes,
            strict=options.strict,
            track=options.track,
            transparent=options.transparent,
            io_uring=options.io_uring,
        ),
        log=options.log,
        argv=options.command,
    )


def _exec_status(error: MeshfdError) -> int:
    from meshfd.foreground import exit_status_of

    return exit_status_of(error)


def _dispatch(words: list[str], *, debug: bool) -> int:
    import signal

    from meshfd.cli_options import build_parser

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would hide our children's ends
    parser = build_parser()
    options = parser.parse_args(words)
    options.debug = debug
    if options.command is None:
        parser.print_help(sys.stderr)
        return USAGE_STATUS
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "run": _run,
        "check": _check,
        "status": _status,
        "doctor": _doctor,
    }
    return commands.get(options.command, _control)(options)


def _run(options: argparse.Namespace) -> int:
    from meshfd.config import load_configuration
    from meshfd.logs import logging_to
    from meshfd.runtime_dir import claim_runtime_directory, runtime_directory
    from meshfd.supervisor import supervise

    directory = runtime_directory(os.environ, os.geteuid())
    with (
        claim_runtime_directory(directory) as control,
        logging_to(2, options.log_format, debug=options.debug),
    ):
        return supervise(lambda: load_configuration(options.config), control)


def _check(options: argparse.Namespace) -> int:
    from meshfd.config import load_configuration
    from meshfd.errors import ConfigError

    try:
        load_configuration(options.config)
    except ConfigError as error:
        # Without our name in front, so that editors and CI find the file and line.
        sys.stderr.write("".join(f"{fault}\n" for fault in error.faults))
        return error.exit_status
    return 0


def _status(options: argparse.Namespace) -> int:
    import json

    from meshfd.table import format_connections, format_status

    command, to_text = (
        ("connections", format_connections) if options.connections else ("status", format_status)
    )
    status = _ask(command, [])
    text = json.dumps(status, indent=2) if options.json else to_text(status)
    _say(f"{text}\n")
    return 0


def _control(options: argparse.Namespace) -> int:
    result = _ask(options.command, options.names)
    if options.command == "reload":
        done = [f"{verb}: {', '.join(names)}" for verb, names in result.items() if names]
        _say("".join(f"{line}\n" for line in done))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    import json

    from meshfd.doctor import examine, format_findings, report_findings

    findings = examine()
    if options.json:
        _say(json.dumps(report_findings(findings), indent=2) + "\n")
    else:
        _say(format_findings(findings) + "\n")
    return 0 if all(one.present for one in findings if one.needed) else 1


def _ask(command: str, names: list[str]) -> dict[str, Any]:
    from meshfd.client import ask
    from meshfd.protocol import Request

    return ask(Request(command, tuple(names)))
