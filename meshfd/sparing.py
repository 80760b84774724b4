"""Warnings that a program could cause at will, kept from flooding the log."""

from __future__ import annotations


class Sparing:
    """Lets one message of a kind through per interval, and counts the rest."""

    def __init__(self, interval_s: float = 10.0) -> None:
        self._interval_s = interval_s
        self._last_s: dict[object, float] = {}
        self._held_back: dict[object, int] = {}

    def admit(self, kind: object, now_s: float) -> int | None:
        """How many were held back since the last one that passed, or None to hold this one back.

        ``kind`` comes from a fixed set: each is remembered.
        """
        last_s = self._last_s.get(kind)
        if last_s is not None and now_s - last_s < self._interval_s:
            self._held_back[kind] = self._held_back.get(kind, 0) + 1
            return None
        self._last_s[kind] = now_s
        return self._held_back.pop(kind, 0)
