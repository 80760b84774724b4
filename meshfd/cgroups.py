"""The cgroup of a service: found, made, limited, filled, emptied and removed.

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

A service's limits are written before anything is in it. Some depend on others (cpu.max.burst may
not be above cpu.max), and the kernel looks at each write alone: so those that are refused are
written again after the others, as long as that helps. If one stays refused, all are as they were.

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

from meshfd.cgroup_controllers import (
    DELEGATION,
    FORBIDDEN,
    NO_HIERARCHY,
    enable,
    hierarchy_here,
    release,
)
from meshfd.cgroup_limits import Limit, controllers_of, plan_writes
from meshfd.cgroup_paths import find_own, is_within
from meshfd.errors import ServiceError
from meshfd.logs import event as log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

MARK: Final = "user.meshfd"
GONE_S: Final = 5.0
LOOK_S: Final = 0.01


class Cgroup:
    """A service's cgroup, open; made by `Cgroups.open`."""

    def __init__(self, held: _Held, limits: Sequence[Limit]) -> None:
        """Use `Cgroups.open`."""
        self.directory = held.directory
        self.limits = limits
        self._held = held

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

    async def limit(self, limits: Sequence[Limit]) -> None:
        """Have these limits instead; where less memory is allowed, the kernel may take its time.

        Raises:
            ServiceError: one is refused, and the limits are as they were; the text says why.

        """
        if self in self._held.users:
            await trio.to_thread.run_sync(self._held.limit, limits)
            self.limits = limits


class _Held:
    """A cgroup that is open, as often as there are ``users``; the latest one's limits hold."""

    def __init__(self, name: str, directory: Path, mount: Path) -> None:
        self.name = name
        self.directory = directory
        self.mount = mount
        self.users: list[Cgroup] = []
        self._in_force: Sequence[Limit] = ()
        self._before: dict[str, str] = {}  # what the files held without us

    def limit(self, limits: Sequence[Limit]) -> None:
        """Write limits; those that are no more are taken back. ServiceError: all are as before."""
        if limits == self._in_force:
            return
        try:
            enable(self.directory, self.mount, controllers_of(limits))
            self._learn(limits)
            self._write(plan_writes(self._in_force, limits, self._before))
        except (ServiceError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ServiceError(
                f"service {self.name}: cgroup {self.directory} cannot be limited: {reason}"
            ) from error
        self._in_force = limits

    def _learn(self, limits: Sequence[Limit]) -> None:
        for name, _ in limits:
            try:
                self._before.setdefault(name, (self.directory / name).read_text())
            except FileNotFoundError:
                raise ServiceError(f"this kernel has no {name}") from None

    def _write(self, limits: Sequence[Limit]) -> None:
        refusal = self._try(limits)
        if refusal is not None:
            self._try(plan_writes(limits, self._in_force, self._before))
            raise refusal

    def _try(self, limits: Sequence[Limit]) -> ServiceError | None:
        """Write all that can be written; the last refusal of what cannot."""
        left = [(name, line) for name, lines in limits for line in lines]
        while left:
            refused, refusal = [], None
            for name, line in left:
                try:
                    (self.directory / name).write_text(f"{line}\n")
                except OSError as error:
                    refused.append((name, line))
                    refusal = ServiceError(f'{name} = "{line}": {error.strerror}')
            if len(refused) == len(left):
                return refusal
            left = refused
        return None


class Cgroups:
    """The cgroups that are open, each a service's own.

    One may be open twice, when a reload replaces the service's agent.
    """

    def __init__(self) -> None:
        self._held: dict[Path, _Held] = {}

    @contextlib.asynccontextmanager
    async def open(
        self, name: str, path: str, limits: Sequence[Limit] = ()
    ) -> AsyncIterator[Cgroup]:
        """The cgroup ``path`` for the service ``name``, until the context ends.

        Raises:
            ServiceError: it cannot be made, used or limited; the text says why.

        """
        held = self._hold(name, path)
        cgroup = Cgroup(held, limits)
        held.users.append(cgroup)
        try:
            held.limit(limits)
            yield cgroup
        finally:
            held.users.remove(cgroup)
            with trio.CancelScope(shield=True):
                await self._let_go(held)

    def _hold(self, name: str, path: str) -> _Held:
        directory, mount = _locate(name, path)
        for other in self._held.values():
            if other.name != name and is_within(
                PurePosixPath(directory), PurePosixPath(other.directory)
            ):
                raise ServiceError(
                    f"service {name}: cgroup {directory} cannot be used: {other.directory} is "
                    f"{other.name}'s own"
                )
        _make(name, directory, shared=directory in self._held)
        return self._held.setdefault(directory, _Held(name, directory, mount))

    async def _let_go(self, held: _Held) -> None:
        """Go back to the limits of who has it still; or leave it as it was before us."""
        if held.users or not _is_ours(held.directory):
            try:
                held.limit(held.users[-1].limits if held.users else ())
            except ServiceError as error:
                log(logging.WARNING, str(error))
        if not held.users:
            del self._held[held.directory]
            await _remove(held.directory)
            release(held.directory, held.mount)


def _make(name: str, directory: Path, *, shared: bool) -> None:
    """Make what is missing. ``shared``: we use it already."""
    if not shared and _is_ours(directory):
        with contextlib.suppress(OSError):  # it is in use
            directory.rmdir()  # with the limits of a meshfd that was killed
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    try:
        for one in reversed(missing):
            one.mkdir(exist_ok=True)
            os.setxattr(one, MARK, b"")
        if not directory.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
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
    if _is_ours(directory):
        _remove_inner(directory)
    for one in (directory, *directory.parents):
        if not _is_ours(one):
            return
        try:
            one.rmdir()
        except OSError as error:
            if one == directory:
                log(logging.WARNING, f"cgroup {directory} stays: {error.strerror}")
            return  # others use what is above


def _remove_inner(directory: Path) -> None:
    """Remove the cgroups that the service has made in its own; nobody is in them any more."""
    for inner, _, _ in os.walk(directory, topdown=False):
        if Path(inner) != directory:
            with contextlib.suppress(OSError):  # then the directory stays, which is said
                Path(inner).rmdir()


def _advice(number: int | None) -> str:
    if number in FORBIDDEN:
        return f"; {DELEGATION}, and name a path below that, without a leading /"
    return ""


def _locate(name: str, path: str) -> tuple[Path, Path]:
    """The directory of a cgroup, and where the hierarchy is mounted."""
    hierarchy = hierarchy_here()
    if hierarchy is None:
        raise ServiceError(f"service {name}: cgroup {path} cannot be used: {NO_HIERARCHY}")
    own = find_own(Path("/proc/self/cgroup").read_text())
    try:
        return hierarchy.directory(own / path), hierarchy.mount
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
