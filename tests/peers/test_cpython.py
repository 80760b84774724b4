"""CPython's own tests of sockets say under meshfd what they say without it, case by case.

All modes run at once, and a mode's cases in many processes: they mostly wait. What meshfd
redirects is other addresses than these tests use, so that all their calls pass; what it has to
intercept to find that out differs from mode to mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pytest

from tests.support.alone import need_alone
from tests.support.command import VIRTUAL, Meshfd
from tests.support.cpython import Outcome, Part, Way, perform, shares_of
from tests.support.processes import Processes

OTHERS = ("--route", f"{VIRTUAL}:80=127.0.0.1:9", "--route", f"udp:{VIRTUAL}:53=127.0.0.1:9")
UNIX = ("--route", f"{VIRTUAL}:81=unix:@nobody")  # registrations with epoll are intercepted
LISTEN = ("--listen", "127.0.0.1:20000")  # bind() is; no test takes this port

BARE = "bare"
MODES: dict[str, tuple[str, ...]] = {
    "pass": OTHERS,
    "strict": (*OTHERS, "--strict"),
    "all": (*OTHERS, *UNIX, *LISTEN, "--transparent", "--track", "create"),
    "all-strict": (*OTHERS, *UNIX, *LISTEN, "--transparent", "--track", "create", "--strict"),
}
QUICK_MODES = ("all-strict",)  # intercepts all that the others do

# Those that take longest come first.
PARTS = (
    Part(("test_ssl",), 4),
    Part(("test_asyncio",), 4, whole_modules=True),
    Part(("test_xmlrpc",), 2),
    Part(("test_socket",), 3),
    Part(("test_selectors", "test_epoll", "test_socketserver", "test_httplib"), 2),
    Part(("test_ftplib",)),
)

# Cases that are not performed, and why.
LEFT_OUT: Mapping[str, str] = {
    "*VSOCK*": "hangs where vsock is there and has no peer",
    "*.test_task_del_collect": "collects garbage 100 times: many seconds, and no socket",
    "*.NetworkConnectionAttributesTest.testSourceAddress": (
        "one thread's clean-up may close the socket before the other has looked at it"
    ),
    "*.test_events.PollEventLoopTests.*": (
        "EPollEventLoopTests with another selector, and its garbage is collected for many seconds"
    ),
    "*.test_events.SelectEventLoopTests.*": "the same",
    "*.test_prompt_cancellation": "fails where a wait of no time takes 100 ms",
    "*.test_kill_issue43884": "fails where it takes a second to kill a child",
    "*.TestEPoll.test_control_and_wait": "fails where a wait of no time takes 10 ms",
    "*.test_get_server_certificate_timeout": "fails where a wait of 100 ms outlasts one of 200 ms",
    "*.test_remote_shutdown_receives_trailing_data": "fails where the client takes 200 ms to write",
    **{
        f"*.test_asyncio.test_{name}.*": "waits of different lengths race, and there is no socket"
        for name in ("taskgroups", "timeouts", "waitfor")
    },
}
# Those that a quick run leaves out, too.
QUICK_LEFT_OUT: Mapping[str, str] = {
    "*.MultiPathServerTestCase.*": "three seconds each",
    "*.NetworkConnectionBehaviourTest.*": "the same",
    **{
        f"*.test_asyncio.test_{name}.*": "no socket"
        for name in (
            *("futures", "futures2", "locks", "pep492", "proactor_events", "protocols", "queues"),
            *("runners", "subprocess", "tasks", "threads", "transports", "windows_events"),
            *("windows_utils",),
        )
    },
}
N_CASES = 3000  # at least, or half the tests are missing
N_CASES_QUICK = 1500
SHOWN_CHARACTERS = 4000  # of what a process with a difference has said


def _under(meshfd: Meshfd, options: tuple[str, ...]) -> Way:
    return lambda command: meshfd.exec(*command, options=options)


@dataclass(frozen=True, slots=True)
class Performed:
    """The cases of each process, and their outcomes bare and by mode."""

    shares: list[list[str]]
    outcomes: Mapping[str, list[Outcome]]

    @property
    def modes(self) -> list[str]:
        """The modes that the cases were performed in."""
        return [name for name in self.outcomes if name != BARE]

    def differences(self, mode: str) -> list[str]:
        """Return what differs from bare, as text."""
        found = []
        for share, bare, under in zip(
            self.shares, self.outcomes[BARE], self.outcomes[mode], strict=True
        ):
            differ = [case for case in share if bare.of(case).kind != under.of(case).kind]
            found += [f"{case}\nbare: {bare.of(case)}\n{mode}: {under.of(case)}" for case in differ]
            if differ:
                found.append(f"its process said:\n{under.said[-SHOWN_CHARACTERS:]}")
        return found


Perform = Callable[[list[list[str]], Mapping[str, tuple[str, ...]]], Performed]


@pytest.fixture(scope="module")
def performer(meshfd: Meshfd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Perform]:
    """Return what performs cases bare and in modes."""
    meshfd.need()
    need_alone()
    processes = Processes(tmp_path_factory.mktemp("cpython"))

    def performed(shares: list[list[str]], modes: Mapping[str, tuple[str, ...]]) -> Performed:
        ways: dict[str, Way] = {BARE: list}
        ways |= {mode: _under(meshfd, options) for mode, options in modes.items()}
        return Performed(shares, perform(processes, shares, ways))

    try:
        yield performed
    finally:
        processes.end()


@pytest.fixture(scope="module")
def performed(performer: Perform, quick: bool) -> Performed:
    """Return all cases, performed in all modes."""
    left_out = [*LEFT_OUT, *(QUICK_LEFT_OUT if quick else ())]
    shares = [share for part in PARTS for share in shares_of(part, left_out)]
    return performer(shares, {mode: MODES[mode] for mode in (QUICK_MODES if quick else MODES)})


def test_all_are_performed(performed: Performed, quick: bool) -> None:
    """Without meshfd each case comes to an end, and nearly all of them pass."""
    lost, n_passed = [], 0
    for share, outcome in zip(performed.shares, performed.outcomes[BARE], strict=True):
        kinds = {case: outcome.of(case).kind for case in share}
        n_passed += sum(kind == "passed" for kind in kinds.values())
        lost += [(case, outcome.said) for case, kind in kinds.items() if kind == "not run"]
    assert not lost, lost[0]
    assert n_passed >= (N_CASES_QUICK if quick else N_CASES)


def test_same(performed: Performed) -> None:
    """The same cases pass, fail and are skipped in each mode as without meshfd."""
    found = [text for mode in performed.modes for text in performed.differences(mode)]
    assert not found, "\n\n".join(["", *found])


def test_a_difference_is_found(performer: Perform) -> None:
    """A case whose connection is denied fails."""
    case = "test.test_epoll.TestEPoll.test_fromfd"
    found = performer([[case]], {"denied": ("--deny", "127.0.0.1")}).differences("denied")
    assert found
    assert "ECONNREFUSED" in found[0] or "111" in found[0], found
