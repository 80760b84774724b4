"""Controllers of cgroup version 2: enabled for a service's cgroup, and disabled again.

Theory of operation: a cgroup has a controller's files if its parent names the controller in
cgroup.subtree_control, and a parent may name what its own parent does. So from the root of what is
mounted here down to the cgroup's parent, a controller is enabled where it is not. What we have
enabled is marked (an extended attribute), so that a later meshfd knows it, too, when this one was
killed; it is disabled again when the cgroup that has the mark has none below it any more.

Limits: while others have cgroups there it stays enabled, since they may count on it. Two meshfds,
of which one ends in the very moment in which the other begins, may disable what the other needs;
that one then says that the limit's file is missing.
Source: linux/Documentation/admin-guide/cgroup-v2.rst, "Controlling Controllers" and "No Internal
Process Constraint"; xattr(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from meshfd.cgroup_paths import Hierarchy, find_hierarchy, find_own, is_held_by_v1
from meshfd.errors import ServiceError

ENABLED: Final = "user.meshfd.enabled"
FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
DELEGATION: Final = (
    "run meshfd as root, or in a cgroup that was delegated to its user (systemd: Delegate=yes)"
)
NO_HIERARCHY: Final = "no cgroup v2 hierarchy is mounted here (cgroup2 in /proc/self/mountinfo)"


def hierarchy_here() -> Hierarchy | None:
    """The hierarchy of version 2 that we see."""
    return find_hierarchy(Path("/proc/self/mountinfo").read_text())


def enable(directory: Path, mount: Path, controllers: Iterable[str]) -> None:
    """Give the cgroup ``directory``, which is below ``mount``, these controllers.

    Raises:
        ServiceError: one is not to be had; the text says where and why. Others may be enabled.

    """
    for parent in reversed(list(_parents(directory, mount))):
        for controller in controllers:
            if controller in _words(parent / "cgroup.subtree_control"):
                continue
            if controller not in _words(parent / "cgroup.controllers"):
                why = f"{_why_absent(controller)}; leave its limits out, or see README, Cgroups"
                raise ServiceError(_not_available(controller, parent, why))
            try:
                _switch(parent, f"+{controller}")
            except OSError as error:
                raise ServiceError(_not_available(controller, parent, _why_not(error))) from error
            _mark(parent, {*_marked(parent), controller})


def release(directory: Path, mount: Path) -> None:
    """Disable what `enable` did for this cgroup, which is gone, as far as nobody else has it."""
    for parent in _parents(directory, mount):
        if not parent.exists():
            continue
        if any(one.is_dir() for one in parent.iterdir()):
            return
        for controller in _marked(parent):
            with contextlib.suppress(OSError):  # somebody has disabled it
                _switch(parent, f"-{controller}")
        _mark(parent, set())


def why_no_cgroup() -> str | None:
    """Why we could make no cgroup below our own; None: we could."""
    hierarchy = hierarchy_here()
    if hierarchy is None:
        return NO_HIERARCHY
    try:
        own = hierarchy.directory(find_own(Path("/proc/self/cgroup").read_text()))
    except ValueError:
        return f"our own cannot be seen in {hierarchy.mount}"
    return None if os.access(own, os.W_OK, effective_ids=True) else _NOT_DELEGATED


def why_missing(controller: str) -> str | None:
    """Why we could give no cgroup this controller; None: there is one to which we could."""
    hierarchy = hierarchy_here()
    if hierarchy is None:
        return NO_HIERARCHY
    if controller not in _words(hierarchy.mount / "cgroup.controllers"):
        return _why_absent(controller)
    try:
        own = hierarchy.directory(find_own(Path("/proc/self/cgroup").read_text()))
    except ValueError:  # it is outside of what is mounted here
        own = hierarchy.mount
    for parent in (*reversed(list(_parents(own, hierarchy.mount))), own):
        if os.access(parent / "cgroup.subtree_control", os.W_OK, effective_ids=True):
            return None if controller in _words(parent / "cgroup.controllers") else _NOT_DELEGATED
    return _NOT_DELEGATED


_NOT_DELEGATED: Final = "it is not delegated to this user"
_BUSY: Final = (
    "processes are in it, meshfd itself or others, and then the kernel gives none to cgroups "
    'below; name a cgroup beside it, from the root ("/..."), or run them in a cgroup below it '
    "(systemd: DelegateSubgroup=)"
)


def _parents(directory: Path, mount: Path) -> Iterator[Path]:
    """The cgroups that it is in, the nearest first."""
    return (one for one in directory.parents if one.is_relative_to(mount))


def _not_available(controller: str, parent: Path, why: str) -> str:
    return f"controller {controller} is not available at {parent}: {why}"


def _why_absent(controller: str) -> str:
    if is_held_by_v1(Path("/proc/self/cgroup").read_text(), controller):
        return "cgroup v1 holds it"
    return "the kernel has none, or it is not delegated to here"


def _why_not(error: OSError) -> str:
    if error.errno in FORBIDDEN:
        return f"{_NOT_DELEGATED}; {DELEGATION}"
    return _BUSY if error.errno == errno.EBUSY else str(error.strerror)


def _switch(directory: Path, what: str) -> None:
    (directory / "cgroup.subtree_control").write_text(what)


def _words(file: Path) -> list[str]:
    return file.read_text().split()


def _marked(directory: Path) -> set[str]:
    try:
        return set(os.getxattr(directory, ENABLED).decode().split())
    except OSError:
        return set()


def _mark(directory: Path, controllers: set[str]) -> None:
    """Without a mark that cannot be set, what is enabled stays."""
    with contextlib.suppress(OSError):
        if controllers:
            os.setxattr(directory, ENABLED, " ".join(sorted(controllers)).encode())
        else:
            os.removexattr(directory, ENABLED)
