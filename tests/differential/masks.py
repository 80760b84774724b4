"""What README documents as different under meshfd, and so is not compared. The only such place.

A mask takes out of both transcripts of a comparison what may differ; an omission takes operations
out of both runs, where all that comes after them would differ. Each has the reason beside it. What
neither touches must be equal to the letter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

# 100 is a nested epoll instance, which is ready for such an event too.
EVENT_OF_CLOSED = re.compile(r" (?:\d:\S+ gone|100:\S+)")
GONE_BUT_LISTENS = re.compile(r"( \d:(?!\S*hup)\S+) gone")
LOOK = re.compile(r"^(\d+ look \d): (\d+)((?: .*)?)$")


def _without_events(pattern: re.Pattern[str], line: str) -> str:
    found = LOOK.match(line)
    if found is None:
        return line
    rest, n_gone = pattern.subn("", found[3])
    return f"{found[1]}: {int(found[2]) - n_gone}{rest}"


@dataclass(frozen=True, slots=True)
class Mask:
    """A change to a line that takes out what may differ, in modes with all these ``traits``."""

    reason: str
    apply: Callable[[str], str]
    traits: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Omission:
    """Operations that are not performed in modes that have all these ``traits``."""

    reason: str
    pattern: re.Pattern[str]
    traits: frozenset[str]
    but_not: str = ""  # nor this one


# A stand-in is a unix socket that is connected: nothing of TCP's states, no such address.
EVENT_OF_UNCONNECTED = re.compile(r" (?:\d:\S*hup\S*|100:\S+)(?: gone)?")
STATE = re.compile(
    r"^(\d+ state \d:|end of \d:) (established|half closed by peer|half closed|closing)"
)
MADE_UP = re.compile(r":slot\d\b")  # a port may also be that of another socket
BIND = re.compile(r"^(\d+ bind .*?:) (EADDRNOTAVAIL|EAFNOSUPPORT)")
SOURCE = re.compile(r" from (?:length \d+ )?(?:family 1 length \d+|short|too much)")


def _of_standin(line: str) -> str:
    line = MADE_UP.sub(":slot", BIND.sub(r"\1 EINVAL", line))
    return SOURCE.sub("", STATE.sub(r"\1 connected", line))


MASKS: tuple[Mask, ...] = (
    Mask(  # before the next one, which takes "gone" for the end of an unconnected socket
        "Limits, Handed sockets: it is another socket, and so known by another SO_COOKIE",
        lambda line: GONE_BUT_LISTENS.sub(r"\1", line) if LOOK.match(line) else line,
        frozenset({"handed"}),
    ),
    Mask(
        "Limits, Other network namespaces: it is another socket, too",
        lambda line: GONE_BUT_LISTENS.sub(r"\1", line) if LOOK.match(line) else line,
        frozenset({"elsewhere"}),
    ),
    Mask(
        "Theory, Leases: for up to 100 ms the agent holds a duplicate of a new socket, and as long "
        "as anybody holds a file that the program has closed, epoll reports it",
        partial(_without_events, EVENT_OF_CLOSED),
        frozenset({"create"}),
    ),
    Mask(
        "Limits, Unix sockets: one that waits in an epoll instance unconnected is not reported",
        partial(_without_events, EVENT_OF_UNCONNECTED),
        frozenset({"standin"}),
    ),
    Mask(
        "Limits, Other network namespaces: the same",
        partial(_without_events, EVENT_OF_UNCONNECTED),
        frozenset({"elsewhere"}),
    ),
    Mask(
        "Limits, Unix sockets: what recvfrom(), TCP_INFO and a second bind() tell",
        _of_standin,
        frozenset({"standin"}),
    ),
)

OMISSIONS: tuple[Omission, ...] = (
    Omission(
        "Limits, What strict gives: TCP Fast Open by sendto() or sendmsg() is refused",
        re.compile(r" fastopen$"),
        frozenset({"--strict"}),
    ),
    Omission(
        "Limits, Connections: TCP Fast Open fails where a route asks",
        re.compile(r" fastopen$"),
        frozenset({"ask"}),
    ),
    Omission(
        "Limits, Connections: a route that denies does so whatever way the socket would have gone",
        re.compile(r"^set \d (device lo|dontroute 1)$"),
        frozenset({"deny"}),
    ),
    Omission(
        "Limits, Connections: a route that denies leaves the socket as it was; a failure of the "
        "kernel's makes one of IPv6 that was connected to IPv4 forget that (tcp_v6_connect)",
        re.compile(r" mapped:(netunreach|hostunreach|prohibited)\b"),
        frozenset({"deny"}),
    ),
    Omission(
        "Limits, Unix sockets: where data flows, where it ends, and what is urgent",
        re.compile(r"^(sendto|missendto|sendm?msg|shutdown|pending) | (oob|trunc|errqueue)\b"),
        frozenset({"standin"}),
    ),
    Omission(
        "Limits, Unix sockets: another process has a socket of its own",
        re.compile(r"^(fork|vfork|exec) "),
        frozenset({"standin"}),
    ),
    Omission(
        "Limits, Unix sockets: bound to an address of one family, they reach the other",
        re.compile(r"^bind \d (::ffff:|::1$)|\bmapped:(refuse4|reset4|hole4|netunreach|udp-\w+)"),
        frozenset({"standin"}),
    ),
    Omission(
        "Limits, Unix sockets: options, SIGIO, AF_UNSPEC; MPTCP's own ways with data and options",
        re.compile(
            r"^(set \d (reuseport|zerocopy|transparent|passcred|rcvlowat|timestamp|addrform)"
            r"|get \d (maxseg|rcvbuf|sndbuf|passcred|addrform)|owner|unconnect|socket .* 262)\b"
        ),
        frozenset({"standin"}),
    ),
    Omission(
        "Limits, Other network namespaces: no datagrams, no TCP Fast Open, no sharing over a fork, "
        "no shutdown() before connect(); "
        "and abstract unix sockets, and ports that are taken, belong to one",
        re.compile(r"\budp-| fastopen$|^(fork|vfork|exec) |^connect \d unix$|\btaken:|^shutdown "),
        frozenset({"elsewhere"}),
    ),
    Omission(
        "Limits, Other network namespaces: what a port was before is another namespace's matter",
        re.compile(r"^unconnect | port0:|^\w*connect (\d) own:\1$"),
        frozenset({"elsewhere"}),
    ),
    Omission(
        "The places are in another network namespace, and so is the loopback device that leads "
        "to them without a route",
        re.compile(r"^\w*(connect|send)\w* .*(\bany[46]:| other$)"),
        frozenset({"elsewhere"}),
    ),
    Omission(
        "Limits: in a strict service, sending through socketcall(2) fails with ENOSYS",
        re.compile(r"^(sendto|missendto|sendmsg|sendmmsg|pass) "),
        frozenset({"--strict", "i386"}),
        but_not="direct",
    ),
    Omission(
        "Limits, Connections: the wildcard goes by the route of 127.0.0.1 or [::1], but the "
        "places' routes are from other addresses, which nobody has asked for then",
        re.compile(r"^\w*(connect|send)\w* .*(\bany[46]:| other$)"),
        frozenset({"--transparent"}),
    ),
)


def masked(lines: Iterable[str], traits: Collection[str] = ()) -> list[str]:
    """Return lines without what is documented as different in a mode with these traits."""
    masks = [mask for mask in MASKS if mask.traits <= set(traits)]
    result = []
    for line in lines:
        kept = line
        for mask in masks:
            kept = mask.apply(kept)
        result.append(kept)
    return result


def asked(sequence: Sequence[str], traits: Collection[str] = ()) -> tuple[str, ...]:
    """Return the operations of a sequence that can be compared in a mode with these traits."""
    patterns = [
        one.pattern for one in OMISSIONS if one.traits <= set(traits) and one.but_not not in traits
    ]
    return tuple(line for line in sequence if not any(one.search(line) for one in patterns))
