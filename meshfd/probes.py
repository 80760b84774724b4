"""Probes for what meshfd uses of the kernel: each is tried for real, and no version is looked at.

Theory of operation: a probe does what the agent will do, on processes of its own. What cannot be
undone (a seccomp filter, another uid) is done in a forked child, which says over a pipe how far it
got. A probe that succeeds says so by None; one that fails gives the reason as a text.

The seccomp features need no second process: an ADDFD for a notification that does not exist is
answered ENOENT by a kernel that knows the flags and EINVAL by one that does not.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import socket
import threading
from collections.abc import Callable
from typing import Final

from meshfd import system_calls as sys_

Reasons = dict[str, str | None]

NOBODY: Final = 65534
SO_COOKIE: Final = 57
SO_NETNS_COOKIE: Final = 71
LOW_PORTS: Final = range(1023, 1, -1)


def probe_seccomp() -> Reasons:
    """The seccomp notifications and their features, by name."""
    return in_child(_try_seccomp)


def probe_targets() -> Reasons:
    """What the agent needs to do to a program that it started: see its fds and memory."""
    return in_child(_try_targets)


def probe_identity() -> str | None:
    """Whether a service can run as another user."""
    return in_child(_try_identity)["change"]


def probe_threads() -> str | None:
    """Whether a pidfd can name a thread."""
    reason: list[str | None] = []

    def of_this_thread() -> None:
        reason.append(
            _why(lambda: os.close(sys_.pidfd_open(threading.get_native_id(), sys_.PIDFD_THREAD)))
        )

    thread = threading.Thread(target=of_this_thread)
    thread.start()
    thread.join()
    return reason[0]


def probe_sealed_memory() -> str | None:
    """Whether a memfd can be sealed against every change, as route tables are."""

    def seal() -> None:
        fd = os.memfd_create("meshfd-probe", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK)
        finally:
            os.close(fd)

    return _why(seal)


def probe_cookie() -> str | None:
    """Whether a socket has a cookie, by which it is known however its fd moves."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return _why(lambda: probe.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))


def probe_netns_cookie() -> str | None:
    """Whether a socket tells which network namespace it is in."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return _why(lambda: probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))


def probe_netns() -> str | None:
    """Whether services can live, and have sockets, in other network namespaces."""
    return in_child(lambda: {"netns": _why(sys_.new_network_namespace)})["netns"]


def probe_ipv6() -> str | None:
    """Whether there is an IPv6 loopback to listen on."""

    def bind() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))

    return _why(bind)


def probe_low_port() -> str | None:
    """Whether a port below 1024 can be bound."""
    for port in LOW_PORTS:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                return error.strerror
            return None
    return "all are taken"


def in_child(work: Callable[[], Reasons]) -> Reasons:
    """Do the work in a forked child and bring its answer back.

    Raises:
        OSError: no child could be made.

    """
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            answer = json.dumps(work()).encode()
            os.write(write_fd, answer)
            status = 0
        finally:
            os._exit(status)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as reader:
        answer = reader.read()
    _, status = os.waitpid(child, 0)
    if not answer:
        return _Broken(f"the probe ended with status {os.waitstatus_to_exitcode(status)}")
    reasons: Reasons = json.loads(answer)
    return reasons


class _Broken(dict[str, str | None]):
    """The answer of a probe that gave none: every feature is missing, for the same reason."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self._reason = reason

    def __missing__(self, name: str) -> str:
        return self._reason


def _try_seccomp() -> Reasons:
    reasons: Reasons = dict.fromkeys(("notify", "privileged", "killable", "addfd", "send", "sync"))
    try:
        sys_.notification_sizes()
        listener_fd = _install(reasons)
    except OSError as error:
        text = error.strerror
        if error.errno == errno.EBUSY:
            text = "another seccomp supervisor has this process: start meshfd outside of it"
        return dict.fromkeys(reasons, text)
    reasons["addfd"] = _why_not_known(listener_fd, 0)
    reasons["send"] = _why_not_known(listener_fd, sys_.ADDFD_SEND)
    reasons["sync"] = _why(lambda: sys_.set_listener_flags(listener_fd, sys_.SYNC_WAKE_UP))
    return reasons


def _install(reasons: Reasons) -> int:
    """Install the filter with as much as the kernel allows; a listener's fd."""
    best = sys_.NEW_LISTENER | sys_.WAIT_KILLABLE_RECV
    for privileged in (True, False):
        if not privileged:
            sys_.set_no_new_privs()
        for flags in (best, sys_.NEW_LISTENER):
            try:
                return sys_.install_probe_filter(flags)
            except OSError as error:
                if error.errno == errno.EACCES and privileged:
                    reasons["privileged"] = error.strerror
                    break
                if error.errno != errno.EINVAL or flags != best:
                    raise
                reasons["killable"] = error.strerror
    raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def _why_not_known(listener_fd: int, flags: int) -> str | None:
    try:
        sys_.add_fd_to_nobody(listener_fd, flags)
    except OSError as error:
        return None if error.errno == errno.ENOENT else error.strerror
    return "the kernel took a notification that there is not"


def _try_targets() -> Reasons:
    """Fork a program that only waits, and look into it."""
    secret = ctypes.create_string_buffer(b"meshfd")
    read_fd, write_fd = os.pipe()
    target = os.fork()
    if target == 0:
        os.close(write_fd)
        os.read(read_fd, 1)  # until the prober lets go of its end
        os._exit(0)
    pidfd = -1
    reasons: Reasons = {}

    def open_pidfd() -> None:
        nonlocal pidfd
        pidfd = sys_.pidfd_open(target)

    def compare() -> None:
        if not sys_.same_open_file(os.getpid(), target, read_fd):
            raise OSError(errno.EIO, "the answer is wrong")

    def read() -> None:
        if sys_.read_memory(target, ctypes.addressof(secret), 6) != b"meshfd":
            raise OSError(errno.EIO, "the answer is wrong")

    reasons["pidfd"] = _why(open_pidfd)
    reasons["getfd"] = _why(lambda: os.close(sys_.pidfd_getfd(pidfd, read_fd)))
    reasons["kcmp"] = _why(compare)
    reasons["memory"] = _why(read)
    os.close(write_fd)
    os.waitpid(target, 0)
    return reasons


def _try_identity() -> Reasons:
    def change() -> None:
        os.setgroups([NOBODY])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)

    return {"change": _why(change)}


def _why(attempt: Callable[[], object]) -> str | None:
    try:
        attempt()
    except OSError as error:
        return error.strerror
    return None
