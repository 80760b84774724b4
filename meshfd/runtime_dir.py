"""The directory where a running meshfd is found, and the lock that makes it the only one there.

Theory of operation: the directory is $XDG_RUNTIME_DIR/meshfd, else /run/meshfd for root, else
/tmp/meshfd-UID. It is the caller's own and closed to everybody else (mode 0700), which is checked
and not only set, because /tmp belongs to all. Whoever holds the flock(2) on ``lock`` in it is the
one `meshfd run`; the kernel drops the lock when its holder ends, however it ends. So a control
socket that is there while the lock is free is a leftover, and is replaced.

A service finds the socket at $MESHFD_CONTROL, whatever its own XDG_RUNTIME_DIR.
Source: flock(2), unix(7); XDG Base Directory Specification.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from meshfd.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONTROL_VARIABLE: Final = "MESHFD_CONTROL"
SOCKET_NAME: Final = "control.sock"
LOCK_NAME: Final = "lock"
PRIVATE_MODE: Final = 0o700
SOCKET_PATH_BYTES: Final = 107  # sun_path without its NUL


def runtime_directory(environment: Mapping[str, str], uid: int) -> Path:
    """Where `meshfd run` of this user keeps its control socket."""
    if base := environment.get("XDG_RUNTIME_DIR"):
        return Path(base) / "meshfd"
    return Path("/run/meshfd") if uid == 0 else Path(f"/tmp/meshfd-{uid}")  # noqa: S108


def control_path(environment: Mapping[str, str], uid: int) -> Path:
    """Where a client looks for the control socket."""
    if path := environment.get(CONTROL_VARIABLE):
        return Path(path)
    return runtime_directory(environment, uid) / SOCKET_NAME


@contextlib.contextmanager
def claim_runtime_directory(directory: Path) -> Iterator[Path]:
    """Make the directory and be its only owner for as long as the context lasts.

    Gives the path for the control socket, at which there is no file then; removes it at the end.

    Raises:
        ControlError: another `meshfd run` is there, or the directory cannot be used.

    """
    path = directory / SOCKET_NAME
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        message = f"{path} is too long for a socket: set XDG_RUNTIME_DIR to a shorter directory"
        raise ControlError(message)
    try:
        _make_private(directory)
        lock_fd = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        hint = ": set XDG_RUNTIME_DIR to a directory of yours"
        if error.errno not in {errno.EACCES, errno.ENOENT, errno.EROFS, errno.EPERM}:
            hint = ""
        message = f"cannot use {directory} for the control socket: {error.strerror}{hint}"
        raise ControlError(message) from error
    try:
        _lock(lock_fd, directory)
        path.unlink(missing_ok=True)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(lock_fd)


def _make_private(directory: Path) -> None:
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=PRIVATE_MODE)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        message = f"{directory} is not a directory of yours: set XDG_RUNTIME_DIR to another place"
        raise ControlError(message)
    if stat.S_IMODE(found.st_mode) != PRIVATE_MODE:
        directory.chmod(PRIVATE_MODE)


def _lock(lock_fd: int, directory: Path) -> None:
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with contextlib.suppress(OSError):
            holder = os.pread(lock_fd, 32, 0).decode("ascii", "replace").strip()
        by = f" (pid {holder})" if holder else ""
        message = (
            f"meshfd already runs{by} with {directory}: ask it with `meshfd status`,"
            " or set XDG_RUNTIME_DIR to another directory to run a second one"
        )
        raise ControlError(message) from None
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
