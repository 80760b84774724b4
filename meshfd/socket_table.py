"""Who has which sockets: what the supervisor asks its helper for (`meshfd.socket_scan`), and hears.

Records that cross the border as JSON. Nothing here imports trio, pyroute2 or the engine.
"""

from __future__ import annotations

from typing import Final

import msgspec

ROWS_MAX: Final = 50_000
"""Rows of one answer; a row has about 200 bytes (`meshfd.protocol.ANSWER_BYTES`)."""


class Place(msgspec.Struct, frozen=True):
    """A network namespace to look in; ``fd`` is inherited, None: where the helper is."""

    title: str
    fd: int | None


class Owner(msgspec.Struct, frozen=True):
    """A service, and the agent whose descendants its processes are."""

    service: str
    agent_pid: int


class Question(msgspec.Struct, frozen=True):
    """Asks which sockets of these places these services have open."""

    places: tuple[Place, ...]
    owners: tuple[Owner, ...]


class SocketRow(msgspec.Struct, frozen=True):
    """One socket.

    ``protocol`` is tcp or udp; ``local`` and ``remote`` are written ``ADDR:PORT``, ``remote`` is ""
    where there is none. ``state`` is one of TCP's (RFC 9293, 3.3.2), in small letters; of UDP it is
    connected or unconnected. ``netns`` is the place's title, ``cookie`` SO_COOKIE, ``pid`` one of
    those that have it open, ``uid`` whose it is.
    """

    service: str
    protocol: str
    local: str
    remote: str
    state: str
    netns: str
    cookie: int
    pid: int
    uid: int


class Answer(msgspec.Struct, frozen=True):
    """The rows, ordered; ``left_out``: how many more there are. ``error``: why there are none."""

    rows: tuple[SocketRow, ...] = ()
    left_out: int = 0
    error: str = ""
