"""Random sequences of a daemon whose listening socket was opened beforehand: meshfd hands it over.

Theory of operation: slot 0 is bound where meshfd listens; nobody does in a bare run. Then come
operations as everywhere else (sequences.py), among the other slots, and some on that one. Left out
is what README, Limits, Handed sockets documents: what would end the socket, which is every
daemon's; what is not carried over; how it is between bind() and listen(), as it listens already.
"""

from __future__ import annotations

from random import Random

from tests.differential.sequences import N_SLOTS, OPERATIONS, Picture, draw
from tests.differential.words import EVENTS, OPTIONS

DAEMON = 0  # the slot
# So that it can be bound again soon, and because it listens from the beginning.
NEEDED = REUSE, LISTEN = f"set {DAEMON} reuseaddr 1", f"listen {DAEMON} 8"
# Where meshfd listens for a daemon of this family; stage.py.
PLACES = (
    ("inet", "daemon4"),
    ("inet", "wild4"),
    ("inet6", "daemon6"),
    ("inet6", "wild6"),
    ("inet6", "mapped4"),
)
CARRIED = (
    *("keepalive", "oobinline", "dontroute", "priority", "mark", "rcvlowat", "sndbuf", "rcvbuf"),
    *("linger", "sndtimeo", "rcvtimeo", "device", "timestamp", "zerocopy", "nodelay", "keepidle"),
    *("keepintvl", "keepcnt", "syncnt", "linger2", "usertimeout", "notsentlowat", "congestion"),
    *("tos", "ttl", "mtudiscover", "transparent", "freebind", "tclass", "hops"),
)


def _set(picture: Picture) -> str:
    option = picture.random.choice(CARRIED)
    return f"set {DAEMON} {option} {picture.random.choice(OPTIONS[option])}"


def _get(picture: Picture) -> str:
    return (
        f"get {DAEMON} {picture.random.choice((*CARRIED, 'type', 'protocol', 'domain', 'netns'))}"
    )


def _register(picture: Picture) -> str:
    how = picture.random.choice(("add", "add", "mod"))
    return f"{how} {picture.random.choice('01')} {DAEMON} {picture.random.choice(EVENTS)}"


def _flag(picture: Picture) -> str:
    return picture.random.choice(
        (
            f"status {DAEMON} nonblock",
            f"status {DAEMON} block",
            f"descriptor {DAEMON} cloexec",
            f"descriptor {DAEMON} keep",
            f"flags {DAEMON}",
        )
    )


def _name(picture: Picture) -> str:
    return picture.random.choice((f"name {DAEMON} 128", f"peer {DAEMON} 128", f"stat {DAEMON}"))


def _visit(picture: Picture) -> str:
    """Several lines: a client, who is accepted sooner or later."""
    client, accepted = picture.random.sample(picture.slots, 2)
    family = picture.random.choice(("inet", "inet6"))
    flags = picture.random.choice(("", " nonblock", " nonblock cloexec"))
    picture.fill(client, f"{family} stream")
    picture.fill(accepted, f"{family} stream")
    accept = f"accept {DAEMON} {accepted}{picture.random.choice(('', ' nonblock', ' cloexec'))}"
    return "\n".join(
        (
            f"socket {client} {family} stream 0{flags}",
            f"connect {client} own:{DAEMON}",
            picture.random.choice((accept, accept, f"oldaccept {DAEMON} {accepted}")),
        )
    )


def _serve(picture: Picture) -> str:
    into = picture.any_slot()
    picture.fill(into, "inet stream")
    return picture.random.choice(
        (
            f"accept {DAEMON} {into} nonblock",
            f"wait {DAEMON} accept",
            f"poll {DAEMON}",
            f"select {DAEMON}",
            f"listen {DAEMON} {picture.random.choice((8, 64))}",
            f"state {DAEMON}",
            f"connect {DAEMON} echo4",
            f"recvfrom {DAEMON} 2 128",
        )
    )


BEFORE = (_set, _set, _set, _get, _register, _flag, _name)
BETWEEN = (_get, _set, _flag, _name)


def make_daemon(seed: int) -> tuple[str, ...]:
    """Return the sequence of a seed."""
    random = Random(seed)
    picture = Picture(random, {}, range(DAEMON + 1, N_SLOTS))
    family, place = random.choice(PLACES)

    flags = random.choice(("", " nonblock", " cloexec", " nonblock cloexec"))
    lines = [f"socket {DAEMON} {family} stream 0{flags}", REUSE]
    lines += [random.choice(BEFORE)(picture) for _ in range(random.randint(0, 4))]
    lines.append(f"bind {DAEMON} taken:{place}")
    lines += [random.choice(BETWEEN)(picture) for _ in range(random.randint(0, 2))]
    lines.append(LISTEN)
    own = {_visit: 14, _serve: 20, _set: 5, _get: 6, _register: 6, _flag: 4, _name: 3}
    return *lines, *draw(picture, {**OPERATIONS, **own})
