"""Cgroups of the tests' own: of version 2, and of version 1's controllers of sockets."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from meshfd.cgroup_paths import find_hierarchy, find_own
from tests.support.need import require, require_root, require_tool
from tests.support.waiting import wait_until


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


def _unique_name() -> str:
    return f"meshfd-test-{uuid.uuid4().hex[:8]}"


@contextlib.contextmanager
def open_place() -> Iterator[Place]:
    """Make one, and in the end kill what is in it. Needs root."""
    require_root()
    hierarchy = find_hierarchy(Path("/proc/self/mountinfo").read_text())
    require(hierarchy is not None, "no cgroup v2 hierarchy is mounted")
    assert hierarchy is not None
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
            wait_until(functools.partial(_removed, one), "the end of a cgroup")


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def open_class(class_id: int) -> Iterator[Path]:
    """Make a cgroup of net_cls; who is left in it is put out in the end. Needs root.

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
        for pid in (directory / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (hierarchy / "cgroup.procs").write_text(pid)
        wait_until(functools.partial(_removed, directory), "the end of a cgroup")
