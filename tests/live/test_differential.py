"""Whatever a program does with sockets, it sees the same under meshfd as without.

Random sequences of operations (tests/differential), each performed bare and in every mode, have the
same transcript: every result, errno, event, address, option and fd number. A longer search:
``python -m tests.differential --seeds 100000``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.differential.masks import asked
from tests.differential.runs import BARE, MODES, Mode, Runs
from tests.differential.search import Search
from tests.differential.stage import Stage
from tests.support.command import Meshfd, written
from tests.support.need import require_root
from tests.support.programs import Programs

N_SEEDS = 360
N_SEEDS_QUICK = 24
N_SEEDS_TO_REACH_ALL = 320


@pytest.fixture(scope="module")
def search(program: Programs, quick: bool) -> Iterator[Search]:
    """Return the seeds, performed bare."""
    with Search(program, range(N_SEEDS_QUICK if quick else N_SEEDS)) as prepared:
        yield prepared


@pytest.mark.parametrize("mode", MODES)
def test_same(mode: str, meshfd: Meshfd, search: Search) -> None:
    """No sequence differs, nor does bare from bare; one that does is printed, shrunk."""
    if MODES[mode].under_meshfd:
        meshfd.need()
    if MODES[mode].elsewhere:
        require_root()
    found = search.differences(MODES[mode])
    assert not found, "\n\n".join(["", *map(str, found)])


# What search has found, shrunk.
ONCE_DIFFERENT = {
    # a V6ONLY socket cannot express the endpoint of a route from an IPv4 address
    "listening": ("socket 0 inet6 stream 0", "bind 0 ::1", "listen 0 8", "connect 0 mapped:echo4"),
    "failed": (
        "socket 0 inet6 stream 0 nonblock",
        "set 0 v6only 1",
        "connect 0 refuse6",
        "connect 0 mapped:echo4",
        "connect 0 mapped:echo4",
    ),
    "connected": (
        "socket 0 inet6 stream 0 nonblock",
        "set 0 v6only 1",
        "connect 0 echo6",
        "connect 0 mapped:echo4",
        "connect 0 mapped:echo4",
    ),
    "given a port": (
        "socket 0 inet6 dgram 0",
        "set 0 v6only 1",
        "connect 0 mapped:udp-echo4",
        "connect 0 udp-echo4",
    ),
    # the family is wrong before there is anything to decide
    "another family": (
        "socket 0 inet dgram 0",
        "sendto 0 3 mapped:udp-echo4",
        "sendmsg 0 3 mapped:udp-echo4",
        "sendmmsg 0 3 udp-echo4 mapped:udp-echo4",
    ),
    # an unconnected socket may have an error to tell, and Fast Open connects it all the same
    "fast open": (
        "socket 0 inet stream 0",
        "connect 0 greet4",
        "unconnect 0 16",
        "sendto 0 4 reset4 fastopen",
    ),
    "fast open when shut down": (
        "socket 0 inet stream 0 nonblock",
        "shutdown 0 2",
        "connect 0 greet4",
        "sendto 0 0 reset4 fastopen",
    ),
    # no way leads to the address that was asked for, but the socket's own is of that family
    "its own address": ("socket 0 inet6 stream 0", "connect 0 echo6", "name 0 128"),
    "no such file": ("unconnect 0 1", "connect 0 echo4"),
}


ONCE_DIFFERENT_DAEMONS = {
    "the first": (
        "socket 0 inet stream 0",
        "set 0 reuseaddr 1",
        "set 0 rcvbuf 8192",
        "bind 0 taken:daemon4",
        "listen 0 8",
    ),
    # it leaves to the kernel what the first one has set
    "the second": (
        "socket 0 inet stream 0",
        "set 0 reuseaddr 1",
        "set 0 sndbuf 8192",
        "bind 0 taken:daemon4",
        "listen 0 8",
        "get 0 rcvbuf",
    ),
}


@pytest.mark.parametrize("name", ["redirect", "redirect-all", "i386-strict", "standin", "handed"])
def test_once_different(name: str, meshfd: Meshfd, program: Programs) -> None:
    """Sequences that once differed do so no more."""
    meshfd.need()
    mode = MODES[name]
    once = ONCE_DIFFERENT_DAEMONS if mode.daemons else ONCE_DIFFERENT
    sequences = dict(enumerate(asked(one, mode.traits) for one in once.values()))
    with Stage() as stage:
        runs = Runs(program, stage)
        bare = runs.perform(mode.bare, sequences)
        found = runs.differences(mode, sequences, bare)
    assert not found, "\n\n".join(["", *map(str, found)])


def test_a_difference_is_found_and_shrunk(meshfd: Meshfd, program: Programs) -> None:
    """A connection that is denied is noticed, and all that it does not need is left out."""
    meshfd.need()
    with Stage() as stage:
        echo = stage.place("echo4")
        mode = Mode("denied", ("--deny", written(echo.host, echo.port)))
        runs = Runs(program, stage)
        needed = ("socket 0 inet stream 0", "connect 0 echo4")
        sequence = (needed[0], "flags 0", *needed[1:])
        found = runs.check(mode, 0, sequence)
        assert found is not None
        smallest = runs.shrunk(mode, found)
    assert smallest.sequence == needed
    assert smallest.bare[1] == "1 connect 0 echo4: 0"
    assert smallest.under[1] == "1 connect 0 echo4: ECONNREFUSED"


def test_sequences_reach_what_they_are_about(program: Programs) -> None:
    """Among the seeds are connections, refusals, datagrams, interruptions and time-outs."""
    with Search(program, range(N_SEEDS_TO_REACH_ALL)) as search:
        text = "\n".join(line for lines in search.perform(BARE).values() for line in lines)
    assert "UNSETTLED" not in text
    assert "ended" not in text
    for wanted in (
        *("echo4: 0", "greet4: 0", "reset4: 0", "mapped:echo4: 0", ": EINPROGRESS", "EISCONN"),
        *("refuse4: ECONNREFUSED", "EINTR", "timed out", "EALREADY", "ENETUNREACH", "EFAULT"),
        *("'hello'", "ECONNRESET", "SIGPIPE", "from 127.0.0.1:slot", "rdhup", ": connecting"),
        *("udp-echo4: 3", "ECONNREFUSED origin", "from length 16 127.0.0.1:udp-echo4"),
        *("::ffff:127.0.0.1]:udp-echo4", " trunc from", "errqueue", "fastopen: EINPROGRESS"),
        *(" vfork ", " exec ", " fork ", " thread ", "short", "oldaccept", "stream 262: 3"),
    ):
        assert wanted in text, wanted
