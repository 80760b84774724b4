"""In which order services start."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfd.errors import ControlError
from meshfd.order import start_order, with_dependencies

# Each name may depend on those before it, so there is no circle; the order of keys is shuffled.
acyclic = st.integers(0, 8).flatmap(
    lambda n: st.tuples(
        *(st.sets(st.sampled_from(range(i)) if i else st.nothing()) for i in range(n))
    ).flatmap(
        lambda needs: st.permutations(range(len(needs))).map(
            lambda order: {str(i): tuple(str(j) for j in sorted(needs[i])) for i in order}
        )
    )
)


@given(acyclic)
def test_each_starts_after_what_it_depends_on(needs: dict[str, tuple[str, ...]]) -> None:
    """Every service is in the order once, after all of its dependencies."""
    order = start_order(needs)
    assert sorted(order) == sorted(needs)
    for name, others in needs.items():
        assert all(order.index(other) < order.index(name) for other in others)


def test_without_dependencies_the_order_is_the_files() -> None:
    """What nothing orders starts in the order in which it is written."""
    assert start_order({"b": (), "a": (), "c": ()}) == ("b", "a", "c")


@given(acyclic, st.data())
def test_dependencies_come_along(needs: dict[str, tuple[str, ...]], data: st.DataObject) -> None:
    """Starting services starts all that they need, directly or not, and nothing else."""
    names = data.draw(st.sets(st.sampled_from(sorted(needs)) if needs else st.nothing()))
    expected = set(names)
    for _ in needs:
        expected |= {other for name in expected for other in needs[name]}
    order = with_dependencies(needs, names)
    assert set(order) == expected
    assert order == tuple(name for name in start_order(needs) if name in expected)


def test_a_circle_is_refused() -> None:
    """Services that wait for each other are named."""
    with pytest.raises(ControlError, match="circle: a, b"):
        start_order({"a": ("b",), "b": ("a",)})


def test_an_unknown_dependency_is_refused() -> None:
    """A dependency that is no service is named."""
    with pytest.raises(ControlError, match="a depends on nowhere"):
        start_order({"a": ("nowhere",)})
