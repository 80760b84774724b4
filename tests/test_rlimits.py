"""Limits and sizes as text."""

from __future__ import annotations

import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfd.rlimits import COUNTS, NUMBERS, SIZES, UNLIMITED, parse_rlimit, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (4096, 4096),
        ("4096", 4096),
        ("10B", 10),
        ("64KiB", 64 * 1024),
        ("512 MiB", 512 * 1024**2),
        ("1GB", 10**9),
        ("2TiB", 2 * 1024**4),
    ],
)
def test_size(text: str | int, size: int) -> None:
    """A size is a number of bytes, or has a unit of 1000 or of 1024."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", -1, "1.5GiB", "64K", "1 PiB", "99999999999TiB"])
def test_bad_size(text: str | int) -> None:
    """Everything else is refused, also what does not fit."""
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@given(st.sampled_from(sorted(COUNTS)), st.integers(0, UNLIMITED - 1), st.integers(0, UNLIMITED))
def test_soft_and_hard(name: str, soft: int, more: int) -> None:
    """One value stands for both; two are soft and hard."""
    hard = min(soft + more, UNLIMITED - 1)
    assert parse_rlimit(name, soft) == (soft, soft)
    assert parse_rlimit(name, [soft, hard]) == (soft, hard)
    assert parse_rlimit(name, [soft, "unlimited"]) == (soft, UNLIMITED)


def test_names() -> None:
    """Every limit of the C library has a name here, but for those that are not the kernel's."""
    known = {name.removeprefix("RLIMIT_").lower() for name in vars(resource) if "RLIMIT_" in name}
    assert known - {"ofile"} == SIZES | COUNTS
    assert NUMBERS["nofile"] == resource.RLIMIT_NOFILE
