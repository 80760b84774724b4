"""Datagrams that find no room wait as in a bare run, and are counted once.

What was sent before does not leave, because nobody says where its destination is. Needs root.
"""

from __future__ import annotations

import pytest

import meshfd as library
from tests.support.command import VIRTUAL, Meshfd
from tests.support.need import require_root
from tests.support.netns import SOUGHT_HERE, find_sought, open_wire
from tests.support.processes import Processes
from tests.support.programs import Programs
from tests.support.talking import open_talk, wait_for

PORT = "9"
ROUTE = f"udp:{VIRTUAL}:53={SOUGHT_HERE}:{PORT}"
ASKED = {"redirected": (VIRTUAL, "53"), "passed": (SOUGHT_HERE, PORT)}
N_MORE = 20  # as full.c has it


@pytest.fixture(autouse=True)
def as_root(meshfd: Meshfd) -> None:
    """Only root can lay a wire."""
    require_root()
    meshfd.need()


def transcript(processes: Processes, command: list[str]) -> list[str]:
    """Run full.c on a new wire; when it says that it is full, or waits on, let it all go."""
    lines = []
    with open_wire():
        running = processes.start(command)
        while True:
            lines.append(running.line())
            if lines[-1] == "full: 0" or lines.count("handled") == 2:
                find_sought()
                break
            if lines[-1].startswith("error: "):
                break
        done = running.finish()
    assert done.code == 0, done.err
    return lines + done.lines


@pytest.fixture(scope="module")
def seen_bare() -> dict[tuple[str, str], list[str]]:
    """What each scenario says without meshfd."""
    return {}


@pytest.mark.parametrize("scenario", ["timeout", "room", "handler", "restart"])
@pytest.mark.parametrize(
    ("variant", "options", "asked"),
    [
        ("", (), "redirected"),
        ("", ("--strict",), "redirected"),
        ("", ("--strict",), "passed"),
        ("i386", (), "redirected"),
    ],
)
def test_waits(
    scenario: str,
    variant: str,
    options: tuple[str, ...],
    asked: str,
    meshfd: Meshfd,
    program: Programs,
    processes: Processes,
    seen_bare: dict[tuple[str, str], list[str]],
) -> None:
    """A send without room ends by room, SO_SNDTIMEO, or a signal; of many, it says how many."""
    path = program("full", variant)
    expected = {"timeout": "send: EAGAIN", "room": "send many: 20", "handler": "send: EINTR"}
    if (scenario, variant) not in seen_bare:
        command = [str(path), scenario, SOUGHT_HERE, PORT]
        seen_bare[scenario, variant] = transcript(processes, command)
    assert expected.get(scenario, "send: 1") in seen_bare[scenario, variant]
    command = meshfd.exec(path, scenario, *ASKED[asked], options=("--route", ROUTE, *options))
    assert transcript(processes, command) == seen_bare[scenario, variant]


@pytest.mark.parametrize("asked", [*ASKED, "denied"])
@pytest.mark.parametrize("strict", [False, True])
async def test_counts(strict: bool, asked: str, program: Programs, processes: Processes) -> None:
    """A message that has waited counts as one that has not: passed, or redirected, once.

    Of redirected ones the first of a socket to an address is counted; each that is denied.
    """
    path = program("full")
    bare = transcript(processes, [str(path), "room", SOUGHT_HERE, PORT])
    n_room = int(bare[0].removeprefix("room: "))
    direct = ASKED["passed"]
    last = direct if asked == "passed" else ASKED["redirected"]
    routes = [f"udp:{VIRTUAL}:53=deny=EACCES" if asked == "denied" else ROUTE]
    command = [str(path), "count", str(n_room), *direct, *last]
    with open_talk() as talk, open_wire():
        async with library.spawn(
            command, routes=routes, strict=strict, stdin=talk.stdin_fd, stdout=talk.stdout_fd
        ) as running:
            if asked != "denied":
                n_by_kernel = n_room + (asked == "passed" and not strict)
                await wait_for(
                    lambda: (
                        running.statistics().waits == n_room + 1 - n_by_kernel
                        and running.statistics().passed == n_by_kernel
                    ),
                    "the message that waits",
                )
                assert running.statistics().redirected == 0
                find_sought()
            said = [await talk.line(), await talk.line()]
            seen = running.statistics()
            talk.tell("end")
    counted = (seen.passed, seen.redirected, seen.denied, seen.refused, seen.retried)
    if asked == "denied":
        assert said == ["send: EACCES", "send more: EACCES"]
        assert counted == (n_room, 0, 2, 0, 0)
    else:
        assert said == ["send: 1", f"send more: {N_MORE}"]
        n_passed = 1 + N_MORE if asked == "passed" else 0
        assert counted == (n_room + n_passed, asked == "redirected", 0, 0, 0)
    assert seen.connects == 0
