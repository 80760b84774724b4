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

N_SLOTS = 8  # differ.h
LENGTHS = (6, 40)
LINES_OF_ANOTHER = (1, 4)  # how many operations a forked child, or a thread, does
NEW_WHEN_EMPTY = 0.9  # when nothing is open, most operations would say EBADF
STRANGE_TARGETS = 0.08  # of all connects: a target of whatever family

KINDS: Mapping[str, int] = {
    "inet stream 0": 40,
    "inet stream 6": 6,
    "inet6 stream 0": 24,
    "inet6 stream 6": 4,
    "inet dgram 0": 5,
    "inet6 dgram 0": 3,
    "unix stream 0": 4,
    "unix seqpacket 0": 2,
    "inet stream 17": 1,
    "inet dgram 6": 1,
    "inet seqpacket 0": 1,
    "inet6 stream 999": 1,
    "99 stream 0": 1,
    "inet 77 0": 1,
}
TARGETS_4: Mapping[str, int] = {
    "echo4": 30,
    "greet4": 20,
    "reset4": 10,
    "refuse4": 14,
    "hole4": 10,
    "any4:echo4": 3,
    "port0:echo4": 1,
    "broadcast": 2,
    "hostunreach": 3,
    "netunreach": 3,
    "prohibited": 2,
    "own": 10,
}
TARGETS_6: Mapping[str, int] = {
    "echo6": 24,
    "refuse6": 10,
    "hole6": 8,
    "any6:echo6": 3,
    "any6:echo4": 2,
    "port0:echo6": 1,
    "mapped:echo4": 12,
    "mapped:greet4": 8,
    "mapped:reset4": 4,
    "mapped:refuse4": 6,
    "mapped:hole4": 5,
    "mapped:netunreach": 2,
    "own": 8,
}
TARGETS_UNIX: Mapping[str, int] = {"unix": 5, "nounix": 2}
TARGETS: Mapping[str, Mapping[str, int]] = {
    "inet": TARGETS_4,
    "inet6": TARGETS_6,
    "unix": TARGETS_UNIX,
}
MISTAKES = (
    *("0", "1", "2", "8", "15", "16", "24", "27", "28", "64", "110", "128", "129", "4096", "-1"),
    *("null", "unmapped", "family", "other"),
)
HOSTS_4 = ("0.0.0.0", "127.0.0.1", "127.0.0.5", "192.0.2.1", "taken:echo4", "taken:refuse4")
HOSTS_6 = ("::", "::1", "2001:db8::1", "::ffff:127.0.0.1", "taken:echo6", "127.0.0.1")
HOSTS_UNIX = ("127.0.0.1",)
HOSTS = {"inet": HOSTS_4, "inet6": HOSTS_6, "unix": HOSTS_UNIX}
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "reuseaddr": ("0", "1"),
    "reuseport": ("0", "1"),
    "keepalive": ("0", "1", "7"),
    "broadcast": ("0", "1"),
    "oobinline": ("0", "1"),
    "dontroute": ("0", "1"),
    "priority": ("0", "5", "7", "-1"),
    "mark": ("0", "77"),
    "rcvlowat": ("1", "4", "0", "-1"),
    "sndbuf": ("1", "8192", "100000"),
    "rcvbuf": ("1", "8192", "100000"),
    "linger": ("0 on", "0 off", "1 on"),
    "sndtimeo": ("5", "5", "8", "0", "-5"),
    "rcvtimeo": ("3", "0", "-3"),
    "device": ("lo", "nosuch"),
    "timestamp": ("0", "1"),
    "zerocopy": ("0", "1"),
    "passcred": ("0", "1"),
    "nodelay": ("0", "1"),
    "keepidle": ("60", "0", "40000"),
    "keepintvl": ("30", "0"),
    "keepcnt": ("3", "0", "200"),
    "syncnt": ("3", "0", "200"),
    "linger2": ("10", "-1", "0"),
    "maxseg": ("536", "1400", "1"),
    "usertimeout": ("10000", "0", "-1"),
    "notsentlowat": ("16384", "0"),
    "fastopenconnect": ("1", "0", "2"),
    "fastopennocookie": ("1", "0"),
    "congestion": ("reno", "cubic", "nosuch"),
    "tos": ("16", "255", "0"),
    "ttl": ("64", "7", "0", "256"),
    "recverr": ("0", "1"),
    "mtudiscover": ("0", "2", "9"),
    "freebind": ("0", "1"),
    "transparent": ("0", "1"),
    "noport": ("0", "1"),
    "v6only": ("0", "1"),
    "tclass": ("32", "0", "256"),
    "hops": ("9", "-1", "0", "256"),
    "addrform": ("2", "10"),
}
OFTEN_SET = ("sndtimeo", "rcvtimeo", "linger", "v6only", "fastopenconnect")
QUESTIONS = (
    *OPTIONS,
    "error",
    "error",
    "error",
    "type",
    "domain",
    "protocol",
    "acceptconn",
    "netns",
)
NAME_LENGTHS = ("0", "1", "2", "8", "16", "28", "27", "128", "-1", "null")
EVENTS = ("io", "ior", "iort", "iot", "io1", "i", "o", "iorp", "iort1", "h", "p")


