"""From a service's description to a program that can be spawned, and its standard files.

Theory of operation: `plan_launch` looks up what can be looked up (user, directory, command), so
that `meshfd run` can refuse before it has started anything; it is asked again at each start,
because users and programs come and go. `open_stdio` opens the files for one start.

The environment is meshfd's own, without what init systems say to one process alone; then the
user's (HOME, USER, LOGNAME, SHELL), then where the control socket is, then the service's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Final

from meshfd.errors import ServiceError
from meshfd.fd_limit import with_inherited
from meshfd.identity import resolve_identity
from meshfd.program import Program
from meshfd.runtime_dir import CONTROL_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from meshfd.model import Service

# Said to meshfd alone by who started it: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).
OWN_VARIABLES: Final = frozenset(
    {
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "LISTEN_PID",
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
    }
)
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def plan_launch(service: Service, own: Mapping[str, str], control: Path) -> Program:
    """What to spawn for this service.

    ``own`` is meshfd's environment, ``control`` the path of its control socket.

    Raises:
        ServiceError: there is no such user, directory or command; the text names the service.

    """
    try:
        identity = resolve_identity(service.user, service.group)
    except ServiceError as error:
        raise ServiceError(f"service {service.name}: {error}") from None
    environment = {key: value for key, value in own.items() if key not in OWN_VARIABLES}
    environment.update(identity.environment)
    environment[CONTROL_VARIABLE] = os.fspath(control)
    environment.update(service.environment)
    if service.working_dir is not None and not service.working_dir.is_dir():
        raise ServiceError(
            f"service {service.name}: working_dir {service.working_dir} is not a directory"
        )
    _check_command(service, environment.get("PATH", DEFAULT_PATH))
    return Program(
        argv=service.command,
        environment=tuple(environment.items()),
        working_dir="" if service.working_dir is None else os.fspath(service.working_dir),
        uid=identity.uid,
        gid=identity.gid,
        groups=identity.groups,
        new_session=True,
        rlimits=with_inherited(service.rlimits),
    )


@contextlib.contextmanager
def open_stdio(service: Service) -> Iterator[tuple[int, int, int]]:
    """Standard input, output and error for one start; closed here when the context ends.

    Raises:
        ServiceError: the log file cannot be opened.

    """
    null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    log_fd: int | None = None
    try:
        if service.log == "inherit":
            yield (null_fd, 1, 2)
        elif service.log == "null":
            yield (null_fd, null_fd, null_fd)
        else:
            log_fd = _open_log(service)
            yield (null_fd, log_fd, log_fd)
    finally:
        os.close(null_fd)
        if log_fd is not None:
            os.close(log_fd)


def _open_log(service: Service) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    try:
        return os.open(service.log, flags, 0o600)
    except OSError as error:
        raise ServiceError(
            f"service {service.name}: cannot open log {service.log}: {error.strerror}"
        ) from error


def _check_command(service: Service, path: str) -> None:
    command = service.command[0]
    if "/" in command:
        # Relative to the directory that the program starts in, as execve(2) sees it.
        base = os.fspath(service.working_dir or "")
        file = os.path.join(base, command)  # noqa: PTH118
        if not os.path.exists(file):  # noqa: PTH110
            raise ServiceError(f"service {service.name}: there is no {file}")
        if not os.path.isfile(file) or not os.access(file, os.X_OK, effective_ids=True):  # noqa: PTH113
            raise ServiceError(f"service {service.name}: {file} is not executable")
    elif shutil.which(command, path=path) is None:
        raise ServiceError(f"service {service.name}: {command} is not found in PATH ({path})")
