"""Limits of a service's cgroup (version 2), as the configuration and the kernel have them.

Theory of operation: a limit is an interface file, such as memory.max, and what is written there.
Most files hold one value. Others hold a line for each device or resource, whose first word names
it ("8:16 rbps=1048576"); the kernel takes one line a write, and leaves the other lines alone. So
a limit becomes lines, each a write of its own, and what takes a limit back is lines, too: what was
there before, and for a device that had no line, the words that make it have none.

Limits: files that only tell something are not here, nor those that do more than limit
(cpuset.cpus.partition, cgroup.*); of the controllers, those in `CONTROLLERS`.
Source: linux/Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from meshfd.rlimits import UNLIMITED, parse_size
from meshfd.wording import quote, suggest

MAX: Final = "max"
_ANY: Final = UNLIMITED - 1  # no bound but the kernel's own

Value = str | int
"""What a limit is given in the configuration."""

Limit = tuple[str, tuple[str, ...]]
"""The name of an interface file, and the lines that are written there, one a write."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What an interface file takes; ``none``: of a file of lines, the rest of an empty one."""

    parse: Callable[[Value], str]
    none: str | None = None


def _sized(value: Value) -> str:
    return MAX if value == MAX else str(parse_size(value))


def _whole(first: int, last: int, *, or_max: bool = False) -> Callable[[Value], str]:
    def parse(value: Value) -> str:
        if isinstance(value, int) and first <= value <= last:
            return str(value)
        if or_max and value == MAX:
            return MAX
        bounds = f" from {first} to {last}" if last < _ANY else ""
        also = f', or "{MAX}"' if or_max else ""
        raise ValueError(f"{quote(str(value))} cannot be; write a whole number{bounds}{also}")

    return parse


def _text(pattern: str, example: str) -> Callable[[Value], str]:
    expression = re.compile(pattern, re.ASCII)

    def parse(value: Value) -> str:
        text = " ".join(str(value).split())
        if not expression.fullmatch(text):
            raise ValueError(f"{quote(str(value))} cannot be; write such as {quote(example)}")
        return text

    return parse


def _share(value: Value) -> str:
    """io.weight: a number alone is everybody's."""
    return _SHARE(f"default {value}" if str(value).isdecimal() else value)


def _bandwidth(value: Value) -> str:
    """cpu.max, in full: the kernel would leave a period that is not named as it was."""
    quota, _, period = _BANDWIDTH(value).partition(" ")
    return f"{quota} {period or _PERIOD_US}"


_PERIOD_US: Final = 100_000  # the kernel's default
_DEVICE: Final = "[0-9]+:[0-9]+"
_BANDWIDTH: Final = _text("(max|[0-9]+)( [0-9]+)?", "50000 100000")
_SHARE: Final = _text(f"(default|{_DEVICE}) [0-9]+", "8:16 200")
_COUNT: Final = _whole(0, _ANY, or_max=True)
_SIZE: Final = _Kind(_sized)
_SWITCH: Final = _Kind(_whole(0, 1))
_NUMBERS: Final = _Kind(_text("[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*", "0-3,6"))
_PERCENT: Final = _Kind(_text(r"max|[0-9]{1,3}(\.[0-9]{1,2})?", "12.5"))

_HUGETLB: Final = re.compile(r"hugetlb\.[0-9]+[KMG]B(\.rsvd)?\.max", re.ASCII)
_HUGETLB_EXAMPLES: Final = ("hugetlb.2MB.max", "hugetlb.2MB.rsvd.max")

