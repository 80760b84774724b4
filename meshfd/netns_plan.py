"""Which network namespaces and links there are to make, and which to remove.

Theory of operation: a namespace is made when something uses it: a service, or a link that leads to
one that is used, in either direction. When the configuration changes, a namespace whose description
is the same is kept, with everything in it; another is made anew, beside the old one. A link is kept
when its description is the same and both its namespaces are kept; when one of them is new it is
laid anew. So a namespace that did not change can lose a link, and get it again, when what is at its
other end was changed.

`Orders` is what the helper process is told (`meshfd.netns_setup`): as text, so that it travels.
Pure: `meshfd.namespaces` carries it out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, KeysView, Mapping
from dataclasses import dataclass
from typing import Final

from meshfd.model import Configuration, Link, LinkEnd, Namespace, Redirect, Service

NAMESPACES_MAX: Final = 128
"""Namespaces of one configuration: their fds fit into one message (SCM_MAX_FD is 253)."""


def netns_of(service: Service) -> KeysView[str]:
    """Every network namespace that a service names, its own first."""
    names = [service.netns]
    if service.transition is not None:
        names.append(service.transition.ipv4_netns)
    names += [one.netns for one in service.listen]
    verdicts = (route.verdict for route in service.routes)
    names += [one.upstream.netns for one in verdicts if isinstance(one, Redirect)]
    return dict.fromkeys(name for name in names if name is not None).keys()


def used_namespaces(
    namespaces: Iterable[Namespace], services: Iterable[Service]
) -> tuple[Namespace, ...]:
    """Those that services use, and those that links lead to from there, in order."""
    namespaces = tuple(namespaces)
    ways: dict[str, set[str]] = {one.name: set() for one in namespaces}
    for one in namespaces:
        for peer in (link.peer.netns for link in one.links):
            if peer in ways:
                ways[one.name].add(peer)
                ways[peer].add(one.name)
    used: set[str] = set()
    left = [name for service in services for name in netns_of(service) if name in ways]
    while left:
        name = left.pop()
        if name not in used:
            used.add(name)
            left += ways[name]
    return tuple(one for one in namespaces if one.name in used)


def mix_namespaces(
    old: Configuration, new: Configuration, kept: Collection[Service]
) -> tuple[Namespace, ...]:
    """The new namespaces, but the old ones of what the ``kept`` services use."""
    ours = {one.name: one for one in used_namespaces(old.namespaces, kept)}
    mixed = [ours.pop(one.name, one) for one in new.namespaces]
    return (*mixed, *ours.values())


@dataclass(frozen=True, slots=True)
class NamespacePlan:
    """What is to be done; links in the order of the configuration.

    ``removed`` are links that go before others are laid, because those need the same room; links
    that are ``dropped`` are in nobody's way, and go when nobody uses them any more.
    """

    made: tuple[Namespace, ...]
    laid: tuple[Link, ...]
    removed: tuple[Link, ...]
    dropped: tuple[Link, ...]


def plan_namespaces(
    old: Iterable[Namespace], new: Iterable[Namespace], *, moved: Collection[str] = ()
) -> NamespacePlan:
    """Compare what is there with what shall be.

    ``moved`` are paths of namespaces at which there is another one now.
    """
    before, after = tuple(old), tuple(new)
    made = tuple(one for one in after if one not in before)
    gone = {one.name for one in (*before, *after) if one not in before or one not in after}
    gone |= set(moved)

    def is_kept(link: Link) -> bool:
        return link.end.netns not in gone and link.peer.netns not in gone

    laid = tuple(
        link for link in links_of(after) if link not in links_of(before) or not is_kept(link)
    )
    going = tuple(
        link for link in links_of(before) if link not in links_of(after) or not is_kept(link)
    )
    needed = _rooms_of(laid) - gone
    removed = tuple(link for link in going if _rooms_of([link]) & needed)
    return NamespacePlan(made, laid, removed, tuple(one for one in going if one not in removed))


def _rooms_of(links: Iterable[Link]) -> set[str | None]:
    return {end.netns for link in links for end in (link.end, link.peer)}


def links_of(namespaces: Iterable[Namespace]) -> tuple[Link, ...]:
    """All links that these namespaces declare."""
    return tuple(link for one in namespaces for link in one.links)


# --- orders ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Room:
    """A network namespace, as the helper finds it.

    ``fd`` is one that the helper inherits; None: it is to be made, or, if ``own``, the helper's own
    from its start. ``title`` is what errors call it.
    """

    title: str
    fd: int | None = None
    own: bool = False
    forwarding: bool = False


@dataclass(frozen=True, slots=True)
class EndOrder:
    """One end of a link; ``room`` is an index, ``key`` where the configuration has it."""

    key: str
    room: int
    name: str
    addresses: tuple[str, ...]
    routes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class LinkOrder:
    """A link to lay or to remove."""

    end: EndOrder
    peer: EndOrder
    mtu: int | None


@dataclass(frozen=True, slots=True)
class Orders:
    """What to do: first remove, then make the rooms that are not there, then lay."""

    rooms: tuple[Room, ...]
    removed: tuple[LinkOrder, ...]
    laid: tuple[LinkOrder, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it. Without an ``error`` the fds of the rooms that were made come along."""

    error: str = ""


def link_order(link: Link, rooms: Mapping[str | None, int]) -> LinkOrder:
    """A link in words; ``rooms`` has the index of each namespace by its name."""
    key = f"netns.{link.end.netns}.links.{link.end.name}"
    return LinkOrder(
        _end_order(link.end, key, rooms), _end_order(link.peer, f"{key}.peer", rooms), link.mtu
    )


def _end_order(end: LinkEnd, key: str, rooms: Mapping[str | None, int]) -> EndOrder:
    routes = tuple((str(network), str(gateway)) for network, gateway in end.routes)
    return EndOrder(key, rooms[end.netns], end.name, tuple(map(str, end.addresses)), routes)
