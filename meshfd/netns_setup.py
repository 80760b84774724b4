"""The helper process that makes network namespaces and lays the links between them.

Usage: python -m meshfd.netns_setup, with a stream socket as standard input, on which `Orders` come
as JSON, up to the end of what is sent; an `Answer` goes back the same way, with the fds of the
namespaces that were made. Those that are there already are inherited fds.

Theory of operation: a process of its own, because pyroute2 runs asyncio inside, and is large; and
because a netlink socket belongs to the namespace that its maker is in, so we go from one to the
next. We never have to go back: in a user namespace one may enter the namespaces below it, but not
the one that it came from. A namespace has no name; it lasts as long as somebody holds its fd, or
lives in it, and its end is the end of its links. So a crash of anybody leaves nothing.

A link is a pair of veth devices, made with both names in both namespaces in one step, or not at
all. Both are marked (IFLA_IFALIAS). When a name is taken by a marked device, it may be one of a
meshfd that was killed, which the kernel is about to remove: that is waited for.

When something is refused, or whoever gave the orders has gone, what was laid is removed and what
was removed is laid again.

IPv6. Addresses are to work at once, and nobody but us is on a link, so they are not looked for
there before they are used (IFA_F_NODAD). The kernel would do so with the link-local address that it
makes, and a router asks for its neighbours from that one: it would ask for nobody in the first two
seconds. So we make that address, where an end has any of IPv6.

Limits: TAKEN_S for a name to come free.
Source: veth(4), rtnetlink(7), network_namespaces(7), RFC 4291 appendix A, linux/net/ipv6/ndisc.c
(ndisc_send_ns), linux/Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, Final

import msgspec
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from meshfd.engine import enter_netns, make_netns
from meshfd.errors import ServiceError
from meshfd.netns import IN_USER_NETNS, NEW, refusal
from meshfd.netns_plan import Answer, EndOrder, LinkOrder, Orders, Room

MARK: Final = "meshfd"
TAKEN_S: Final = 5.0
LOOK_MS: Final = 20
CHUNK_BYTES: Final = 1 << 16
_IFA_F_NODAD: Final = 2  # linux/if_addr.h
_NO_LINK_LOCAL: Final = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", 1)]})]}
_FORWARDING: Final = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
_HERE: Final = "/proc/thread-self/ns/net"


class Rooms:
    """The namespaces of the orders, each with a netlink socket in it."""

    def __init__(
        self, rooms: tuple[Room, ...], used: Mapping[int, str], stack: contextlib.ExitStack
    ) -> None:
        """Open those that are ``used``, by the key of an end there, and make what is to be made.

        Raises:
            ServiceError: one cannot be made, or entered.

        """
        self._rooms = rooms
        self._stack = stack
        self._routes: dict[int, Any] = {}
        self.fds: dict[int, int] = {}
        # Our own comes first: there may be no way back.
        for index in sorted(range(len(rooms)), key=lambda one: not rooms[one].own):
            room = rooms[index]
            if index in used or (room.fd is None and not room.own):
                self.fds[index] = self._go(room, used.get(index, room.title))
                self._routes[index] = self._open_here()
                if room.fd is None and not room.own:
                    self._prepare(room, index)

    def made(self) -> list[int]:
        """The fds of those that were made, in order."""
        return [
            self.fds[index]
            for index, room in enumerate(self._rooms)
            if room.fd is None and not room.own
        ]

    def route(self, end: EndOrder) -> Any:
        """The netlink socket in the namespace of this end: pyroute2's IPRoute."""
        return self._routes[end.room]

    def title(self, end: EndOrder) -> str:
        """What to call that namespace."""
        return self._rooms[end.room].title

    def _go(self, room: Room, key: str) -> int:
        """Be in a namespace from now on; its fd."""
        try:
            if room.fd is not None:
                enter_netns(room.fd)
                return room.fd
            if not room.own:
                make_netns()
        except OSError as error:
            number = error.errno or 0
            if room.fd is not None:
                raise ServiceError(f"{key}: {refusal(room.title, number)}") from error
            raise ServiceError(f"{room.title}: {refusal(NEW, number)}") from error
        fd = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
        self._stack.callback(os.close, fd)
        return fd

    def _open_here(self) -> Any:
        route = IPRoute()
        self._stack.callback(route.close)
        route.fileno()  # it is opened when it is first used
        return route

    def _prepare(self, room: Room, index: int) -> None:
        with explained(room.title, "loopback"):
            self._routes[index].link("set", index=1, state="up")  # loopback is the first, always
        for name in _FORWARDING if room.forwarding else ():
            try:
                Path("/proc/sys/net", name).write_text("1", encoding="ascii")
            except OSError as error:
                raise ServiceError(
                    f"{room.title}.forwarding: /proc/sys/net/{name}: {error.strerror}"
                ) from error


