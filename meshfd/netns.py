"""The network namespace of a service, as the configuration names it.

A value is `NEW`, or the path of a file that stands for a namespace: /run/netns/NAME, as ip-netns(8)
keeps them, /proc/PID/ns/net, or wherever one is mounted; `HOST` is written for our own.
Source: network_namespaces(7), ioctl_ns(2).
"""

from __future__ import annotations

import errno
import fcntl
import os

from meshfd.errors import ServiceError
from meshfd.wording import quote

TYPE_CHECKING = False  # see meshfd.records
if TYPE_CHECKING:
    from typing import Final

NEW: Final = "new"
HOST: Final = "host"
OWN_PATH: Final = "/proc/self/ns/net"
OWN_TITLE: Final = "meshfd's own network namespace"
IN_USER_NETNS: Final = "in a user namespace (unshare -Urn)"
"""How an ordinary user has the rights that are needed; a text for errors."""

NAMED: Final = "/run/netns"
_NS_GET_NSTYPE: Final = 0xB703  # linux/nsfs.h
_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h


def path_of(name: str) -> str:
    """The file of what is written as a network namespace: `HOST`, a name of ip-netns(8), or a path.

    Raises:
        ValueError: it cannot be one.

    """
    if name == HOST:
        return OWN_PATH
    if "/" in name:
        return name
    if name in {"", ".", ".."} or "\0" in name:
        raise ValueError(f"{quote(name)} is no name of a network namespace")
    return f"{NAMED}/{name}"


def open_netns(name: str) -> int:
    """The namespace that `path_of` finds, as an fd.

    Raises:
        ServiceError: there is none, or it is something else; the text names it.
        ValueError: it cannot be one.

    """
    path = path_of(name)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        advice = ""
        if error.errno == errno.ENOENT and path.startswith(f"{NAMED}/"):
            advice = f"; make it (ip netns add {path.removeprefix(NAMED + '/')})"
        raise ServiceError(f"{title_of(path)}: {error.strerror}{advice}") from error
    try:
        kind = fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind != _CLONE_NEWNET:
        os.close(fd)
        raise ServiceError(f"{title_of(path)}: this file is no network namespace")
    return fd


def identity_of(netns: int | str) -> tuple[int, int]:
    """What tells one namespace, of an fd or a path, from another."""
    status = os.stat(netns)  # noqa: PTH116 -- an fd has no Path
    return status.st_dev, status.st_ino


def title_of(netns: str) -> str:
    """What errors call a namespace, by its path or the name of a declared one."""
    return OWN_TITLE if netns == OWN_PATH else f"network namespace {netns}"


def refusal(netns: str, number: int) -> ServiceError:
    """Why the agent could not enter it."""
    what = "no network namespace can be made" if netns == NEW else title_of(netns)
    advice = ""
    if number == errno.EPERM:
        advice = "; this needs CAP_SYS_ADMIN: run meshfd as root"
        if netns == NEW:
            advice += f", or {IN_USER_NETNS}"
    elif number == errno.ENOSPC:
        advice = "; raise user.max_net_namespaces"
    elif number == errno.EADDRNOTAVAIL:
        return ServiceError(f"{what} has no IPv4 address but loopback's: give it one")
    return ServiceError(f"{what}: {os.strerror(number)}{advice}")