def weighted(random: Random, choices: Mapping[str, int]) -> str:
    """Return one of the keys, as often as its value says."""
    return random.choices(list(choices), list(choices.values()))[0]


@dataclass(slots=True)
class _Picture:
    """What the slots hold, as far as it can be told while a sequence is drawn."""

    random: Random
    domains: dict[int, str]  # of filled slots

    def any_slot(self) -> int:
        """Return a slot, filled or not."""
        return self.random.randrange(N_SLOTS)

    def slot(self) -> int:
        """Return a slot, most times a filled one; the one filled last more often."""
        if not self.domains or self.random.random() < 0.03:
            return self.any_slot()
        filled = list(self.domains)
        return filled[-1] if self.random.random() < 0.5 else self.random.choice(filled)

    def domain(self, slot: int) -> str:
        """Return the domain of what is in a slot."""
        if self.random.random() < STRANGE_TARGETS:
            return self.random.choice(list(TARGETS))
        return self.domains.get(slot, "inet")

    def fill(self, slot: int, domain: str) -> None:
        """Note that something is there, last."""
        self.domains.pop(slot, None)
        if domain in TARGETS:
            self.domains[slot] = domain


def _flags(random: Random) -> str:
    return random.choice(("", "", " nonblock", " nonblock", " cloexec", " nonblock cloexec"))


def _socket(picture: _Picture) -> str:
    kind = weighted(picture.random, KINDS)
    empty = [slot for slot in range(N_SLOTS) if slot not in picture.domains]
    slot = picture.random.choice(empty) if empty else picture.any_slot()
    if KINDS[kind] > 1:
        picture.fill(slot, kind.partition(" ")[0])
    return f"socket {slot} {kind}{_flags(picture.random)}"


def _target(picture: _Picture, slot: int) -> str:
    target = weighted(picture.random, TARGETS[picture.domain(slot)])
    return f"own:{picture.slot()}" if target == "own" else target


def _connect(picture: _Picture) -> str:
    slot = picture.slot()
    return f"connect {slot} {_target(picture, slot)}"


def _misconnect(picture: _Picture) -> str:
    slot = picture.slot()
    return f"misconnect {slot} {_target(picture, slot)} {picture.random.choice(MISTAKES)}"


def _unconnect(picture: _Picture) -> str:
    return (
        f"unconnect {picture.slot()} {picture.random.choice(('2', '16', '16', '28', '1', '128'))}"
    )


def _bind(picture: _Picture) -> str:
    slot = picture.slot()
    return f"bind {slot} {picture.random.choice(HOSTS[picture.domain(slot)])}"


def _listen(picture: _Picture) -> str:
    return f"listen {picture.slot()} {picture.random.choice(('8', '64', '-1'))}"


def _accept(picture: _Picture) -> str:
    slot, into = picture.slot(), picture.any_slot()
    picture.fill(into, picture.domains.get(slot, "inet"))
    return f"accept {slot} {into}{_flags(picture.random)}"


def _exchange(picture: _Picture) -> str:
    """Several lines: a listening socket of one's own, and a connection to it."""
    family, host = picture.random.choice((("inet", "127.0.0.1"), ("inet6", "::1"), ("inet6", "::")))
    listening, client, accepted = picture.random.sample(range(N_SLOTS), 3)
    for slot in (listening, client, accepted):
        picture.fill(slot, family)
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


