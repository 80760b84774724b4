"""In which order services start and stop, from their ``depends_on``.

Pure. A configuration that was loaded has no cycle and no unknown name; what could arrive here
through a partial reload is checked again and refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshfd.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def start_order(dependencies: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Every name, each after all that it depends on; otherwise in the order given.

    Raises:
        ControlError: a dependency is not among the names, or depends on itself through others.

    """
    order: list[str] = []
    placed: set[str] = set()
    waiting = {name: tuple(needs) for name, needs in dependencies.items()}
    for name, needs in waiting.items():
        for needed in needs:
            if needed not in waiting:
                message = f"service {name} depends on {needed}, which there is not"
                raise ControlError(message)
    while waiting:
        ready = next((n for n, needs in waiting.items() if placed.issuperset(needs)), None)
        if ready is None:
            message = f"services depend on each other in a circle: {', '.join(waiting)}"
            raise ControlError(message)
        del waiting[ready]
        placed.add(ready)
        order.append(ready)
    return tuple(order)


def with_dependencies(
    dependencies: Mapping[str, Iterable[str]], names: Iterable[str]
) -> tuple[str, ...]:
    """The names and all that they depend on, in the order in which to start them."""
    wanted: set[str] = set()
    unseen = list(names)
    while unseen:
        name = unseen.pop()
        if name not in wanted:
            wanted.add(name)
            unseen.extend(dependencies[name])
    return tuple(name for name in start_order(dependencies) if name in wanted)


def dependents(dependencies: Mapping[str, Iterable[str]], name: str) -> frozenset[str]:
    """Those that name ``name`` in their own ``depends_on``: they stop before it."""
    return frozenset(other for other, needs in dependencies.items() if name in needs)
