"""One service of `meshfd run` as others see it: its state, and what is wanted of it.

Theory of operation: each service has one task, `meshfd.lifecycle.Lifecycle`, which alone moves it
between the states. Others say what they want (`start`, `stop`, `restart`, `close`: none waits) and
then wait for what came of it (`started`, `stopped`). The states and who moves between them:

    stopped    --start-->            starting
    starting   --ready-->            running      (also waits here for what it depends on)
    running    --ended-->            waiting      the policy says restart: a delay goes by
               --ended-->            stopped      status 0, no restart
               --ended-->            failed       another status, no restart
    waiting    --delay, start-->     starting
    any        --stop, restart-->    stopping --> stopped, starting

A wish that comes while an older one is being carried out is never lost: a start during a stop
lets the stop finish and then starts.
"""

from __future__ import annotations

import enum
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from meshfd.errors import ControlError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from meshfd.cgroups import Cgroup, Cgroups
    from meshfd.model import ListeningSocket, Service
    from meshfd.namespaces import Namespaces
    from meshfd.pulse import Pulse
    from meshfd.runner import Runner


class State(enum.Enum):
    """Where a service is; see the module's text."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    WAITING = "waiting"
    FAILED = "failed"


RESTING: Final = frozenset({State.STOPPED, State.FAILED})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What services have in common.

    ``control`` is the control socket's path, ``environment`` meshfd's own. ``on_ended`` is told of
    an end with no restart to come: the service, and its code as in `os.waitstatus_to_exitcode`.
    """

    pulse: Pulse
    cgroups: Cgroups
    namespaces: Namespaces
    control: Path
    environment: Mapping[str, str]
    find: Callable[[str], ManagedService]
    on_ended: Callable[[ManagedService, int], None]


@dataclass(slots=True)
class Wishes:
    """What others want of a service; the lifecycle takes them in.

    ``running``: it shall run. ``start``: a start was asked for and not begun. ``again``: what runs
    shall be stopped and started again. ``close``: its task shall end. ``hurry``: kill at once.
    """

    running: bool = False
    start: bool = False
    again: bool = False
    close: bool = False
    hurry: bool = False


class ManagedService:
    """A service and what became of it. Attributes are for reading, but for the lifecycle.

    ``since`` is (seconds since the epoch, monotonic seconds) of the last change of state;
    ``n_ready`` counts how often it became ready, ``n_restarts`` restarts by policy; ``last_code``
    is its last exit code or minus the signal, None when it never ended; ``reason`` says in words
    why it does not run, where it should; ``runner`` is None while it has no agent, ``cgroup`` while
    none is open for it; ``gone`` tells that its task has ended. ``awaited_ports`` are those that
    another is about to give up, and ``held_back`` the listening sockets that wait for them: a
    reload opens these.
    """

    def __init__(
        self,
        service: Service,
        around: Surroundings,
        awaited_ports: frozenset[int] = frozenset(),
    ) -> None:
        self.service = service
        self.around = around
        self.wishes = Wishes()
        self.state = State.STOPPED
        self.since = (time.time(), time.monotonic())
        self.n_ready = 0
        self.n_restarts = 0
        self.last_code: int | None = None
        self.reason = ""
        self.runner: Runner | None = None
        self.cgroup: Cgroup | None = None
        self.gone = False
        self.awaited_ports = awaited_ports
        self.held_back: tuple[ListeningSocket, ...] = ()
        self.seen_ready: dict[str, int] = {}

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service.name

    @property
    def active(self) -> bool:
        """Whether it runs, or is about to, or is being stopped."""
        return self.state not in RESTING

    @property
    def ready(self) -> bool:
        """Whether its program runs and has done what counts as ready."""
        return self.state is State.RUNNING

    def start(self) -> None:
        """Have it run. What it depends on was asked to start before."""
        wishes = self.wishes
        wishes.hurry = False
        if self.state in RESTING or self.state is State.WAITING:
            wishes.running = wishes.start = True
            find = self.around.find
            self.seen_ready = {name: find(name).n_ready for name in self.service.depends_on}
            self.set_state(State.STARTING)
        elif not wishes.running:
            wishes.running = wishes.again = True
            self.around.pulse.beat()

    def stop(self) -> None:
        """Have it stopped, and everything of it gone."""
        wishes = self.wishes
        if wishes.start:  # not begun: nothing runs
            self.set_state(State.STOPPED)
        wishes.running = wishes.start = wishes.again = False
        self.around.pulse.beat()

    def restart(self) -> None:
        """Stop what runs and start it again; start it if nothing runs."""
        if self.state in {State.RUNNING, State.STARTING, State.STOPPING}:
            self.wishes.running = self.wishes.again = True
            self.around.pulse.beat()
        else:
            self.start()

    def hurry(self) -> None:
        """Have a stop kill at once."""
        self.wishes.hurry = True
        self.around.pulse.beat()

    def close(self) -> None:
        """Stop it and give up its agent and its listening sockets; its task ends."""
        self.wishes.close = True
        self.stop()

    async def started(self, goal: int) -> None:
        """Wait until it was ready more often than ``goal`` times: `n_ready` before the wish.

        Raises:
            ControlError: it ended or was stopped instead.

        """
        moving = {State.STARTING, State.RUNNING, State.STOPPING}
        await self.around.pulse.until(lambda: self.n_ready > goal or self.state not in moving)
        if self.n_ready <= goal:
            raise ControlError(f"service {self.name} {self.reason or 'was stopped'}")

    async def stopped(self) -> None:
        """Wait until nothing of it runs."""
        await self.around.pulse.until(lambda: self.state in RESTING)

    def renew(self, service: Service) -> None:
        """Describe it anew; what runs goes on, and what is yet to happen goes by the new values."""
        self.service = service
        self.around.pulse.beat()

    def set_state(self, state: State) -> None:
        """Move to this state, and tell who waits."""
        if state is not self.state:
            self.state = state
            self.since = (time.time(), time.monotonic())
        self.around.pulse.beat()


def describe_end(code: int) -> str:
    """An exit code, or minus a signal's number, in words."""
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
