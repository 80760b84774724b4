"""Cgroups (version 2) for tests to make others in, their controllers; version 1's net_cls."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshfd.cgroup_paths import Hierarchy, find_hierarchy, find_own
from tests.support.need import require, require_root, require_tool
from tests.support.waiting import wait_until

ENABLED_BY_TESTS: Final = "user.meshfd.tests"


def entering(directories: list[Path]) -> list[str]:
    """Return a command that runs another in these cgroups."""
    enter = "".join(f"echo $$ > {one}/cgroup.procs; " for one in directories)
    return ["sh", "-c", f'{enter}exec "$@"', "sh"]


@dataclass(frozen=True, slots=True)
class Place:
    """A cgroup that is there, in which the tests may make others, and its path from the root."""

    directory: Path
    path: str

    @property
    def prefix(self) -> list[str]:
        """A command that runs another in this cgroup."""
        return entering([self.directory])

    def below(self, name: str) -> Place:
        """Make another in it."""
        (self.directory / name).mkdir()
        return Place(self.directory / name, f"{self.path}/{name}")

    def enabled(self) -> list[str]:
        """Return the controllers that cgroups in it have."""
        return (self.directory / "cgroup.subtree_control").read_text().split()


def hierarchy_here() -> Hierarchy:
    """Return where version 2 is mounted; what needs it is skipped elsewhere."""
    hierarchy = find_hierarchy(Path("/proc/self/mountinfo").read_text())
    require(hierarchy is not None, "no cgroup v2 hierarchy is mounted")
    assert hierarchy is not None
    return hierarchy


def _unique_name() -> str:
    return f"meshfd-test-{uuid.uuid4().hex[:8]}"


@contextlib.contextmanager
def new_place() -> Iterator[Place]:
    """Make a cgroup, and end all that is in it. Needs root."""
    require_root()
    hierarchy = hierarchy_here()
    own = find_own(Path("/proc/self/cgroup").read_text())
    path = own / _unique_name()
    directory = hierarchy.directory(path)
    directory.mkdir()
    try:
        yield Place(directory, str(path))
    finally:
        (directory / "cgroup.kill").write_text("1")
        inner = sorted((one for one in directory.rglob("*") if one.is_dir()), reverse=True)
        for one in (*inner, directory):
            wait_until(functools.partial(is_removed, one), "the end of a cgroup")


@contextlib.contextmanager
def controller(name: str) -> Iterator[None]:
    """Have our own cgroup give a controller to those that tests make in it. Needs root.

    It must be the root, or have no processes. Who needs the controller holds a shared lock on the
    directory; the last disables it, if it was a test that had it enabled.
    """
    require_root()
    hierarchy = hierarchy_here()
    own = hierarchy.directory(find_own(Path("/proc/self/cgroup").read_text()))
    controllers = (own / "cgroup.controllers").read_text().split()
    require(name in controllers, f"cgroup v2 has no controller {name} here")
    lock_fd = os.open(own, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_SH)
        if name not in (own / "cgroup.subtree_control").read_text().split():
            os.setxattr(own, ENABLED_BY_TESTS, name.encode())
            try:
                (own / "cgroup.subtree_control").write_text(f"+{name}")
            except OSError as error:
                require(False, f"controller {name} cannot be enabled in {own}: {error.strerror}")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # another test has it, or it was there before
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.getxattr(own, ENABLED_BY_TESTS)
                (own / "cgroup.subtree_control").write_text(f"-{name}")
                os.removexattr(own, ENABLED_BY_TESTS)
    finally:
        os.close(lock_fd)


def processes_in(directory: Path) -> list[int]:
    """Return the pids of who is in a cgroup; nobody is in one that is not there."""
    try:
        return [int(line) for line in (directory / "cgroup.procs").read_text().split()]
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENODEV}:  # removed, and while we read
            raise
        return []


def is_removed(directory: Path) -> bool:
    """Try to remove a cgroup; whether it is gone."""
    with contextlib.suppress(OSError):
        directory.rmdir()
    return not directory.exists()


@contextlib.contextmanager
def open_class(class_id: int) -> Iterator[Path]:
    """Make a cgroup of net_cls; who is left in it is put out in the end. Needs root.

    It may be removed before.

    The hierarchy is mounted for as long as somebody's block lasts: it would linger while a cgroup
    is in it.
    """
    require_root()
    options = ["-t", "cgroup", "-o", "net_cls,net_prio", "meshfd-test"]
    with tempfile.TemporaryDirectory(prefix="meshfd-class-") as name:
        mounted = subprocess.run(
            [require_tool("mount"), *options, name], capture_output=True, text=True, check=False
        )
        require(mounted.returncode == 0, f"no net_cls: {mounted.stderr.strip()}")
        Path(name).chmod(0o755)
        try:
            with _class_in(Path(name)) as directory:
                (directory / "net_cls.classid").write_text(str(class_id))
                yield directory
        finally:
            subprocess.run([require_tool("umount"), name], check=True)


@contextlib.contextmanager
def _class_in(hierarchy: Path) -> Iterator[Path]:
    directory = hierarchy / _unique_name()
    directory.mkdir()
    try:
        yield directory
    finally:
        for pid in processes_in(directory):
            with contextlib.suppress(ProcessLookupError):
                (hierarchy / "cgroup.procs").write_text(str(pid))
        wait_until(functools.partial(is_removed, directory), "the end of a cgroup")
