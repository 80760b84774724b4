"""The one task of a service: its agent, its program, and its restarts.

Theory of operation: see `meshfd.service` for the states. The agent is opened first and stays over
all restarts of the program, and with it the listening sockets and whoever queues there. When the
agent itself is lost, the program cannot make a connection any more: it is ended, a new agent is
opened, and the program starts again as its policy says for a failure.

Nothing of an earlier start is left when the next begins: what the main process leaves behind is
ended first, because old workers would go on serving beside the new ones.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import signal
from typing import TYPE_CHECKING, Final

import trio

from meshfd.agent import AgentOptions, open_agent
from meshfd.errors import AgentLostError, MeshfdError, ServiceError, SpawnError
from meshfd.features import features_of_service
from meshfd.identity import resolve_identity
from meshfd.launch import open_stdio, plan_launch
from meshfd.logs import event as log
from meshfd.restart import must_restart, restart_delay_s
from meshfd.runner import Runner
from meshfd.service import State, describe_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from meshfd.agent import Agent
    from meshfd.model import Service
    from meshfd.service import ManagedService

SLOW_START_S: Final = 10.0
LOST_PAUSE_S: Final = 1.0
# What a shell answers for a program that it cannot execute, or not find.
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127


class Lifecycle:
    """The task; made anew for each service."""

    def __init__(self, managed: ManagedService) -> None:
        self._managed = managed
        self._wishes = managed.wishes
        self._pulse = managed.around.pulse
        self._delay_s: float | None = None

    async def run(
        self, *, tolerant: bool, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until the service is closed; reports started when its listening sockets are open.

        With ``tolerant`` a socket that cannot be opened makes the service failed, to be tried
        again by its next start.

        Raises:
            MeshfdError: without ``tolerant``, the agent or a socket could not be opened.

        """
        while not self._wishes.close:
            failure: MeshfdError | None = None
            try:
                async with self._open_runner() as runner:
                    task_status.started()
                    task_status, tolerant = trio.TASK_STATUS_IGNORED, True
                    await self._serve(runner)
            except* (MeshfdError, OSError) as group:  # the agent's nursery makes groups
                failure = _first_of(group)
            if failure is not None:
                if not tolerant:
                    raise self._named(failure)
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                await self._suffer(failure)
        self._managed.set_state(State.STOPPED)

    def _named(self, failure: MeshfdError) -> MeshfdError:
        """The failure of what stands for a service says whose."""
        if not isinstance(failure, ServiceError) or str(failure).startswith("service "):
            return failure
        return ServiceError(f"service {self._managed.name}: {failure}")

    @contextlib.asynccontextmanager
    async def _open_runner(self) -> AsyncIterator[Runner]:
        managed, service = self._managed, self._managed.service
        owner = resolve_identity(service.user, service.group)
        options = AgentOptions(
            features=features_of_service(service),
            stop_signal=service.stop_signal,
            stop_timeout_s=service.stop_timeout_s,
            netns=service.netns,
            ipv4_netns=None if service.transition is None else service.transition.ipv4_netns,
            uid=owner.uid,
            gid=owner.gid,
            open_netns=managed.around.namespaces.open,
        )
        async with self._open_agent(options) as agent:
            runner = Runner(managed.name, agent, self._pulse, lambda: self._wishes.hurry)
            await runner.set_routes(service.routes)
            managed.held_back = await runner.open(
                service.listen, awaited_ports=managed.awaited_ports
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(runner.watch)
                managed.runner = runner
                try:
                    yield runner
                finally:
                    managed.runner = None
                    nursery.cancel_scope.cancel()

    @contextlib.asynccontextmanager
    async def _open_agent(self, options: AgentOptions) -> AsyncIterator[Agent]:
        """An agent in the service's cgroup; the cgroup outlives it, and then goes."""
        managed, service = self._managed, self._managed.service
        async with contextlib.AsyncExitStack() as stack:
            settle = None
            if service.cgroup is not None:
                opened = managed.around.cgroups.open(
                    service.name, service.cgroup, service.cgroup_limits
                )
                managed.cgroup = await stack.enter_async_context(opened)
                stack.callback(setattr, managed, "cgroup", None)
                settle = managed.cgroup.add
            async with open_agent(options, settle=settle) as agent:
                yield agent

    async def _serve(self, runner: Runner) -> None:
        """Start the program when asked to, until the service is closed or its agent is lost."""
        wishes = self._wishes
        while not wishes.close and not runner.lost:
            await self._pulse.until(lambda: wishes.start or wishes.close or runner.lost)
            if wishes.start and not runner.lost:
                wishes.start = False
                self._delay_s = None
                await self._keep_running(runner)
        if runner.lost and not wishes.close:
            log(logging.ERROR, "its agent is lost: starting another", service=self._managed.name)
            await self._pulse.until_within(LOST_PAUSE_S, lambda: wishes.close)

    async def _keep_running(self, runner: Runner) -> None:
        """Run the program, again and again as the policy says."""
        managed, wishes = self._managed, self._wishes
        if not await self._dependencies_ready():
            return
        while not runner.lost:
            began_s = trio.current_time()
            code = await self._run_once(runner)
            if not wishes.running:
                self._rest()
                return
            if wishes.again:
                wishes.again = False
                managed.set_state(State.STARTING)
                continue
            if not await self._wait_to_restart(code, trio.current_time() - began_s):
                return
        wishes.start = True  # with the next agent

    async def _run_once(self, runner: Runner) -> int:
        """Start the program and wait for its end, or bring it about; its code."""
        managed = self._managed
        try:
            around = managed.around
            program = plan_launch(managed.service, around.environment, around.control)
            with open_stdio(managed.service) as stdio:
                pid = await runner.spawn(program, stdio=stdio, ready=managed.service.ready)
        except AgentLostError:
            return NOT_EXECUTABLE
        except (MeshfdError, OSError) as error:
            return self._note_failed_start(error)
        log(logging.INFO, "started", service=managed.name, pid=pid)
        await self._until_ready(runner)
        await self._pulse.until(lambda: not runner.running or self._must_stop())
        asked = runner.running
        if asked:
            managed.set_state(State.STOPPING)
            await runner.stop(managed.service)
        code = self._note_end(runner, asked=asked)
        await runner.sweep(managed.service)
        return code

    async def _until_ready(self, runner: Runner) -> None:
        managed = self._managed

        def settled() -> bool:
            ready = runner.is_ready(managed.service.ready)
            return ready or not runner.running or self._must_stop()

        if not await self._pulse.until_within(SLOW_START_S, settled):
            text = "is not ready yet: it has not called listen() on its listening sockets"
            log(logging.WARNING, text, service=managed.name, after_s=SLOW_START_S)
            await self._pulse.until(settled)
        if runner.is_ready(managed.service.ready):
            managed.n_ready += 1
            managed.reason = ""
            managed.set_state(State.RUNNING)
            log(logging.INFO, "ready", service=managed.name)

    async def _dependencies_ready(self) -> bool:
        """Wait for what it depends on; False when it is not to start, and the state says why."""
        managed, wishes = self._managed, self._wishes
        find = managed.around.find

        def missing() -> list[ManagedService]:
            others = [find(name) for name in managed.service.depends_on]
            seen = managed.seen_ready
            return [
                other
                for other in others
                if other.state is not State.RUNNING and other.n_ready <= seen.get(other.name, 0)
            ]

        def ended() -> list[str]:
            return [other.name for other in missing() if not other.active]

        await self._pulse.until(lambda: not wishes.running or not missing() or bool(ended()))
        wishes.again = False
        if not wishes.running:
            self._rest()
            return False
        if not missing():
            return True
        managed.reason = f"cannot start without {', '.join(ended())}"
        log(logging.ERROR, managed.reason, service=managed.name)
        self._end(1)
        return False

    async def _wait_to_restart(self, code: int, ran_s: float) -> bool:
        """Let the delay go by, or a start cut it short; False when it is not to run again.

        Policy and delay are those in force, also when they change while this waits.
        """
        managed, wishes = self._managed, self._wishes
        ended_s, previous_s = trio.current_time(), self._delay_s
        while True:
            service = managed.service
            if not must_restart(service.restart, code):
                self._end(code)
                return False
            managed.set_state(State.WAITING)
            self._delay_s = restart_delay_s(service.backoff, previous_s, ran_s)
            left_s = max(0.0, ended_s + self._delay_s - trio.current_time())
            log(logging.INFO, "starts again", service=managed.name, in_s=round(left_s, 3))
            await self._pulse.until_within(left_s, functools.partial(self._must_wake, service))
            if not wishes.running:
                self._rest()
                return False
            if wishes.start or managed.service is service:
                break
        wishes.start = False
        managed.n_restarts += 1
        managed.set_state(State.STARTING)
        return True

    async def _suffer(self, error: MeshfdError) -> None:
        """The agent or a listening socket is not to be had: failed, until the next start."""
        managed, wishes = self._managed, self._wishes
        managed.reason = str(error)
        log(logging.ERROR, managed.reason, service=managed.name)
        if wishes.running:
            self._end(1)
        await self._pulse.until(lambda: wishes.start or wishes.close)

    def _note_failed_start(self, error: MeshfdError | OSError) -> int:
        code = 1
        if isinstance(error, SpawnError):
            code = NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE
        self._managed.last_code = code
        self._managed.reason = str(error)
        log(logging.ERROR, str(error), service=self._managed.name)
        return code

    def _note_end(self, runner: Runner, *, asked: bool) -> int:
        if runner.code is not None:
            code = runner.code
        else:  # the agent is lost: its program must not go on without it
            code = -signal.SIGKILL
            if runner.pid is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(runner.pid, signal.SIGKILL)
        clean = asked or code == 0
        text = describe_end(code)
        self._managed.last_code = code
        self._managed.reason = "" if clean else text
        level = logging.INFO if clean else logging.WARNING
        log(level, text, service=self._managed.name, pid=runner.pid)
        return code

    def _end(self, code: int) -> None:
        """An end with no restart to come."""
        self._wishes.running = self._wishes.start = self._wishes.again = False
        self._managed.set_state(State.FAILED if code else State.STOPPED)
        self._managed.around.on_ended(self._managed, code)

    def _rest(self) -> None:
        """An end that was asked for."""
        self._managed.reason = ""
        self._managed.set_state(State.STOPPED)

    def _must_wake(self, old: Service) -> bool:
        return self._wishes.start or not self._wishes.running or self._managed.service is not old

    def _must_stop(self) -> bool:
        return not self._wishes.running or self._wishes.again


def _first_of(group: BaseExceptionGroup[MeshfdError | OSError]) -> MeshfdError:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if isinstance(first, MeshfdError):
        return first
    return MeshfdError(f"its agent cannot be started: {first}")
