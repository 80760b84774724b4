"""The cgroup of a service: found, made, filled, emptied and removed.

Theory of operation: a socket belongs to the cgroup of the task that makes it, for ever, and BPF
programs, firewalls and accounting go by that. So the agent, who makes and injects sockets, is put
into the service's cgroup before it makes anything, and the service's programs are its children.

Of the path, what is missing is made, and removed again when nothing is left in it. A directory
that we have made carries a mark (an extended attribute): so a later meshfd removes it, too, when
this one was killed. What was there before, unmarked, is somebody else's, and stays.

    missing   --open-->   ours        marked
    marked    --open-->   ours        nothing may live in the service's own; a parent may be shared
    unmarked  --open-->   used        never removed, its processes never killed
    ours      --close-->  removed     what is left in the service's own is killed first

Limits: after SIGKILL the kernel is given GONE_S to bury the dead; then the directory stays, which
is logged.
Source: cgroups(7), linux/Documentation/admin-guide/cgroup-v2.rst, xattr(7).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import trio

from meshfd.cgroup_paths import find_hierarchy, find_own, is_within
from meshfd.errors import ServiceError
from meshfd.logs import event as log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MARK: Final = "user.meshfd"
GONE_S: Final = 5.0
LOOK_S: Final = 0.01
_NO_HIERARCHY: Final = "no cgroup v2 hierarchy is mounted here (cgroup2 in /proc/self/mountinfo)"


class Cgroup:
    """A service's cgroup, open; made by `Cgroups.open`."""

    def __init__(self, directory: Path) -> None:
        """Use `Cgroups.open`."""
        self.directory = directory

    def add(self, pid: int) -> None:
        """Move a process there, threads and all; its children will be born there.

        Raises:
            ServiceError: it may not be moved.

        """
        try:
            (self.directory / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            raise ServiceError(
                f"cgroup {self.directory}: no process can be moved there: {error.strerror}"
                + _advice(error.errno)
            ) from error


class Cgroups:
    """The cgroups that are open, each a service's own.

    One may be open twice, when a reload replaces the service's agent.
    """

    def __init__(self) -> None:
        self._users: list[tuple[Path, str]] = []

    @contextlib.asynccontextmanager
    async def open(self, name: str, path: str) -> AsyncIterator[Cgroup]:
        """The cgroup ``path`` for the service ``name``, until the context ends.

        Raises:
            ServiceError: it cannot be made or used; the text says why.

        """
        directory = _locate(name, path)
        for other, user in self._users:
            if user != name and is_within(PurePosixPath(directory), PurePosixPath(other)):
                raise ServiceError(
                    f"service {name}: cgroup {directory} cannot be used: {other} is {user}'s own"
                )
        _make(name, directory, shared=(directory, name) in self._users)
        self._users.append((directory, name))
        try:
            yield Cgroup(directory)
        finally:
            self._users.remove((directory, name))
            if (directory, name) not in self._users:
                with trio.CancelScope(shield=True):
                    await _remove(directory)


def _make(name: str, directory: Path, *, shared: bool) -> None:
    """Make what is missing. ``shared``: we use it already."""
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    try:
        for one in reversed(missing):
            one.mkdir(exist_ok=True)
            os.setxattr(one, MARK, b"")
        if not os.access(directory / "cgroup.procs", os.W_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if not shared and _is_ours(directory) and _is_populated(directory):
            raise OSError(errno.EBUSY, "processes of another meshfd are in it")  # noqa: TRY301
    except OSError as error:
        for one in missing:
            with contextlib.suppress(OSError):
                one.rmdir()
        raise ServiceError(
            f"service {name}: cgroup {directory} cannot be used: {error.strerror}"
            + _advice(error.errno)
        ) from error


async def _remove(directory: Path) -> None:
    """Remove what meshfd has made, as far as nothing is in it."""
    if _is_ours(directory) and _is_populated(directory):
        log(logging.WARNING, f"cgroup {directory}: what is left in it is killed")
        with contextlib.suppress(OSError):  # before Linux 5.14 there is no such file
            (directory / "cgroup.kill").write_text("1")
        with trio.move_on_after(GONE_S):
            while _is_populated(directory):  # noqa: ASYNC110 -- the kernel tells nobody
                await trio.sleep(LOOK_S)
    for one in (directory, *directory.parents):
        if not _is_ours(one):
            return
        try:
            one.rmdir()
        except OSError as error:
            if one == directory:
                log(logging.WARNING, f"cgroup {directory} stays: {error.strerror}")
            return  # others use what is above


def _advice(number: int | None) -> str:
    if number in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return (
            "; run meshfd as root, or in a cgroup that was delegated to its user (systemd: "
            "Delegate=yes), and name a path below that, without a leading /"
        )
    return ""


def _locate(name: str, path: str) -> Path:
    hierarchy = find_hierarchy(Path("/proc/self/mountinfo").read_text())
    if hierarchy is None:
        raise ServiceError(f"service {name}: cgroup {path} cannot be used: {_NO_HIERARCHY}")
    own = find_own(Path("/proc/self/cgroup").read_text())
    try:
        return hierarchy.directory(own / path)
    except ValueError:
        raise ServiceError(
            f"service {name}: cgroup {own / path} cannot be seen in {hierarchy.mount}, which "
            f"shows {hierarchy.root}"
        ) from None


def _is_ours(directory: Path) -> bool:
    """Whether meshfd has made it."""
    try:
        os.getxattr(directory, MARK)
    except OSError:
        return False
    return True


def _is_populated(directory: Path) -> bool:
    return "populated 1" in (directory / "cgroup.events").read_text().splitlines()