class Setup:
    """Carries orders out; `undo` puts back what was done. ``channel`` tells who still listens."""

    def __init__(self, orders: Orders, rooms: Rooms, channel: socket.socket) -> None:
        self._orders = orders
        self._rooms = rooms
        self._laid: list[LinkOrder] = []
        self._removed: list[LinkOrder] = []
        self._hung_up = select.poll()
        self._hung_up.register(channel, 0)  # POLLHUP is told unasked

    def carry_out(self) -> None:
        """Remove and lay.

        Raises:
            ServiceError: something was refused; undo.

        """
        for link in self._orders.removed:
            self._removed.append(link)
            self._remove(link)
        for link in self._orders.laid:
            self._lay(link)

    def undo(self) -> str:
        """Have everything as it was; what could not be put back, in words to be added to an error.

        What others did meanwhile can be in the way, and our rights may be less than before.
        """
        failed = []
        laid, self._laid = self._laid, []
        for link in reversed(laid):
            with contextlib.suppress(ServiceError):
                self._remove(link)
        for link in self._removed:
            try:
                self._lay(link)
            except ServiceError as error:
                failed.append(f"; and cannot be put back: {error}")
        return "".join(failed)

    def _lay(self, link: LinkOrder) -> None:
        self._create(link)
        self._laid.append(link)
        ends = [(end, self._find(end)) for end in (link.end, link.peer)]
        for end, found in ends:
            with self._explained(end, f"interface {end.name}"):
                own = {"IFLA_AF_SPEC": _NO_LINK_LOCAL} if _has_ipv6(end) else {}
                self._rooms.route(end).link(
                    "set", index=found["index"], ifalias=MARK, state="up", **own
                )
        for end, found in ends:
            self._number(end, found)

    def _create(self, link: LinkOrder) -> None:
        """Make both devices, when their names are free."""
        size = {} if link.mtu is None else {"mtu": link.mtu}
        peer = {"ifname": link.peer.name, "net_ns_fd": self._rooms.fds[link.peer.room], **size}
        until_s = time.monotonic() + TAKEN_S
        while True:
            try:
                self._rooms.route(link.end).link(
                    "add", ifname=link.end.name, kind="veth", peer=peer, **size
                )
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    needs = f"; this needs CAP_NET_ADMIN in {self._rooms.title(link.peer)}"
                    raise _refused(
                        link.end.key, f"interface {link.end.name}", error.code, needs
                    ) from error
                self._check_taken(link, until_s)
            else:
                return

    def _check_taken(self, link: LinkOrder, until_s: float) -> None:
        """Let a moment go by, if waiting can help."""
        if self._hung_up.poll(LOOK_MS):
            raise ServiceError("meshfd has ended")
        for end in (link.end, link.peer):
            mark = self._mark(end)
            if mark is None or (mark == MARK and time.monotonic() < until_s):
                continue
            whose = " and is another meshfd's" if mark == MARK else ""
            raise ServiceError(
                f"{end.key}: interface {end.name} exists already in {self._rooms.title(end)}"
                f"{whose}; choose another name, or remove it (ip link delete {end.name})"
            )

    def _number(self, end: EndOrder, found: Any) -> None:
        """Give an interface its addresses and routes."""
        route, index = self._rooms.route(end), found["index"]
        made = [_link_local(found.get_attr("IFLA_ADDRESS"))] if _has_ipv6(end) else []
        for text in (*end.addresses, *(one for one in made if one not in end.addresses)):
            with self._explained(end, f"address {text} of {end.name}", "addresses"):
                address, _, prefix = text.partition("/")
                flags = {"flags": _IFA_F_NODAD} if ":" in address else {}
                route.addr("add", index=index, address=address, prefixlen=int(prefix), **flags)
        for text, gateway in end.routes:
            with self._explained(end, f"route {text} over {gateway} of {end.name}", "routes"):
                route.route("add", dst=text, gateway=gateway, oif=index)

    def _remove(self, link: LinkOrder) -> None:
        """Remove both devices; gone already is fine, and so is one that is not ours any more."""
        for end in (link.end, link.peer):
            if self._mark(end) == MARK:
                with self._explained(end, f"interface {end.name}"):
                    self._rooms.route(end).link("delete", index=self._find(end)["index"])
                return

    def _mark(self, end: EndOrder) -> str | None:
        """The alias of the interface of this name, "" without one; None: there is no interface."""
        try:
            return str(self._find(end).get_attr("IFLA_IFALIAS") or "")
        except ServiceError as error:
            if isinstance(error.__cause__, NetlinkError) and error.__cause__.code == errno.ENODEV:
                return None
            raise

    def _find(self, end: EndOrder) -> Any:
        """The interface as the kernel describes it: pyroute2's ifinfmsg."""
        try:
            (found,) = self._rooms.route(end).link("get", ifname=end.name)
        except NetlinkError as error:
            raise _refused(end.key, f"interface {end.name}", error.code) from error
        return found

    def _explained(
        self, end: EndOrder, what: str, field: str = ""
    ) -> contextlib.AbstractContextManager[None]:
        return explained(f"{end.key}.{field}" if field else end.key, what)


