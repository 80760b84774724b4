"""The few system calls that Python has no name for, as `meshfd doctor` needs them to probe.

Numbers and layouts are those of x86_64 and aarch64 (64-bit). Each function raises OSError with the
kernel's errno. Source: seccomp(2), seccomp_unotify(2), pidfd_getfd(2), kcmp(2), prctl(2),
process_vm_readv(2), linux/seccomp.h, linux/filter.h.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

_NUMBERS: Final = {
    "x86_64": {"seccomp": 317, "kcmp": 312, "process_vm_readv": 310},
    "aarch64": {"seccomp": 277, "kcmp": 272, "process_vm_readv": 270},
}
_PIDFD_OPEN, _PIDFD_GETFD = 434, 438  # the same everywhere

_SET_MODE_FILTER, _GET_NOTIF_SIZES = 1, 3
NEW_LISTENER, WAIT_KILLABLE_RECV = 1 << 3, 1 << 5
ADDFD_SETFD, ADDFD_SEND = 1, 2
SYNC_WAKE_UP = 1
PIDFD_THREAD = os.O_EXCL

_PR_SET_NO_NEW_PRIVS = 38
_IOCTL_ADDFD, _IOCTL_SET_FLAGS = 0x40182103, 0x40082104
_KCMP_FILE = 0
_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
# No system call has this number, so nothing that runs under the probe's filter is ever held up.
_UNUSED_NUMBER = 65535
_RET_USER_NOTIF, _RET_ALLOW = 0x7FC00000, 0x7FFF0000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def known_architecture() -> bool:
    """Whether the numbers here are this machine's."""
    return os.uname().machine in _NUMBERS


def notification_sizes() -> tuple[int, int, int]:
    """Bytes of a seccomp notification, its response, and the filter's data."""
    sizes = (ctypes.c_uint16 * 3)()
    _call(_number("seccomp"), _GET_NOTIF_SIZES, 0, ctypes.addressof(sizes))
    return sizes[0], sizes[1], sizes[2]


def install_probe_filter(flags: int) -> int:
    """Install a filter that notifies on no real system call, for good; the listener's fd."""
    code = b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (0x20, 0, 0, 0),  # load the system call's number
            (0x15, 0, 1, _UNUSED_NUMBER),
            (0x06, 0, 0, _RET_USER_NOTIF),
            (0x06, 0, 0, _RET_ALLOW),
        )
    )
    instructions = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(instructions))
    )
    return _call(_number("seccomp"), _SET_MODE_FILTER, flags, ctypes.addressof(program))


def set_no_new_privs() -> None:
    """Give up what setuid programs would gain, as unprivileged filters require."""
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        _raise()


def add_fd_to_nobody(listener_fd: int, flags: int) -> None:
    """SECCOMP_IOCTL_NOTIF_ADDFD for a notification that there is not: always raises.

    ENOENT when the kernel knows the flags and missed the notification, EINVAL when it does not.
    """
    request = ctypes.create_string_buffer(struct.pack("QIIII", (1 << 64) - 2, flags, 0, 0, 0))
    if _libc.ioctl(listener_fd, ctypes.c_ulong(_IOCTL_ADDFD), request) != 0:
        _raise()


def set_listener_flags(listener_fd: int, flags: int) -> None:
    """SECCOMP_IOCTL_NOTIF_SET_FLAGS."""
    if _libc.ioctl(listener_fd, ctypes.c_ulong(_IOCTL_SET_FLAGS), ctypes.c_ulong(flags)) != 0:
        _raise()


def pidfd_open(pid: int, flags: int = 0) -> int:
    """A pidfd, close-on-exec."""
    return _call(_PIDFD_OPEN, pid, flags)


def pidfd_getfd(pidfd: int, target_fd: int) -> int:
    """A duplicate of another process's fd."""
    return _call(_PIDFD_GETFD, pidfd, target_fd, 0)


def same_open_file(pid: int, other_pid: int, fd: int) -> bool:
    """Whether this fd is the same open file in both processes."""
    return _call(_number("kcmp"), pid, other_pid, _KCMP_FILE, fd, fd) == 0


def read_memory(pid: int, address: int, n_bytes: int) -> bytes:
    """Bytes of another process's memory."""
    buffer = ctypes.create_string_buffer(n_bytes)
    local = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(buffer), n_bytes))
    remote = ctypes.create_string_buffer(struct.pack("PN", address, n_bytes))
    n_read = _call(
        _number("process_vm_readv"),
        pid,
        ctypes.addressof(local),
        1,
        ctypes.addressof(remote),
        1,
        0,
    )
    return buffer.raw[:n_read]


def new_network_namespace() -> None:
    """Move this thread to a new network namespace."""
    if _libc.unshare(ctypes.c_int(_CLONE_NEWNET)) < 0:
        _raise()


def _number(name: str) -> int:
    return _NUMBERS[os.uname().machine][name]


def _call(number: int, *arguments: int) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    if result < 0:
        _raise()
    return result


def _raise() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))
