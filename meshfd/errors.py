"""What can go wrong, named by situation.

Every error that a user can meet is one of these. Its text is one line that says what is wrong,
where, and what to do; a traceback is for ``--debug``. The command's exit status belongs to the
class, so that a script can tell situations apart.
"""

from __future__ import annotations

from meshfd.records import Record

TYPE_CHECKING = False  # see meshfd.records
if TYPE_CHECKING:
    from typing import ClassVar


class MeshfdError(Exception):
    """Base of every error that meshfd raises on purpose."""

    exit_status: ClassVar[int] = 1


class Fault(Record):
    """One thing that is wrong with a configuration.

    ``key`` is the path of the offending key (``service.web.command``), ``line`` counts from 1 and
    is None where the text does not give it away.
    """

    file: str
    line: int | None
    key: str
    text: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.key}: {self.text}" if self.key else f"{where}: {self.text}"


class ConfigError(MeshfdError):
    """A configuration cannot be used; ``faults`` lists every reason that was found."""

    def __init__(self, faults: list[Fault]) -> None:
        """``faults`` is not empty."""
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


class RouteSyntaxError(MeshfdError, ValueError):
    """A destination, target or address is not written as it should be."""


class NotSupportedError(MeshfdError):
    """The kernel, or a privilege, does not give what was asked for; the text names it."""

    exit_status = 125


class SpawnError(MeshfdError):
    """A program could not be started.

    ``stage`` says how far it got, ``errno`` what the kernel answered.
    """

    def __init__(self, text: str, *, errno: int, stage: str) -> None:
        super().__init__(text)
        self.errno = errno
        self.stage = stage


class ListenError(MeshfdError):
    """A listening socket could not be opened; the text names the address and why.

    ``errno`` is what the kernel answered.
    """

    def __init__(self, text: str, *, errno: int) -> None:
        super().__init__(text)
        self.errno = errno


class ServiceError(MeshfdError):
    """A service cannot run as it is configured: no such user, command, directory or log file."""


class AgentLostError(MeshfdError):
    """An agent ended, or its control channel broke, without having been asked to."""


class ControlError(MeshfdError):
    """The supervisor could not be reached, or refused what it was asked."""