def _timed(picture: _Picture) -> str:
    """Several lines: an attempt to connect that takes longer than it may."""
    slot = picture.slot()
    hole = {"inet": "hole4", "inet6": picture.random.choice(("hole6", "mapped:hole4"))}
    target = hole.get(picture.domain(slot), "hole4")
    return f"set {slot} sndtimeo {picture.random.choice('358')}\nconnect {slot} {target}"


def _copy(picture: _Picture) -> str:
    how = picture.random.choice(("dup", "dup", "dup2", "dup3", "dupfd", "pass", "pass"))
    slot, into = picture.slot(), picture.any_slot()
    picture.fill(into, picture.domains.get(slot, "inet"))
    return f"{how} {slot} {into}"


def _close(picture: _Picture) -> str:
    slot = picture.slot()
    picture.domains.pop(slot, None)
    return f"close {slot}"


def _shutdown(picture: _Picture) -> str:
    return f"shutdown {picture.slot()} {picture.random.choice('01223')}"


def _status(picture: _Picture) -> str:
    return f"status {picture.slot()} {picture.random.choice(('nonblock', 'block'))}"


def _descriptor(picture: _Picture) -> str:
    return f"descriptor {picture.slot()} {picture.random.choice(('cloexec', 'keep'))}"


def _name(picture: _Picture) -> str:
    what = picture.random.choice(("name", "peer"))
    length = picture.random.choice((*NAME_LENGTHS, "128", "128"))
    return f"{what} {picture.slot()} {length}"


def _set(picture: _Picture) -> str:
    option = picture.random.choice((*OPTIONS, *OFTEN_SET))
    return f"set {picture.slot()} {option} {picture.random.choice(OPTIONS[option])}"


def _get(picture: _Picture) -> str:
    return f"get {picture.slot()} {picture.random.choice(QUESTIONS)}"


def _send(picture: _Picture) -> str:
    how = picture.random.choice(("send", "send", "write"))
    oob = " oob" if how == "send" and picture.random.random() < 0.1 else ""
    return f"{how} {picture.slot()} {picture.random.choice((0, 1, 5, 40))}{oob}"


def _sendto(picture: _Picture) -> str:
    slot = picture.slot()
    return f"sendto {slot} 3 {_target(picture, slot)}"


def _receive(picture: _Picture) -> str:
    how = picture.random.choice(("recv", "recv", "read"))
    peek = " peek" if how == "recv" and picture.random.random() < 0.2 else ""
    return f"{how} {picture.slot()} {picture.random.choice((0, 2, 60))}{peek}"


def _register(picture: _Picture) -> str:
    epoll, slot = picture.random.choice("001"), picture.slot()
    how = picture.random.choice(("add", "add", "add", "mod", "del"))
    events = "" if how == "del" else f" {picture.random.choice(EVENTS)}"
    return f"{how} {epoll} {slot}{events}"


def _look(picture: _Picture) -> str:
    return f"look {picture.random.choice('0001')}"


def _on_slot(name: str) -> Callable[[_Picture], str]:
    return lambda picture: f"{name} {picture.slot()}"


def _another(picture: _Picture) -> str:
    how = picture.random.choice(("fork", "fork", "thread"))
    return f"{how} {picture.random.randint(*LINES_OF_ANOTHER)}"


def _restart(picture: _Picture) -> str:
    return f"restart {picture.random.choice(('on', 'off'))}"


OPERATIONS: Mapping[Callable[[_Picture], str], int] = {
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
    _sendto: 1,
    _receive: 7,
    _register: 9,
    _look: 8,
    _on_slot("poll"): 4,
    _on_slot("select"): 2,
    _on_slot("flags"): 2,
    _on_slot("stat"): 1,
    _on_slot("owner"): 1,
    _on_slot("state"): 3,
    _on_slot("pending"): 1,
    _on_slot("wait"): 2,
    lambda _: "nest": 1,
    _another: 2,
    _restart: 1,
}


def make(seed: int) -> tuple[str, ...]:
    """Return the sequence of a seed."""
    random = Random(seed)
    picture = _Picture(random, {})
    lines = [_socket(picture)]
    operations, weights = list(OPERATIONS), list(OPERATIONS.values())
    for _ in range(random.randint(*LENGTHS)):
        if not picture.domains and random.random() < NEW_WHEN_EMPTY:
            lines.append(_socket(picture))
        lines += random.choices(operations, weights)[0](picture).splitlines()
    return tuple(lines)


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
