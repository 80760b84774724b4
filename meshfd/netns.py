"""The network namespace of a service, as the configuration names it.

A value is `NEW`, or the path of a file that stands for a namespace: /run/netns/NAME, as ip-netns(8)
keeps them, /proc/PID/ns/net, or wherever one is mounted.
Source: network_namespaces(7), ioctl_ns(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final

from meshfd.errors import ServiceError

NEW: Final = "new"
NAMED: Final = "/run/netns"
_NS_GET_NSTYPE: Final = 0xB703  # linux/nsfs.h
_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h


def open_netns(path: str) -> int:
    """The namespace of this file, as an fd.

    Raises:
        ServiceError: there is none, or it is something else; the text names it.

    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        advice = ""
        if error.errno == errno.ENOENT and path.startswith(f"{NAMED}/"):
            advice = f"; make it (ip netns add {path.removeprefix(NAMED + '/')})"
        raise ServiceError(f"network namespace {path}: {error.strerror}{advice}") from error
    try:
        kind = fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind != _CLONE_NEWNET:
        os.close(fd)
        raise ServiceError(f"network namespace {path}: this file is no network namespace")
    return fd


def refusal(netns: str, number: int) -> ServiceError:
    """Why the agent could not enter it."""
    what = "no network namespace can be made" if netns == NEW else f"network namespace {netns}"
    advice = ""
    if number == errno.EPERM:
        advice = "; this needs CAP_SYS_ADMIN: run meshfd as root"
    elif number == errno.ENOSPC:
        advice = "; raise user.max_net_namespaces"
    return ServiceError(f"{what}: {os.strerror(number)}{advice}")
