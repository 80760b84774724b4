"""Whether and when a service that ended is started again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfd.model import Backoff, Restart
from meshfd.restart import must_restart, restart_delay_s

delays_s = st.floats(0.001, 100, allow_nan=False)


@pytest.mark.parametrize(
    ("policy", "code", "expected"),
    [
        (Restart.NO, 0, False),
        (Restart.NO, 1, False),
        (Restart.NO, -9, False),
        (Restart.ON_FAILURE, 0, False),
        (Restart.ON_FAILURE, 1, True),
        (Restart.ON_FAILURE, -15, True),
        (Restart.ALWAYS, 0, True),
        (Restart.ALWAYS, 1, True),
        (Restart.ALWAYS, -9, True),
    ],
)
def test_policy(policy: Restart, code: int, *, expected: bool) -> None:
    """`no` never restarts, `on-failure` after a status or a signal, `always` always."""
    assert must_restart(policy, code) is expected


def test_delays_double_up_to_the_last() -> None:
    """Runs that end at once are restarted after first_s, then twice that, never above last_s."""
    backoff = Backoff(first_s=0.5, last_s=3, reset_s=10)
    delay_s: float | None = None
    seen = []
    for _ in range(5):
        delay_s = restart_delay_s(backoff, delay_s, ran_s=0.1)
        seen.append(delay_s)
    assert seen == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_long_run_starts_the_delays_over() -> None:
    """A run of more than reset_s makes the next delay first_s again; one of just that does not."""
    backoff = Backoff(first_s=0.5, last_s=30, reset_s=10)
    assert restart_delay_s(backoff, 8.0, ran_s=10.1) == 0.5
    assert restart_delay_s(backoff, 8.0, ran_s=10.0) == 16.0


@given(st.builds(Backoff, delays_s, delays_s, delays_s), st.none() | delays_s, st.floats(0, 1000))
def test_delays_stay_in_bounds(backoff: Backoff, previous_s: float | None, ran_s: float) -> None:
    """No delay is above last_s, and none below the smaller of first_s and last_s."""
    delay_s = restart_delay_s(backoff, previous_s, ran_s)
    assert min(backoff.first_s, backoff.last_s) <= delay_s <= backoff.last_s
