"""Random sequences of socket operations, as text for tests/support/c/differ.

Theory of operation: a sequence is a list of lines, drawn from a `Random` of its seed alone, so that
a seed always means the same sequence. A small picture of the slots (which are filled, with what)
makes most operations sensible; some are not, on purpose. Every line means something wherever it
stands, so that any part of a sequence is a sequence too: that is what shrinking relies on.

A seed means another sequence when this file changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from tests.differential.words import (
    EVENTS,
    FLAGS_OF_RECEIVING,
    FLAGS_OF_SENDING,
    HOSTS,
    KINDS,
    MISTAKES,
    NAME_LENGTHS,
    OFTEN_SET,
    OPTIONS,
    QUESTIONS,
    TARGETS,
    WAITS,
)

N_SLOTS = 8  # differ.h
LENGTHS = (6, 40)
LINES_OF_ANOTHER = (1, 4)  # how many operations a forked child, or a thread, does
NEW_WHEN_EMPTY = 0.9  # when nothing is open, most operations would say EBADF
STRANGE_TARGETS = 0.08  # of all connects: a target of whatever family
ANY_KIND = "inet stream"  # what is taken to be in an empty slot


def weighted(random: Random, choices: Mapping[str, int]) -> str:
    """Return one of the keys, as often as its value says."""
    return random.choices(list(choices), list(choices.values()))[0]


@dataclass(slots=True)
class Picture:
    """What the slots hold, as far as it can be told while a sequence is drawn."""

    random: Random
    kinds: dict[int, str]  # of filled slots: their domain and type
    slots: Sequence[int] = range(N_SLOTS)  # those that may be filled

    def any_slot(self) -> int:
        """Return a slot, filled or not."""
        return self.random.choice(self.slots)

    def slot(self) -> int:
        """Return a slot, most times a filled one; the one filled last more often."""
        if not self.kinds or self.random.random() < 0.03:
            return self.any_slot()
        filled = list(self.kinds)
        return filled[-1] if self.random.random() < 0.5 else self.random.choice(filled)

    def slot_of(self, kind: str) -> int:
        """Return a slot, most times one with a socket of that type."""
        fitting = [slot for slot, found in self.kinds.items() if found.endswith(kind)]
        return self.random.choice(fitting) if fitting else self.slot()

    def kind(self, slot: int) -> str:
        """Return the kind of what is in a slot, or now and then another."""
        if not self.is_mptcp(slot) and self.random.random() < STRANGE_TARGETS:
            return self.random.choice(list(TARGETS))
        return self.kinds.get(slot, ANY_KIND)

    def is_mptcp(self, slot: int) -> bool:
        """Whether the slot holds a socket of MPTCP."""
        return self.kinds.get(slot, ANY_KIND).endswith("mptcp")

    def fill(self, slot: int, kind: str) -> None:
        """Note that something is there, last."""
        self.kinds.pop(slot, None)
        if kind in TARGETS:
            self.kinds[slot] = kind

    def copy(self, slot: int, into: int) -> None:
        """Note that another slot holds the same kind."""
        self.fill(into, self.kinds.get(slot, ANY_KIND))


def _flags(random: Random) -> str:
    return random.choice(("", "", " nonblock", " nonblock", " cloexec", " nonblock cloexec"))


def _socket(picture: Picture) -> str:
    kind = weighted(picture.random, KINDS)
    empty = [slot for slot in picture.slots if slot not in picture.kinds]
    slot = picture.random.choice(empty) if empty else picture.any_slot()
    if KINDS[kind] > 1:
        picture.fill(slot, kind.replace("stream 262", "mptcp 0").rpartition(" ")[0])
    return f"socket {slot} {kind}{_flags(picture.random)}"


def _target(picture: Picture, slot: int) -> str:
    target = weighted(picture.random, TARGETS[picture.kind(slot)])
    return f"own:{picture.slot()}" if target == "own" else target


def _connect(picture: Picture) -> str:
    slot = picture.slot()
    return f"connect {slot} {_target(picture, slot)}"


def _misconnect(picture: Picture) -> str:
    slot = picture.slot()
    return f"misconnect {slot} {_target(picture, slot)} {picture.random.choice(MISTAKES)}"


def _unconnect(picture: Picture) -> str:
    return (
        f"unconnect {picture.slot()} {picture.random.choice(('2', '16', '16', '28', '1', '128'))}"
    )


def _bind(picture: Picture) -> str:
    slot = picture.slot()
    return f"bind {slot} {picture.random.choice(HOSTS[picture.kind(slot)])}"


def _listen(picture: Picture) -> str:
    return f"listen {picture.slot()} {picture.random.choice(('8', '64', '-1'))}"


def _accept(picture: Picture) -> str:
    slot, into = picture.slot(), picture.any_slot()
    picture.copy(slot, into)
    if picture.random.random() < 0.2:
        return f"oldaccept {slot} {into}"
    return f"accept {slot} {into}{_flags(picture.random)}"


def _exchange(picture: Picture) -> str:
    """Several lines: a listening socket of one's own, and a connection to it."""
    family, host = picture.random.choice((("inet", "127.0.0.1"), ("inet6", "::1"), ("inet6", "::")))
    listening, client, accepted = picture.random.sample(picture.slots, 3)
    for slot in (listening, client, accepted):
        picture.fill(slot, f"{family} stream")
    return "\n".join(
        (
            f"socket {listening} {family} stream 0{_flags(picture.random)}",
            f"bind {listening} {host}",
            f"listen {listening} 8",
            f"socket {client} {family} stream 0{_flags(picture.random)}",
            f"connect {client} own:{listening}",
            f"accept {listening} {accepted}{_flags(picture.random)}",
        )
    )


