"""The network namespaces that services live in: those that meshfd makes, and those of others.

Theory of operation: what the configuration declares is made by a helper process
(`meshfd.netns_setup`), which sends back an fd for each namespace. We hold the fds; a namespace that
nobody holds, and nobody lives in, is removed by the kernel, with its links. So nothing is left
when we are killed, and the rest is a matter of order: a link is removed by hand, so that the names
of its ends are free when `close`, or a reload, returns.

A change has two steps, so that a reload can go back on it:

    settled   --change-->     changed    new namespaces are there beside the old, links are laid
    changed   --settle-->     settled    the old ones are let go of
    changed   --put_back-->   settled    the new ones are, and the links are as they were

`open` gives what the configuration that was last set means by a name.
Source: network_namespaces(7).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from meshfd.errors import MeshfdError, ServiceError
from meshfd.helper import ask_helper
from meshfd.logs import event as log
from meshfd.netns import OWN_TITLE, open_netns, title_of
from meshfd.netns_plan import (
    Answer,
    Orders,
    Room,
    link_order,
    links_of,
    plan_namespaces,
    used_namespaces,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshfd.model import Configuration, Link, Namespace

_HELPER: Final = "meshfd.netns_setup"
_OWN: Final = Room(OWN_TITLE, own=True)


@dataclass(frozen=True, slots=True)
class _State:
    """What is made, and the fd of each namespace by its name: made ones, and others' by path."""

    namespaces: tuple[Namespace, ...] = ()
    fds: Mapping[str, int] = field(default_factory=dict)


class Namespaces:
    """The namespaces of one supervisor; their fds are ours, and in no process that we start."""

    def __init__(self) -> None:
        """Nothing is made yet."""
        self._now = _State()
        self._before: _State | None = None
        self._removed: tuple[Link, ...] = ()
        self._laid: tuple[Link, ...] = ()
        self._dropped: tuple[Link, ...] = ()

    def open(self, netns: str) -> int:
        """The namespace that a service names, as an fd that is the caller's.

        ``netns`` is the name of a declared one, or a path, see `meshfd.netns`.

        Raises:
            ServiceError: there is none, or no fd for it.

        """
        if netns not in self._now.fds or netns.startswith("/"):
            return open_netns(netns)
        try:
            return os.dup(self._now.fds[netns])
        except OSError as error:
            raise ServiceError(f"{title_of(netns)}: {error.strerror}") from error

    async def change(self, configuration: Configuration) -> None:
        """Make what this configuration declares and uses; `settle` or `put_back` comes next.

        Raises:
            ServiceError: something of it cannot be; nothing has changed.

        """
        old = self._now
        used = used_namespaces(configuration.namespaces, configuration.services)
        outside = _open_outside(used)
        moved = {path for path, fd in outside.items() if not _is_same(fd, old.fds.get(path))}
        for path in outside.keys() - moved:
            os.close(outside.pop(path))
            outside[path] = old.fds[path]
        try:
            plan = plan_namespaces(old.namespaces, used, moved=moved)
            fds = {one.name: old.fds[one.name] for one in used if one not in plan.made} | outside
            made = await self._carry_out(old.fds, fds, plan.removed, plan.made, plan.laid)
        except BaseException:
            for path in moved:
                os.close(outside[path])
            raise
        self._before, self._now = old, _State(used, fds | made)
        self._removed, self._laid, self._dropped = plan.removed, plan.laid, plan.dropped

    async def settle(self) -> None:
        """Let go of what a change has replaced; whoever used it is gone."""
        before, self._before = self._before, None
        if before is None:
            return
        try:
            await self._carry_out(before.fds, {}, self._dropped)
        except MeshfdError as error:
            log(logging.ERROR, f"links are left: {error}")
        _close_all(before.fds, but=self._now.fds)

    async def put_back(self) -> None:
        """Have everything as it was before a change; whoever used what was made is gone."""
        before, self._before = self._before, None
        if before is None:
            return
        changed, self._now = self._now, before
        try:
            await self._carry_out(changed.fds, before.fds, self._laid, (), self._removed)
        except MeshfdError as error:
            log(logging.ERROR, f"cannot be put back: {error}")
        _close_all(changed.fds, but=before.fds)

    async def close(self) -> None:
        """Remove all that was made, so that no name is taken; whoever used it is gone."""
        await self.settle()
        now, self._now = self._now, _State()
        declared = {one.name for one in now.namespaces}
        outer = [one for one in links_of(now.namespaces) if one.peer.netns not in declared]
        try:
            await self._carry_out(now.fds, {}, outer)  # the others go with their namespaces
        except MeshfdError as error:
            log(logging.ERROR, f"links are left: {error}")
        _close_all(now.fds)

    async def _carry_out(
        self,
        before: Mapping[str, int],
        after: Mapping[str, int],
        removed: Sequence[Link],
        made: Sequence[Namespace] = (),
        laid: Sequence[Link] = (),
    ) -> dict[str, int]:
        """Have it done, where there is anything to do; the fds of what was made, by name.

        ``before`` are the fds of the namespaces of links that are removed, ``after`` of those that
        are laid, as far as they are there.

        Raises:
            MeshfdError: it could not be done, and everything is as before.

        """
        if not (removed or made or laid):
            return {}
        rooms = [_OWN]
        old, new = _enter(rooms, before), _enter(rooms, after)
        for one in made:
            new[one.name] = len(rooms)
            rooms.append(Room(_title(one.name), forwarding=one.forwarding))
        orders = Orders(
            rooms=tuple(rooms),
            removed=tuple(link_order(link, old) for link in removed),
            laid=tuple(link_order(link, new) for link in laid),
        )
        fds = await _tell_helper(orders, [room.fd for room in rooms if room.fd is not None])
        return dict(zip((one.name for one in made), fds, strict=True))


