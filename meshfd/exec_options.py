"""The command line of `meshfd exec`, read by hand.

Why not argparse: its import alone would be a good part of what `meshfd exec` costs, which stands in
front of every program that is run under it. Options end at the first word that is not one, or at
``--``; a value follows as the next word or after ``=``. There are no abbreviations.
"""

from __future__ import annotations

from meshfd.errors import MeshfdError
from meshfd.model import IoUring, Track

TYPE_CHECKING = False  # see meshfd.records
if TYPE_CHECKING:
    import enum
    from typing import TypeVar

    from meshfd.model import ListeningSocket, Route

    Word = TypeVar("Word", bound=enum.Enum)

USAGE = """\
usage: meshfd exec [OPTION]... [--] COMMAND [ARG]...

Run a command with its connections redirected and its listening sockets opened beforehand.

  --route DEST=TARGET     connections to DEST go to TARGET; may be repeated
  --deny DEST             connections to DEST fail with ECONNREFUSED (--route DEST=deny)
  --listen [NAME=]ADDRESS open this listening socket now; the command's bind() to it receives it
  --strict                nothing that the command can change after the decision is used
  --track create|connect  take sockets up when they are created, or at connect() (default)
  --transparent           getpeername() and the like tell the address that was asked for
  --io-uring refuse|allow allow it, and its requests go unseen (default: refuse)
  --log FILE|-            write what was redirected to this file, or to standard error

DEST    ADDR[/PREFIX][:PORT[-PORT]], [IPV6]..., or :PORT for any address; udp:DEST for UDP
TARGET  ADDR:PORT[,ADDR:PORT...], unix:/PATH or unix:@NAME among them, pass, or deny[=ERRNO]

The most specific route wins, then the first given.
Exit status: the command's, 128+N if signal N ended it; 125 meshfd itself failed, 126 the command
cannot be executed, 127 it is not found.

  meshfd exec --route 10.0.0.1:80=127.0.0.1:8080 -- curl http://10.0.0.1/
  meshfd exec --listen 127.0.0.1:6379 -- redis-server
"""

FLAGS = frozenset({"--strict", "--transparent", "-h", "--help"})
VALUED = frozenset({"--route", "--deny", "--listen", "--track", "--io-uring", "--log"})


class ExecUsageError(MeshfdError):
    """The command line of `meshfd exec` is not written as it should be."""

    exit_status = 125


class ExecOptions:
    """What `meshfd exec` was asked for; ``help`` leaves the rest without meaning."""

    def __init__(self) -> None:
        """Nothing was asked for, yet."""
        self.routes: list[Route] = []
        self.listen: list[ListeningSocket] = []
        self.strict = False
        self.track = Track.CONNECT
        self.transparent = False
        self.io_uring = IoUring.REFUSE
        self.log: str | None = None
        self.command: list[str] = []
        self.help = False


def parse_exec_options(words: list[str]) -> ExecOptions:
    """Read what follows ``meshfd exec``.

    Raises:
        ExecUsageError: an option is unknown, or something is missing.
        RouteSyntaxError: a route or address is not written as it should be.

    """
    options = ExecOptions()
    position = 0
    while position < len(words):
        word = words[position]
        if word == "--":
            position += 1
            break
        if not word.startswith("-") or word == "-":
            break
        name, equals, value = word.partition("=")
        position += 1
        if name in VALUED and not equals:
            if position == len(words):
                raise ExecUsageError(f"exec: {name} needs a value")
            value = words[position]
            position += 1
        elif name not in VALUED and (equals or name not in FLAGS):
            raise ExecUsageError(f"exec: unknown option {word}; see meshfd exec --help")
        _take(options, name, value)
        if options.help:
            return options
    options.command = words[position:]
    if not options.command:
        raise ExecUsageError("exec: no command is given; see meshfd exec --help")
    return options


def _take(options: ExecOptions, name: str, value: str) -> None:
    if name in {"--route", "--deny", "--listen"}:
        _take_notation(options, name, value)
    elif name == "--strict":
        options.strict = True
    elif name == "--track":
        options.track = _parse_word(name, value, Track)
    elif name == "--transparent":
        options.transparent = True
    elif name == "--io-uring":
        options.io_uring = _parse_word(name, value, IoUring)
    elif name == "--log":
        options.log = value
    else:
        options.help = True


def _take_notation(options: ExecOptions, name: str, value: str) -> None:
    from meshfd.routes import parse_listen, parse_route  # noqa: PLC0415 -- seldom needed, and slow

    if name == "--listen":
        options.listen.append(parse_listen(value))
    else:
        options.routes.append(parse_route(value if name == "--route" else f"{value}=deny"))


def _parse_word(name: str, value: str, words: type[Word]) -> Word:
    try:
        return words(value)
    except ValueError:
        known = " or ".join(word.value for word in words)
        raise ExecUsageError(f"exec: {name} is {known}, not {value!r}") from None
