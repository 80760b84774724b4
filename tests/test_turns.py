"""Whose turn it is among endpoints."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfd.model import Balance, Endpoint, SocketAddress, Upstream
from meshfd.turns import UPSTREAMS_MAX, Turns


def upstream_of(*weights: int, balance: Balance = Balance.ROUND_ROBIN, name: str = "u") -> Upstream:
    """Return an upstream whose endpoints have these weights, and ports from 1."""
    address = ip_address("127.0.0.1")
    endpoints = (Endpoint(SocketAddress(address, n + 1), one) for n, one in enumerate(weights))
    return Upstream(name, tuple(endpoints), balance=balance)


def ports(turns: Turns, upstream: Upstream, n_max: int = 8) -> list[int]:
    """Return the ports of the next turn."""
    return [endpoint.address.port for endpoint in turns.take(upstream, n_max)]  # type: ignore[union-attr]


def test_each_in_turn_and_then_those_after_it() -> None:
    """The first to be tried changes with each turn; the others follow in their order."""
    turns, upstream = Turns(), upstream_of(1, 1, 1)
    assert [ports(turns, upstream) for _ in range(4)] == [
        [1, 2, 3],
        [2, 3, 1],
        [3, 1, 2],
        [1, 2, 3],
    ]


def test_no_more_than_asked_for_and_none_without_weight() -> None:
    """A long list is cut, having been turned; a weight of 0 gets nothing."""
    turns, upstream = Turns(), upstream_of(*[1] * 1000, 0)
    assert [ports(turns, upstream, 3) for _ in range(2)] == [[1, 2, 3], [2, 3, 4]]
    assert 1001 not in {port for _ in range(1000) for port in ports(turns, upstream, 3)}
    assert ports(turns, upstream_of(0, 0)) == []


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12).filter(any))
def test_weights_are_turns(weights: list[int]) -> None:
    """In as many turns as the weights sum up to, each is first as often as its weight says."""
    turns, upstream = Turns(), upstream_of(*weights)
    firsts = Counter(ports(turns, upstream)[0] for _ in range(sum(weights)))
    assert firsts == {n + 1: weight for n, weight in enumerate(weights) if weight}


def test_random_goes_by_weight() -> None:
    """Who has all the weight is always first; where it is even nobody always is."""
    turns = Turns()
    one = upstream_of(0, 1000, balance=Balance.RANDOM)
    assert {ports(turns, one)[0] for _ in range(50)} == {2}
    even = upstream_of(1, 1, balance=Balance.RANDOM)
    assert {ports(turns, even)[0] for _ in range(200)} == {1, 2}  # else 1 in 2**199


@pytest.mark.parametrize("others", [UPSTREAMS_MAX - 1, UPSTREAMS_MAX])
def test_equal_upstreams_are_one_and_the_oldest_is_forgotten(others: int) -> None:
    """An upstream that is made anew for each call has turns; too many others take them away."""
    turns = Turns()
    assert ports(turns, upstream_of(1, 1))[0] == 1
    for number in range(others):
        ports(turns, upstream_of(1, 1, name=str(number)))
    assert ports(turns, upstream_of(1, 1))[0] == (2 if others < UPSTREAMS_MAX else 1)
