"""Resource limits of a service, as the configuration names them, and sizes in bytes.

A limit is one value for both, soft and hard, or ``[soft, hard]``; "unlimited" is a value. Names are
those of setrlimit(2) without RLIMIT_, in lower case. Limits in bytes may be written as sizes.
"""

from __future__ import annotations

import re
import resource
from typing import Final

from meshfd.wording import quote, suggest

UNLIMITED: Final = 2**64 - 1
"""RLIM_INFINITY, as the kernel has it (struct rlimit64)."""

SIZES: Final = {"as", "core", "data", "fsize", "memlock", "msgqueue", "rss", "stack"}
"""Limits in bytes. The rest are counts; cpu is in seconds, rttime in microseconds."""

COUNTS: Final = {"cpu", "nice", "nofile", "nproc", "rtprio", "rttime", "sigpending"}

NUMBERS: Final = {name: getattr(resource, f"RLIMIT_{name.upper()}") for name in SIZES | COUNTS}
"""Numbers of the limits on this architecture."""

_SIZE: Final = re.compile(r"([0-9]{1,18}) ?(|B|KiB|MiB|GiB|TiB|KB|MB|GB|TB)")
_UNITS: Final[dict[str, int]] = {
    "": 1,
    "B": 1,
    **{f"{letter}iB": 2 ** (10 * i) for i, letter in enumerate("KMGT", 1)},
    **{f"{letter}B": 10 ** (3 * i) for i, letter in enumerate("KMGT", 1)},
}


def parse_size(value: str | int) -> int:
    """Bytes, from a number or text such as "512MiB" or "1GB".

    Raises:
        ValueError: it is none.

    """
    text = str(value).strip()
    found = _SIZE.fullmatch(text)
    size = 0 if found is None else int(found[1]) * _UNITS[found[2]]
    if found is None or size >= UNLIMITED:
        raise ValueError(f'{quote(text)} is not a size; write such as 4096, "64KiB" or "512MiB"')
    return size


def parse_rlimit(name: str, value: str | int | list[str | int]) -> tuple[int, int]:
    """Soft and hard limit.

    Raises:
        ValueError: there is no such limit, or this is no value of it.

    """
    if name not in NUMBERS:
        raise ValueError(f"there is no limit {quote(name)}; {suggest(name, NUMBERS, none='')}")
    values = value if isinstance(value, list) else [value, value]
    if len(values) != 2:  # noqa: PLR2004 -- soft and hard
        raise ValueError("write one value, or [soft, hard]")
    soft, hard = (_parse_one(name, one) for one in values)
    if soft > hard:
        raise ValueError("the soft limit is above the hard one; swap them")
    return soft, hard


def _parse_one(name: str, value: str | int) -> int:
    if value == "unlimited":
        return UNLIMITED
    if name in SIZES:
        return parse_size(value)
    if isinstance(value, int) and 0 <= value < UNLIMITED:
        return value
    raise ValueError(f'{quote(str(value))} is no count; write a whole number, or "unlimited"')
