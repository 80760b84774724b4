"""How many files may be open: as many as we are allowed, and for services what was ours.

Theory of operation: a supervisor holds half a dozen fds for each service that runs. The usual soft
limit of 1,024 is there for the sake of select(2), which we do not use; so it is raised to the hard
one. What a service runs may use select(2): it is given the limits that we were started with, unless
it has its own (`rlimits`).
Source: getrlimit(2), RLIMIT_NOFILE; select(2), BUGS.
"""

from __future__ import annotations

import contextlib
import resource
from typing import Final

from meshfd.rlimits import NUMBERS, UNLIMITED

_NOFILE: Final = NUMBERS["nofile"]
_INHERITED: Final = resource.getrlimit(_NOFILE)


def raise_own() -> None:
    """Raise our soft limit to the hard one, as far as the kernel lets us."""
    hard = _INHERITED[1]
    with contextlib.suppress(ValueError, OSError):  # fs.nr_open has been lowered since
        resource.setrlimit(_NOFILE, (hard, hard))


def with_inherited(rlimits: tuple[tuple[int, int, int], ...]) -> tuple[tuple[int, int, int], ...]:
    """These limits of a program, and the one that we were started with if it is not among them."""
    is_raised = resource.getrlimit(_NOFILE) != _INHERITED
    if not is_raised or any(number == _NOFILE for number, _, _ in rlimits):
        return rlimits
    soft, hard = (UNLIMITED if one == resource.RLIM_INFINITY else one for one in _INHERITED)
    return (*rlimits, (_NOFILE, soft, hard))
