"""Cgroups as text: where version 2 is mounted, which one is ours, and what may be named.

Source: proc(5), /proc/PID/mountinfo and /proc/PID/cgroup; cgroups(7).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where cgroup v2 is mounted, and which cgroup is seen there ("/": the root)."""

    mount: Path
    root: PurePosixPath

    def directory(self, cgroup: PurePosixPath) -> Path:
        """Where a cgroup is.

        Raises:
            ValueError: it cannot be seen from here.

        """
        return self.mount / cgroup.relative_to(self.root)


def find_hierarchy(mountinfo: str) -> Hierarchy | None:
    """The hierarchy of version 2, alone or beside others, in the text of proc(5) mountinfo."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) > 4 and after.split()[:1] == ["cgroup2"]:  # noqa: PLR2004 -- proc(5)
            return Hierarchy(Path(_unescape(fields[4])), PurePosixPath(_unescape(fields[3])))
    return None


def find_own(cgroup: str) -> PurePosixPath:
    """Our own cgroup of version 2, in the text of proc(5) /proc/self/cgroup."""
    for line in cgroup.splitlines():
        number, _, path = line.split(":", 2)
        if number == "0":
            return PurePosixPath(path)
    return PurePosixPath("/")


def is_held_by_v1(cgroup: str, controller: str) -> bool:
    """Whether a hierarchy of version 1 has a controller, in the text of /proc/self/cgroup."""
    name = {"io": "blkio"}.get(controller, controller)  # version 1's
    return any(name in line.split(":", 2)[1].split(",") for line in cgroup.splitlines())


def check_path(text: str) -> str:
    """A cgroup as the configuration names it.

    Raises:
        ValueError: it names none, or one outside.

    """
    parts = text.removeprefix("/").split("/")
    if "\0" in text or any(part in {"", ".", ".."} for part in parts):
        raise ValueError(
            'write names with "/" between them: "mesh.slice/shop" below meshfd\'s own cgroup, '
            '"/mesh.slice/shop" from the root'
        )
    return text


def is_within(one: PurePosixPath, other: PurePosixPath) -> bool:
    """Whether they are the same cgroup, or one is somewhere in the other."""
    return one.is_relative_to(other) or other.is_relative_to(one)


def _unescape(text: str) -> str:
    """A field of mountinfo, in which blanks, newlines and backslashes are octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
