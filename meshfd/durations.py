"""Durations as text: ``5s``, ``100ms``, ``1m30s``, ``2h``, or a plain number of seconds.

In memory a duration is a float, in seconds. Text holds at most nanoseconds.
Limits: `DURATION_MAX_S`; agents count milliseconds in 32 bits (native/wire.h), which is 49 days.
"""

from __future__ import annotations

import re
from fractions import Fraction

from meshfd.wording import quote

DURATION_MAX_S = 30 * 24 * 3600
"""30 days."""

_NUMBER = r"([0-9]{1,10}(?:\.[0-9]{1,9})?)"
_PLAIN = re.compile(_NUMBER)
_UNITS = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m(?!s))?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?")
_UNIT_SECONDS = (Fraction(3600), Fraction(60), Fraction(1), Fraction(1, 1000))
_NS = 10**9


def parse_duration(value: str | float) -> float:
    """Read a duration, from text or from a number of seconds; gives seconds.

    Raises:
        ValueError: it is none, or longer than `DURATION_MAX_S`.

    """
    seconds = _parse_text(value) if isinstance(value, str) else value
    if not 0 <= seconds <= DURATION_MAX_S:  # which no NaN passes
        raise ValueError("a duration is from 0 to 30 days")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """Write a duration so that `parse_duration` reads it, to the nanosecond."""
    rest = round(Fraction(seconds) * _NS)
    if 0 < rest < _NS:
        return f"{_decimal(rest * 1000)}ms"
    text = ""
    for unit, unit_s in (("h", 3600), ("m", 60)):
        n, rest = divmod(rest, unit_s * _NS)
        text += f"{n}{unit}" if n else ""
    return text if text and not rest else f"{text}{_decimal(rest)}s"


def _parse_text(text: str) -> Fraction:
    stripped = text.strip()
    if _PLAIN.fullmatch(stripped):
        return Fraction(stripped)
    found = _UNITS.fullmatch(stripped) if stripped else None
    if found is None:
        raise ValueError(f'{quote(text)} is not a duration; write such as "5s", "100ms" or "1m30s"')
    return sum(
        (
            Fraction(n) * unit_s
            for n, unit_s in zip(found.groups(), _UNIT_SECONDS, strict=True)
            if n
        ),
        Fraction(0),
    )


def _decimal(billionths: int) -> str:
    whole, fraction = divmod(billionths, _NS)
    return f"{whole}.{fraction:09}".rstrip("0").rstrip(".")