def _timed(picture: Picture) -> str:
    """Several lines: an attempt to connect that takes longer than it may."""
    slot = picture.slot()
    hole = {"inet6 stream": picture.random.choice(("hole6", "mapped:hole4"))}
    target = hole.get(picture.kind(slot), "hole4")
    return f"set {slot} sndtimeo {picture.random.choice('358')}\nconnect {slot} {target}"


def _copy(picture: Picture) -> str:
    how = picture.random.choice(("dup", "dup", "dup2", "dup3", "dupfd", "pass", "pass"))
    slot, into = picture.slot(), picture.any_slot()
    picture.copy(slot, into)
    return f"{how} {slot} {into}"


def _close(picture: Picture) -> str:
    slot = picture.slot()
    picture.kinds.pop(slot, None)
    return f"close {slot}"


def _shutdown(picture: Picture) -> str:
    slot = picture.slot()
    return f"shutdown {slot} {picture.random.choice('3' if picture.is_mptcp(slot) else '01223')}"


def _status(picture: Picture) -> str:
    return f"status {picture.slot()} {picture.random.choice(('nonblock', 'block'))}"


def _descriptor(picture: Picture) -> str:
    return f"descriptor {picture.slot()} {picture.random.choice(('cloexec', 'keep'))}"


def _name(picture: Picture) -> str:
    what = picture.random.choice(("name", "peer"))
    length = picture.random.choice((*NAME_LENGTHS, "128", "128"))
    return f"{what} {picture.slot()} {length}"


def _set(picture: Picture) -> str:
    option = picture.random.choice((*OPTIONS, *OFTEN_SET))
    return f"set {picture.slot()} {option} {picture.random.choice(OPTIONS[option])}"


def _get(picture: Picture) -> str:
    return f"get {picture.slot()} {picture.random.choice(QUESTIONS)}"


def _send(picture: Picture) -> str:
    how = picture.random.choice(("send", "send", "write"))
    oob = " oob" if how == "send" and picture.random.random() < 0.1 else ""
    return f"{how} {picture.slot()} {picture.random.choice((0, 1, 5, 40))}{oob}"


def _address(picture: Picture, slot: int) -> str:
    """Return a target, or none."""
    return "-" if picture.random.random() < 0.3 else _target(picture, slot)


def _sendto(picture: Picture) -> str:
    slot, n = picture.slot_of("dgram"), picture.random.choice((0, 3, 30))
    how = picture.random.choice(("sendto", "sendto", "sendmsg", "sendmsg", "sendmmsg", "missendto"))
    if how == "missendto":
        return f"missendto {slot} {n} {_target(picture, slot)} {picture.random.choice(MISTAKES)}"
    if how == "sendmmsg":
        targets = [_address(picture, slot) for _ in range(picture.random.choice((1, 2, 2, 3)))]
        return f"sendmmsg {slot} {n} {' '.join(targets)}"
    control = picture.random.choice(("", "", " tos", " ttl")) if how == "sendmsg" else ""
    flags = picture.random.choice(FLAGS_OF_SENDING)
    return f"{how} {slot} {n} {_address(picture, slot)}{control}{flags}"


def _receive_from(picture: Picture) -> str:
    slot, n = picture.slot_of("dgram"), picture.random.choice((0, 2, 60, 60))
    how = picture.random.choice(("recvfrom", "recvfrom", "recvmsg", "recvmsg", "recvmmsg"))
    flags = picture.random.choice(FLAGS_OF_RECEIVING)
    if how == "recvmmsg":
        return f"recvmmsg {slot} {n} {picture.random.choice('123')}{flags}"
    room = picture.random.choice((*NAME_LENGTHS, "128", "128", "128", "128"))
    control = " nocontrol" if how == "recvmsg" and picture.random.random() < 0.2 else ""
    return f"{how} {slot} {n} {room}{control}{flags}"


