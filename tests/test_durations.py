"""Durations as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfd.durations import DURATION_MAX_S, format_duration, parse_duration


@given(st.integers(0, DURATION_MAX_S * 10**9))
def test_inverse(nanoseconds: int) -> None:
    """What format_duration writes, parse_duration reads as the same number, to the nanosecond."""
    seconds = nanoseconds / 10**9
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("value", "seconds", "canonical"),
    [
        ("5s", 5, "5s"),
        ("5", 5, "5s"),
        (5, 5, "5s"),
        (0.1, 0.1, "100ms"),
        ("100ms", 0.1, "100ms"),
        ("1500ms", 1.5, "1.5s"),
        ("1.5s", 1.5, "1.5s"),
        ("1m30s", 90, "1m30s"),
        ("90s", 90, "1m30s"),
        ("2h", 7200, "2h"),
        ("1h1ms", 3600.001, "1h0.001s"),
        ("720h", DURATION_MAX_S, "720h"),
        (" 0 ", 0, "0s"),
        ("0.000001ms", 1e-9, "0.000001ms"),
    ],
)
def test_reads(value: str | float, seconds: float, canonical: str) -> None:
    """Units may be combined, largest first; a plain number is in seconds."""
    assert parse_duration(value) == seconds
    assert format_duration(seconds) == canonical


@pytest.mark.parametrize(
    "text", ["", "s", "5 s", "5x", "30s1m", "-1s", "1e3s", "1s1s", "\u0665s", "soon"]
)
def test_refuses_text(text: str) -> None:
    """What is not a duration is refused, with examples of what is."""
    with pytest.raises(
        ValueError, match='is not a duration; write such as "5s", "100ms" or "1m30s"'
    ):
        parse_duration(text)


@pytest.mark.parametrize(
    "value", [-1, -0.5, float("inf"), float("nan"), 10**400, "721h", DURATION_MAX_S + 1]
)
def test_refuses_range(value: str | float) -> None:
    """A duration that is negative, endless or longer than agents can count is refused."""
    with pytest.raises(ValueError, match="a duration is from 0 to 30 days"):
        parse_duration(value)
