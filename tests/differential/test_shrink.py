"""What differs is made small, without a kernel; and what a mask takes out is only that."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.differential.daemons import NEEDED, make_daemon
from tests.differential.masks import asked, masked
from tests.differential.sequences import make, parse_transcripts, written
from tests.differential.shrink import shrink


@given(st.lists(st.integers(0, 30), unique=True), st.sets(st.integers(0, 30)))
def test_what_is_needed_is_all_that_is_left(items: list[int], needed: set[int]) -> None:
    """When some items make it fail together, exactly those are left, in their order."""
    needed &= set(items)
    assert shrink(items, lambda part: needed <= set(part)) == [
        item for item in items if item in needed
    ]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.data())
def test_the_result_fails_and_no_item_can_go(items: list[int], data: st.DataObject) -> None:
    """Whatever makes it fail: the result does, is a part, and does not without any one item."""
    bound = data.draw(st.integers(0, sum(items)))

    def fails(part: Sequence[int]) -> bool:
        return sum(part) >= bound and len(part) % 3 != 2

    if not fails(items):
        return
    result = shrink(items, fails)
    rest = iter(items)
    assert all(item in rest for item in result)
    assert fails(result)
    assert not any(fails(result[:at] + result[at + 1 :]) for at in range(len(result)))


def test_a_failure_that_needs_nothing_is_empty() -> None:
    """What fails always fails with nothing at all."""
    assert shrink([1, 2, 3], lambda _: True) == []


def test_a_seed_is_a_sequence_for_ever() -> None:
    """The same seed gives the same sequence, another gives another."""
    assert make(7) == make(7)
    assert len({make(seed) for seed in range(100)}) == 100
    assert make_daemon(7) == make_daemon(7)


def test_a_daemon_keeps_its_socket() -> None:
    """A sequence of a daemon binds and listens, and does nothing that would end the socket."""
    for seed in range(200):
        sequence = make_daemon(seed)
        assert set(NEEDED) <= set(sequence)
        ends = ("close 0", "shutdown 0", "unconnect 0", "dup2 1 0", "socket 0")
        assert not any(line.startswith(ends) for line in sequence[1:])


def test_transcripts_come_back_by_seed() -> None:
    """A file names each sequence's seed and end; transcripts are split at the seeds."""
    assert written({3: ["state 0"], 4: []}) == "seed 3\nstate 0\nend\nseed 4\nend\n"
    assert parse_transcripts("seed 3\na\nb\nseed 4\n") == {3: ["a", "b"], 4: []}


@pytest.mark.parametrize(
    ("line", "traits", "expected"),
    [
        ("3 look 0: 2 1:in 2:out+hup gone", (), "3 look 0: 2 1:in 2:out+hup gone"),
        ("3 look 0: 2 1:in 2:out+hup gone", ("--track", "create"), "3 look 0: 1 1:in"),
        ("3 look 0: 0", ("--track", "create"), "3 look 0: 0"),
        ("3 look 0: 2 1:in 100:in", ("--track", "create"), "3 look 0: 1 1:in"),
        ("3 connect 0 hole4: EALREADY", (), "3 connect 0 hole4: EALREADY"),
    ],
)
def test_masks(line: str, traits: tuple[str, ...], expected: str) -> None:
    """A mask changes the lines that it is about, in the modes that it is about, and no others."""
    assert masked([line], traits) == [expected]


@pytest.mark.parametrize(
    ("line", "traits", "is_asked"),
    [
        ("sendto 2 3 echo4 fastopen", (), True),
        ("sendto 2 3 echo4 fastopen", ("--strict",), False),
        ("sendto 2 3 udp-echo4", ("--strict",), True),
        ("sendto 2 3 udp-echo4", ("--strict", "i386"), False),
        ("connect 2 any4:echo4", ("--strict",), True),
        ("connect 2 any4:echo4", ("--transparent",), False),
        ("misconnect 2 any6:echo4 8", ("--transparent",), False),
    ],
)
def test_omissions(line: str, traits: tuple[str, ...], is_asked: bool) -> None:
    """An operation is left out in the modes where it is documented to differ, and in no others."""
    assert (line in asked([line], traits)) == is_asked