def _talk(picture: Picture) -> str:
    """Several lines: to somebody who answers, and what he answers."""
    slot = picture.slot_of("dgram")
    target = {"inet6 dgram": picture.random.choice(("udp-echo6", "mapped:udp-echo4"))}
    to = target.get(picture.kinds.get(slot, ANY_KIND), "udp-echo4")
    how = picture.random.choice(("sendto", "sendmsg", "sendmmsg"))
    return f"{how} {slot} 5 {to}\n{_receive_from(picture)}"


def _complain(picture: Picture) -> str:
    """Several lines: to a port that nobody has, and what is told of that."""
    slot = picture.slot_of("dgram")
    option, target = picture.random.choice(
        {"inet6 dgram": (("recverr6", "udp-refuse6"), ("recverr", "mapped:udp-refuse4"))}.get(
            picture.kinds.get(slot, ANY_KIND), (("recverr", "udp-refuse4"),)
        )
    )
    room = picture.random.choice(("128", "16", "8", "null"))
    return (
        f"set {slot} {option} 1\nsendto {slot} 5 {target}\nrecvmsg {slot} 60 {room} errqueue\n"
        f"get {slot} error"
    )


def _fast_open(picture: Picture) -> str:
    slot = picture.slot_of("stream")
    how = picture.random.choice(("sendto", "sendto", "sendmsg"))
    return f"{how} {slot} {picture.random.choice((0, 4))} {_address(picture, slot)} fastopen"


def _wait(picture: Picture) -> str:
    return f"wait {picture.slot()} {picture.random.choice(WAITS)}"


def _receive(picture: Picture) -> str:
    how = picture.random.choice(("recv", "recv", "read"))
    peek = " peek" if how == "recv" and picture.random.random() < 0.2 else ""
    return f"{how} {picture.slot()} {picture.random.choice((0, 2, 60))}{peek}"


def _register(picture: Picture) -> str:
    epoll, slot = picture.random.choice("001"), picture.slot()
    how = picture.random.choice(("add", "add", "add", "mod", "del"))
    events = "" if how == "del" else f" {picture.random.choice(EVENTS)}"
    return f"{how} {epoll} {slot}{events}"


def _look(picture: Picture) -> str:
    return f"look {picture.random.choice('0001')}"


def _on_slot(name: str) -> Callable[[Picture], str]:
    return lambda picture: f"{name} {picture.slot()}"


def _another(picture: Picture) -> str:
    how = picture.random.choice(("fork", "fork", "thread", "vfork", "exec"))
    return f"{how} {picture.random.randint(*LINES_OF_ANOTHER)}"


def _restart(picture: Picture) -> str:
    return f"restart {picture.random.choice(('on', 'off'))}"


OPERATIONS: Mapping[Callable[[Picture], str], int] = {
    _socket: 12,
    _connect: 22,
    _misconnect: 4,
    _unconnect: 3,
    _bind: 5,
    _listen: 4,
    _accept: 5,
    _exchange: 2,
    _timed: 2,
    _copy: 5,
    _close: 4,
    _shutdown: 4,
    _status: 4,
    _descriptor: 1,
    _name: 4,
    _set: 12,
    _get: 8,
    _send: 7,
    _sendto: 9,
    _talk: 4,
    _complain: 1,
    _fast_open: 2,
    _receive: 7,
    _receive_from: 7,
    _register: 9,
    _look: 8,
    _on_slot("poll"): 4,
    _on_slot("select"): 2,
    _on_slot("flags"): 2,
    _on_slot("stat"): 1,
    _on_slot("owner"): 1,
    _on_slot("state"): 3,
    _on_slot("pending"): 1,
    _wait: 3,
    lambda _: "nest": 1,
    _another: 2,
    _restart: 1,
}


def draw(picture: Picture, operations: Mapping[Callable[[Picture], str], int]) -> list[str]:
    """Return some operations."""
    lines: list[str] = []
    choices, weights = list(operations), list(operations.values())
    for _ in range(picture.random.randint(*LENGTHS)):
        if not picture.kinds and picture.random.random() < NEW_WHEN_EMPTY:
            lines.append(_socket(picture))
        lines += picture.random.choices(choices, weights)[0](picture).splitlines()
    return lines


def make(seed: int) -> tuple[str, ...]:
    """Return the sequence of a seed."""
    picture = Picture(Random(seed), {})
    return _socket(picture), *draw(picture, OPERATIONS)


def written(sequences: Mapping[int, Sequence[str]]) -> str:
    """Return sequences as a file for differ."""
    return "".join(
        "".join(f"{line}\n" for line in (f"seed {seed}", *lines, "end"))
        for seed, lines in sequences.items()
    )


def parse_transcripts(text: str) -> dict[int, list[str]]:
    """Return the lines that each seed led to."""
    transcripts: dict[int, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("seed "):
            lines = transcripts.setdefault(int(line.removeprefix("seed ")), [])
        else:
            lines.append(line)
    return transcripts
