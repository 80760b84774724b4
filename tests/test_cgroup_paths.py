"""Cgroups as text: where version 2 is mounted, what may be named, what lies in what."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from meshfd.cgroup_paths import (
    Hierarchy,
    check_path,
    find_hierarchy,
    find_own,
    is_held_by_v1,
    is_within,
)

UNIFIED = "30 23 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
36 31 0:33 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:11 master:2 - cgroup2 cgroup2 rw
"""
ACCENTS = "30 23 0:27 / /mnt/caf\u00e9\\040noir rw - cgroup2 cgroup2 rw\n"
CONTAINER = "99 31 0:38 /docker/a\\040b /sys/fs/my\\040cgroup rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "mount", "root"),
    [
        (UNIFIED, "/sys/fs/cgroup", "/"),
        (HYBRID, "/sys/fs/cgroup/unified", "/"),
        (CONTAINER, "/sys/fs/my cgroup", "/docker/a b"),
        (ACCENTS, "/mnt/caf\u00e9 noir", "/"),
    ],
    ids=["unified", "hybrid", "container", "accents"],
)
def test_hierarchy(mountinfo: str, mount: str, root: str) -> None:
    """Version 2 is found alone, beside version 1, and where only a part of it is mounted."""
    assert find_hierarchy(mountinfo) == Hierarchy(Path(mount), PurePosixPath(root))


def test_no_hierarchy() -> None:
    """Version 1 alone is none."""
    assert find_hierarchy(HYBRID[: HYBRID.index("41 31")]) is None
    assert find_hierarchy("") is None


def test_directory() -> None:
    """A cgroup is found below the mount, if it is seen there."""
    hierarchy = find_hierarchy(CONTAINER)
    assert hierarchy is not None
    where = hierarchy.directory(PurePosixPath("/docker/a b/web"))
    assert where == Path("/sys/fs/my cgroup/web")
    with pytest.raises(ValueError, match="not in the subpath"):
        hierarchy.directory(PurePosixPath("/docker/b"))


def test_own() -> None:
    """Our own is in the line of version 2, wherever that stands."""
    assert find_own("12:pids:/x\n0::/user.slice/a:b\n") == PurePosixPath("/user.slice/a:b")
    assert find_own("12:pids:/x\n") == PurePosixPath("/")


@pytest.mark.parametrize("text", ["a", "mesh.slice/shop", "/mesh.slice/shop"])
def test_path(text: str) -> None:
    """A path is relative to our own cgroup, or absolute."""
    assert check_path(text) == text


@pytest.mark.parametrize("text", ["/", "a/", "a//b", "..", "a/../b", "./a", "a\0b"])
def test_bad_path(text: str) -> None:
    """What names no cgroup, or may lead outside, is refused."""
    with pytest.raises(ValueError, match='write names with "/" between them'):
        check_path(text)


@pytest.mark.parametrize(
    ("one", "other", "within"),
    [("a", "a", True), ("a", "a/b", True), ("a/b", "a", True), ("a/b", "a/c", False)],
)
def test_within(one: str, other: str, *, within: bool) -> None:
    """Names count, not letters: "ab" is not in "a"."""
    assert is_within(PurePosixPath(one), PurePosixPath(other)) is within
    assert not is_within(PurePosixPath("a"), PurePosixPath("ab"))


@pytest.mark.parametrize(
    ("controller", "held"),
    [("memory", True), ("cpu", True), ("io", True), ("pids", False), ("mem", False)],
)
def test_held_by_version_1(controller: str, held: bool) -> None:
    """A controller that a hierarchy of version 1 has is none of version 2's."""
    text = "7:blkio:/\n4:memory:/a:b\n2:cpu,cpuacct:/\n1:name=pids:/\n0::/\n"
    assert is_held_by_v1(text, controller) == held
