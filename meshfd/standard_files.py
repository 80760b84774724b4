"""Standard files that are closed.

Theory of operation: a process that was started with standard input, output or error closed gives
those numbers to the next files that it opens, and then hands its own files to whoever is to inherit
its standard files. So /dev/null takes the numbers first (`fill_standard_files`, for the commands),
or is handed on in their place (the library, whose process is somebody else's).
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False  # see meshfd.records
if TYPE_CHECKING:
    from typing import Final

STDERR: Final = 2


def fill_standard_files() -> None:
    """Give the numbers of closed standard files to /dev/null; it is close-on-exec."""
    while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= STDERR:
        pass
    os.close(fd)


def is_inheritable(fd: int) -> bool:
    """Whether a child would have it: what is close-on-exec is no standard file.

    trio, for one, has three files open before we are asked anything.
    """
    try:
        return os.get_inheritable(fd)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return False
