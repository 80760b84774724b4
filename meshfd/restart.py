"""Whether a service that ended is started again, and after how long.

Theory of operation: the delay before a restart starts at ``first_s`` and doubles up to ``last_s``,
so that a program that fails at once does not keep the machine busy; a run that lasted longer than
``reset_s`` was a good one, and the delay starts over. Pure: nothing here waits.
"""

from __future__ import annotations

from meshfd.model import Backoff, Restart


def must_restart(policy: Restart, code: int) -> bool:
    """Whether the policy starts a program again that ended by itself.

    ``code`` is its exit code, or minus the number of the signal that ended it: a signal is a
    failure, as is a program that could not be started at all.
    """
    if policy is Restart.ON_FAILURE:
        return code != 0
    return policy is Restart.ALWAYS


def restart_delay_s(backoff: Backoff, previous_s: float | None, ran_s: float) -> float:
    """How many seconds to wait before the next start.

    ``previous_s`` is what this function gave for the restart before (None: there was none),
    ``ran_s`` how long the program ran since.
    """
    if previous_s is None or ran_s > backoff.reset_s:
        return min(backoff.first_s, backoff.last_s)
    # A first delay of 0 asks for restarts at once, and 0 doubled stays that.
    return min(max(previous_s, backoff.first_s) * 2, backoff.last_s)