def _enter(rooms: list[Room], fds: Mapping[str, int]) -> dict[str | None, int]:
    """Add namespaces to the list; where each is in it, and our own."""
    indices: dict[str | None, int] = {None: 0}
    for name, fd in fds.items():
        room = Room(_title(name), fd)
        if room not in rooms:
            rooms.append(room)
        indices[name] = rooms.index(room)
    return indices


def _title(name: str) -> str:
    return name if name.startswith("/") else f"netns.{name}"


def _open_outside(namespaces: Sequence[Namespace]) -> dict[str, int]:
    """The namespaces of others that links lead to, by path."""
    declared = {one.name for one in namespaces}
    opened: dict[str, int] = {}
    try:
        for link in links_of(namespaces):
            path = link.peer.netns
            if path is not None and path not in declared and path not in opened:
                opened[path] = _open_peer(link, path)
    except BaseException:
        _close_all(opened)
        raise
    return opened


def _open_peer(link: Link, path: str) -> int:
    try:
        return open_netns(path)
    except ServiceError as error:
        key = f"netns.{link.end.netns}.links.{link.end.name}.peer.netns"
        raise ServiceError(f"{key}: {error}") from error


def _is_same(fd: int, other_fd: int | None) -> bool:
    return other_fd is not None and os.path.samestat(os.fstat(fd), os.fstat(other_fd))


def _close_all(fds: Mapping[str, int], *, but: Mapping[str, int] | None = None) -> None:
    for fd in set(fds.values()) - set((but or {}).values()):
        os.close(fd)


async def _tell_helper(orders: Orders, fds: list[int]) -> list[int]:
    """Have a helper process carry out orders, in which it inherits ``fds``; the fds of its answer.

    When we are cancelled it undoes what it did.

    Raises:
        ServiceError: it could not be done.

    """
    answer = await ask_helper(_HELPER, msgspec.json.encode(orders), fds)
    if not answer.data:
        raise ServiceError(
            "the network namespaces are not set up: the process for that ended with status "
            f"{answer.exit_status}"
        )
    error = msgspec.json.decode(answer.data, type=Answer).error
    if error:
        raise ServiceError(error)
    return answer.fds