FILES: Final = {
    "memory.max": _SIZE,
    "memory.high": _SIZE,
    "memory.low": _SIZE,
    "memory.min": _SIZE,
    "memory.swap.max": _SIZE,
    "memory.swap.high": _SIZE,
    "memory.zswap.max": _SIZE,
    "memory.zswap.writeback": _SWITCH,
    "memory.oom.group": _SWITCH,
    "pids.max": _Kind(_COUNT),
    "cpu.max": _Kind(_bandwidth),
    "cpu.max.burst": _Kind(_whole(0, _ANY)),
    "cpu.weight": _Kind(_whole(1, 10_000)),
    "cpu.weight.nice": _Kind(_whole(-20, 19)),
    "cpu.idle": _SWITCH,
    "cpu.uclamp.min": _PERCENT,
    "cpu.uclamp.max": _PERCENT,
    "cpuset.cpus": _NUMBERS,
    "cpuset.cpus.exclusive": _NUMBERS,
    "cpuset.mems": _NUMBERS,
    "io.weight": _Kind(_share, none="default"),
    "io.max": _Kind(
        _text(
            f"{_DEVICE}( (rbps|wbps|riops|wiops)=(max|[0-9]+))+",
            "8:16 rbps=1048576 wiops=120",
        ),
        none="rbps=max wbps=max riops=max wiops=max",
    ),
    "io.latency": _Kind(_text(f"{_DEVICE} target=[0-9]+", "8:16 target=10000"), none="target=0"),
    "io.prio.class": _Kind(
        _text("no-change|promote-to-rt|restrict-to-be|idle|none-to-rt", "restrict-to-be")
    ),
    "rdma.max": _Kind(
        _text("[^ ]+( hca_(handle|object)=(max|[0-9]+))+", "mlx4_0 hca_handle=2 hca_object=2000"),
        none="hca_handle=max hca_object=max",
    ),
    "misc.max": _Kind(_text("[^ ]+ (max|[0-9]+)", "sev 10"), none="max"),
}
"""Every limit but those of hugetlb, whose names have the size of a page."""

CONTROLLERS: Final = (*dict.fromkeys(name.partition(".")[0] for name in FILES), "hugetlb")


def controllers_of(limits: Iterable[Limit]) -> tuple[str, ...]:
    """The controllers whose these are, each once."""
    return tuple(dict.fromkeys(name.partition(".")[0] for name, _ in limits))


def parse_limit(name: str, value: Value | list[Value]) -> Limit:
    """A limit; a file of lines takes several values.

    Raises:
        ValueError: there is no such limit, or this is no value of it.

    """
    kind = _kind_of(name)
    if kind is None:
        known = suggest(name, [*FILES, *_HUGETLB_EXAMPLES], none="")
        raise ValueError(f"a cgroup has no limit {quote(name)}; {known}")
    if not isinstance(value, list):
        return name, (kind.parse(value),)
    if kind.none is None:
        raise ValueError("this limit has one value; write it without brackets")
    lines = tuple(kind.parse(one) for one in value)
    keys = [_key(line) for line in lines]
    if not lines or len(set(keys)) < len(keys):
        raise ValueError("write one line for each device or resource")
    return name, lines


def plan_writes(
    old: Iterable[Limit], new: Iterable[Limit], before: Mapping[str, str]
) -> tuple[Limit, ...]:
    """What leads from the limits in force to new ones.

    ``before``: what each file held when it had no limit of ours; what goes is that again.
    """
    wanted = dict(new)
    back = [_back(name, lines, wanted.get(name, ()), before[name]) for name, lines in old]
    return (*(limit for limit in back if limit[1]), *wanted.items())


def _back(name: str, lines: tuple[str, ...], new: tuple[str, ...], before: str) -> Limit:
    """What takes a limit back, as far as the new one does not go over it."""
    kind = _kind_of(name)
    if kind is None or kind.none is None:
        return name, () if new else (before.strip(),)
    had = {_key(line): line for line in before.splitlines()}
    stay = set(map(_key, new))
    gone = [key for key in map(_key, lines) if key not in stay]
    return name, tuple(had.get(key, f"{key} {kind.none}") for key in gone)


def _kind_of(name: str) -> _Kind | None:
    return _SIZE if _HUGETLB.fullmatch(name) else FILES.get(name)


def _key(line: str) -> str:
    return line.partition(" ")[0]
