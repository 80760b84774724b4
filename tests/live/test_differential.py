"""Whatever a program does with sockets, it sees the same under meshfd as without.

Random sequences of operations (tests/differential), each performed bare and in every mode, have the
same transcript: every result, errno, event, address, option and fd number. A longer search:
``python -m tests.differential --seeds 100000``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.differential.runs import BARE, MODES, Mode, Runs
from tests.differential.search import Search
from tests.differential.sequences import make
from tests.differential.stage import Stage
from tests.support.command import Meshfd, written
from tests.support.programs import Programs

N_SEEDS = 1200
N_SEEDS_QUICK = 80
N_SEEDS_TO_REACH_ALL = 400


@pytest.fixture(scope="module")
def search(program: Programs, quick: bool) -> Iterator[Search]:
    """Return the seeds, performed bare."""
    with Search(program("differ"), range(N_SEEDS_QUICK if quick else N_SEEDS)) as prepared:
        yield prepared


@pytest.mark.parametrize("mode", MODES)
def test_same(mode: str, meshfd: Meshfd, search: Search) -> None:
    """No sequence differs, nor does bare from bare; one that does is printed, shrunk."""
    if MODES[mode].under_meshfd:
        meshfd.need()
    found = search.differences(MODES[mode])
    assert not found, "\n\n".join(["", *map(str, found)])


# A V6ONLY socket cannot express the endpoint of a route from an IPv4 address.
ONCE_DIFFERENT = {
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
}


@pytest.mark.parametrize("name", ONCE_DIFFERENT)
@pytest.mark.parametrize("mode", ["redirect", "redirect-all"])
def test_once_different(name: str, mode: str, meshfd: Meshfd, program: Programs) -> None:
    """An earlier attempt or state is told first, also where no endpoint can be expressed."""
    meshfd.need()
    with Stage() as stage:
        found = Runs(program("differ"), stage).check(MODES[mode], 0, ONCE_DIFFERENT[name])
    assert found is None, str(found)


def test_a_difference_is_found_and_shrunk(meshfd: Meshfd, program: Programs) -> None:
    """A connection that is denied is noticed, and all that it does not need is left out."""
    meshfd.need()
    with Stage() as stage:
        echo = stage.place("echo4")
        mode = Mode("denied", ("--deny", written(echo.host, echo.port)))
        runs = Runs(program("differ"), stage)
        needed = ("socket 0 inet stream 0", "connect 0 echo4")
        sequence = ("socket 1 inet6 stream 0", needed[0], "flags 0", needed[1], "poll 1")
        found = runs.check(mode, 0, sequence)
        assert found is not None
        smallest = runs.shrunk(mode, found)
    assert smallest.sequence == needed
    assert smallest.bare[1] == "1 connect 0 echo4: 0"
    assert smallest.under[1] == "1 connect 0 echo4: ECONNREFUSED"


def test_sequences_reach_what_they_are_about(program: Programs) -> None:
    """Among the seeds are connections, refusals, interruptions and time-outs."""
    with Stage() as stage:
        transcripts = Runs(program("differ"), stage).perform(
            BARE, {seed: make(seed) for seed in range(N_SEEDS_TO_REACH_ALL)}
        )
    text = "\n".join(line for lines in transcripts.values() for line in lines)
    assert "UNSETTLED" not in text
    assert "ended" not in text
    for wanted in (
        *("echo4: 0", "greet4: 0", "reset4: 0", "mapped:echo4: 0", ": EINPROGRESS", "EISCONN"),
        *("refuse4: ECONNREFUSED", "EINTR", "timed out", "EALREADY", "ENETUNREACH", "EFAULT"),
        *(
            "'hello'",
            "ECONNRESET",
            "SIGPIPE",
            "from 127.0.0.1:slot",
            "rdhup",
            ": connecting",
        ),
    ):
        assert wanted in text, wanted
