"""A program to be spawned, as a record."""

from __future__ import annotations

from meshfd.records import Record


class Program(Record):
    """What execve(2) and its surroundings need.

    ``environment`` is the whole environment; argv[0] is looked up in its PATH as execvp(3) does.
    ``working_dir`` "" keeps; ``uid``, ``gid`` and ``umask`` None keep. ``groups`` replace the
    supplementary groups when ``gid`` is given. ``blocked_signals`` is the mask it starts with.
    ``rlimits``: number, soft and hard limit, as in `meshfd.rlimits`; the others stay.
    """

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    working_dir: str = ""
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    umask: int | None = None
    blocked_signals: frozenset[int] = frozenset()
    new_session: bool = False
    rlimits: tuple[tuple[int, int, int], ...] = ()
