"""What we start ends with us, even if we are killed.

Theory of operation: the kernel sends the signal when the thread that started the program ends, so
that has to be our first one. A change of user forgets it, therefore it comes after that in a
command line; exec() keeps it. A program that has started others is sent what it ends them at, since
what is below it hears nothing. Source: PR_SET_PDEATHSIG(2const).
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

from tests.bench.errors import BenchError
from tests.support.need import find_tool


def tethered(command: Sequence[str], signo: signal.Signals = signal.SIGKILL) -> list[str]:
    """Return a command line that runs ``command`` so; setpriv(1) becomes it.

    ``signo``: sent to it when we have ended.

    Raises:
        BenchError: there is no setpriv.

    """
    setpriv = find_tool("setpriv")
    if setpriv is None:
        raise BenchError("setpriv is not installed (Debian: util-linux)")
    return [setpriv, "--pdeathsig", signo.name.removeprefix("SIG"), "--", *command]