@contextlib.contextmanager
def explained(key: str, what: str) -> Iterator[None]:
    """Say what was refused, and where it was asked for."""
    try:
        yield
    except NetlinkError as error:
        raise _refused(key, what, error.code) from error


def _has_ipv6(end: EndOrder) -> bool:
    return any(":" in text for text in end.addresses)


def _link_local(hardware: str) -> str:
    """The link-local address of an interface, by its hardware address (EUI-64)."""
    first, *others = bytes.fromhex(hardware.replace(":", ""))
    low = bytes([first ^ 2, *others[:2], 0xFF, 0xFE, *others[2:]])
    return f"{IPv6Address(bytes.fromhex('fe80000000000000') + low)}/64"


def _refused(key: str, what: str, number: int, needs: str = "") -> ServiceError:
    advice = ""
    if number == errno.EPERM:
        advice = f"{needs or '; this needs CAP_NET_ADMIN'}: run meshfd as root, or {IN_USER_NETNS}"
    elif number == errno.EOPNOTSUPP:
        advice = "; the kernel has none of these (modprobe veth)"
    return ServiceError(f"{key}: {what}: {os.strerror(number)}{advice}")


def serve(channel: socket.socket) -> None:
    """Take the orders, carry them out, and answer."""
    orders = msgspec.json.decode(
        b"".join(iter(lambda: channel.recv(CHUNK_BYTES), b"")), type=Orders
    )
    links = (*orders.removed, *orders.laid)
    used = {end.room: end.key for link in links for end in (link.end, link.peer)}
    with contextlib.ExitStack() as stack:
        try:
            rooms = Rooms(orders.rooms, used, stack)
        except ServiceError as error:
            _answer(channel, str(error), [])
            return
        setup = Setup(orders, rooms, channel)
        try:
            setup.carry_out()
        except ServiceError as error:
            _answer(channel, f"{error}{setup.undo()}", [])
        else:
            if not _answer(channel, "", rooms.made()):
                setup.undo()


def _answer(channel: socket.socket, error: str, fds: list[int]) -> bool:
    """Say what came of it; False: nobody is there to hear it."""
    try:
        socket.send_fds(channel, [msgspec.json.encode(Answer(error))], fds, socket.MSG_NOSIGNAL)
    except OSError:
        return False
    return True


def main() -> None:
    """Be the helper. Its end comes with its work, or with whoever gave the orders."""
    for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signo, signal.SIG_IGN)
    with socket.socket(fileno=os.dup(0)) as channel:
        serve(channel)


if __name__ == "__main__":
    main()
