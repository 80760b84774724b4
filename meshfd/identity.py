"""Who a service runs as: ``user`` and ``group`` looked up in the system's databases.

A name wins over a number, as in chown(1). Only root can become somebody else; an ordinary user may
name itself. Source: getpwnam(3), getgrouplist(3), credentials(7).
"""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

from meshfd.errors import ServiceError


@dataclass(frozen=True, slots=True)
class Identity:
    """What a process is to become; None keeps meshfd's own.

    ``environment`` is what login(1) would set for the user.
    """

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


def resolve_identity(user: str | None, group: str | None) -> Identity:
    """Look the user and the group up.

    Raises:
        ServiceError: there is no such user or group, or meshfd may not change to it.

    """
    if user is None and group is None:
        return Identity()
    entry = None if user is None else _find_user(user)
    gid = entry.pw_gid if group is None and entry is not None else _find_group(group or "")
    environment: tuple[tuple[str, str], ...] = ()
    groups: tuple[int, ...] = (gid,)
    if entry is not None:
        groups = tuple(os.getgrouplist(entry.pw_name, gid))
        environment = (
            ("HOME", entry.pw_dir),
            ("LOGNAME", entry.pw_name),
            ("SHELL", entry.pw_shell or "/bin/sh"),
            ("USER", entry.pw_name),
        )
    if os.geteuid() != 0:
        if (entry is None or entry.pw_uid == os.getuid()) and gid == os.getgid():
            return Identity(environment=environment)
        message = f"only root can run a service as {_describe(user, group)}"
        raise ServiceError(message)
    uid = None if entry is None else entry.pw_uid
    return Identity(uid=uid, gid=gid, groups=groups, environment=environment)


def _find_user(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        pass
    try:
        return pwd.getpwuid(int(user))
    except (KeyError, ValueError, OverflowError):
        message = f"there is no user {user!r} on this machine"
        raise ServiceError(message) from None


def _find_group(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        pass
    try:
        return grp.getgrgid(int(group)).gr_gid
    except (KeyError, ValueError, OverflowError):
        message = f"there is no group {group!r} on this machine"
        raise ServiceError(message) from None


def _describe(user: str | None, group: str | None) -> str:
    if user is None:
        return f"group {group}"
    return f"user {user}" if group is None else f"user {user}, group {group}"
