"""Limits of cgroups as text: what may be named, what is written, what takes it back."""

from __future__ import annotations

import re
from itertools import starmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfd.cgroup_limits import (
    CONTROLLERS,
    FILES,
    Limit,
    Value,
    controllers_of,
    parse_limit,
    plan_writes,
)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("memory.max", "512MiB", "536870912"),
        ("memory.max", 4096, "4096"),
        ("memory.high", "max", "max"),
        ("memory.oom.group", 1, "1"),
        ("pids.max", 100, "100"),
        ("pids.max", "max", "max"),
        ("cpu.max", "50000 100000", "50000 100000"),
        ("cpu.max", 50000, "50000 100000"),
        ("cpu.max", " max  20000 ", "max 20000"),
        ("cpu.weight", 50, "50"),
        ("cpu.weight.nice", -5, "-5"),
        ("cpu.uclamp.max", "12.5", "12.5"),
        ("cpuset.cpus", "0-3,6", "0-3,6"),
        ("cpuset.mems", 0, "0"),
        ("hugetlb.2MB.max", "4MiB", "4194304"),
        ("hugetlb.1GB.rsvd.max", "max", "max"),
        ("io.weight", 200, "default 200"),
        ("io.weight", "8:16 200", "8:16 200"),
        ("io.max", "8:16 rbps=1048576 wiops=max", "8:16 rbps=1048576 wiops=max"),
        ("rdma.max", "mlx4_0 hca_handle=2 hca_object=max", "mlx4_0 hca_handle=2 hca_object=max"),
        ("misc.max", "sev 10", "sev 10"),
    ],
)
def test_line(name: str, value: Value, line: str) -> None:
    """A value is a size, a number or a text, and becomes what the kernel reads."""
    assert parse_limit(name, value) == (name, (line,))


def test_several_lines() -> None:
    """A file with a line for each device takes several."""
    lines = ["8:0 rbps=1", "8:16 wbps=2"]
    assert parse_limit("io.max", [*lines]) == ("io.max", tuple(lines))


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("memroy.max", 1, 'a cgroup has no limit "memroy.max"; did you mean "memory.max"?'),
        ("memory.current", 1, "a cgroup has no limit"),
        ("memory.limit_in_bytes", 1, "a cgroup has no limit"),
        ("cgroup.procs", 1, "a cgroup has no limit"),
        ("hugetlb.2MB.current", 1, "a cgroup has no limit"),
        ("../memory.max", 1, "a cgroup has no limit"),
        ("memory.max", "lots", '"lots" is not a size'),
        ("memory.max", -1, '"-1" is not a size'),
        ("pids.max", "many", '"many" cannot be; write a whole number, or "max"'),
        ("pids.max", -1, '"-1" cannot be; write a whole number, or "max"'),
        ("cpu.weight", 0, '"0" cannot be; write a whole number from 1 to 10000'),
        ("cpu.weight", "max", "write a whole number from 1 to 10000"),
        ("cpu.max", "half", '"half" cannot be; write such as "50000 100000"'),
        ("io.max", "sda rbps=1", '"sda rbps=1" cannot be; write such as "8:16 rbps='),
        ("memory.max", [1, 2], "this limit has one value; write it without brackets"),
        ("io.max", [], "write one line for each device or resource"),
        ("io.max", ["8:0 rbps=1", "8:0 wbps=1"], "write one line for each device or resource"),
    ],
)
def test_fault(name: str, value: Value | list[Value], fault: str) -> None:
    """Files that are no limits, and values that the kernel would not take, are refused."""
    with pytest.raises(ValueError, match=re.escape(fault)):
        parse_limit(name, value)


def test_every_controller() -> None:
    """The controllers whose limits are known are those of the kernel that limit something."""
    assert {*CONTROLLERS} == {"memory", "pids", "cpu", "cpuset", "io", "hugetlb", "rdma", "misc"}
    limits = [
        parse_limit("memory.max", 1),
        parse_limit("memory.low", 1),
        parse_limit("pids.max", 1),
    ]
    assert controllers_of(limits) == ("memory", "pids")


# --- from some limits to others -------------------------------------------------------------------

DEVICES = ("8:0", "8:16", "8:32")
FULL_LINE = "rbps=max wbps=max riops=max wiops=max"

single = st.builds(
    parse_limit,
    st.sampled_from(
        [name for name, kind in FILES.items() if kind.parse is FILES["pids.max"].parse]
    ),
    st.integers(0, 9),
)
lined = st.dictionaries(st.sampled_from(DEVICES), st.integers(1, 9), min_size=1).map(
    lambda values: parse_limit("io.max", [f"{one} rbps={n}" for one, n in values.items()])
)
several = st.lists(
    st.one_of(
        single,
        lined,
        st.builds(parse_limit, st.sampled_from(["memory.max", "memory.low"]), st.integers(0, 9)),
    ),
    unique_by=lambda limit: limit[0],
).map(tuple)


class Files:
    """Interface files, as the kernel keeps them: of io.max one line a device, the others one."""

    def __init__(self) -> None:
        """Nothing has been written yet."""
        self.held = {"pids.max": "max", "memory.max": "max", "memory.low": "0"}
        self.devices = {"8:32": "rbps=7 wbps=max riops=max wiops=max"}

    def write(self, name: str, line: str) -> None:
        """Take one write; a device whose limits are all "max" has no line any more."""
        if name != "io.max":
            self.held[name] = line
            return
        device, _, rest = line.partition(" ")
        new = dict(word.split("=") for word in rest.split())
        old = dict(word.split("=") for word in self.devices.get(device, FULL_LINE).split())
        text = " ".join(starmap("{}={}".format, (old | new).items()))
        self.devices.pop(device, None)
        if text != FULL_LINE:
            self.devices[device] = text

    def content(self, name: str) -> str:
        """What is read."""
        if name != "io.max":
            return self.held[name] + "\n"
        return "".join(f"{device} {rest}\n" for device, rest in self.devices.items())

    def all(self) -> dict[str, object]:
        """Everything, the order of devices aside."""
        return {**self.held, "io.max": dict(self.devices)}


def move(files: Files, old: tuple[Limit, ...], new: tuple[Limit, ...]) -> None:
    """Go from limits to others."""
    before = {name: Files().content(name) for name, _ in (*old, *new)}
    for name, lines in plan_writes(old, new, before):
        for line in lines:
            files.write(name, line)


@given(several, several)
def test_a_change_is_as_if_the_old_had_never_been(
    old: tuple[Limit, ...], new: tuple[Limit, ...]
) -> None:
    """Whatever limits were in force, others leave what they would have left alone."""
    changed, fresh = Files(), Files()
    move(changed, (), old)
    move(changed, old, new)
    move(fresh, (), new)
    assert changed.all() == fresh.all()
    move(changed, new, ())
    assert changed.all() == Files().all()
