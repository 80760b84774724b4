"""Limits of a service's cgroup: there before its program, changed while it runs, taken back.

Where cgroup version 1 has the controllers that everybody wants, hugetlb is still version 2's; what
holds for one holds for all of them.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from meshfd.cgroup_limits import CONTROLLERS
from meshfd.cgroups import Cgroups
from meshfd.errors import ServiceError
from meshfd.rlimits import UNLIMITED
from tests.support.cgroups import Place, controller, hierarchy_here, new_place, processes_in
from tests.support.command import COMMAND
from tests.support.configured import refused, start_run, toml_command
from tests.support.need import require
from tests.support.ordinary_user import NOBODY, as_ordinary_user
from tests.support.processes import Finished, Processes, Program
from tests.support.waiting import wait_until

MIB: Final = 1 << 20
PAGES: Final = "hugetlb.2MB.max"
RESERVED: Final = "hugetlb.2MB.rsvd.max"
NONE_SUCH: Final = "hugetlb.3MB.max"  # no machine has pages of that size
FOREVER: Final = ("sleep", "1000")


@pytest.fixture
def place() -> Iterator[Place]:
    """Make one to which the controller is given. Needs root."""
    with controller("hugetlb"), new_place() as made:
        require((made.directory / PAGES).exists(), "there are no pages of 2 MiB")
        yield made


def value(directory: Path, name: str) -> str:
    """What the kernel says of a limit; of one that was never set, it says a number of its own."""
    said = (directory / name).read_text().strip()
    return "max" if said.isdecimal() and int(said) > UNLIMITED // 4 else said


class Run:
    """A service "web" in the cgroup "web" of a place."""

    def __init__(self, place: Place, processes: Processes, directory: Path) -> None:
        """Nothing is started yet."""
        self.place = place
        self.inner = place.directory / "web"
        self.directory = directory
        self._processes = processes

    def start(
        self,
        limits: str,
        command: Sequence[str] = FOREVER,
        *,
        path: str = "",
        prefix: Sequence[str] = (),
    ) -> Program:
        """Start ``meshfd run``."""
        self._path = path or f"{self.place.path}/web"
        text = self._text(limits, command)
        return start_run(self._processes, self.directory, text, prefix=prefix)

    def start_and_wait(self, limits: str, *, prefix: Sequence[str] = ()) -> tuple[Program, int]:
        """Start it, and wait until the service's program runs; its pid, too."""
        running = self.start(limits, prefix=prefix)
        return running, wait_until(self.program, "the service's program")

    def program(self) -> int | None:
        """The pid of the service's program, once it is that."""
        pids = processes_in(self.inner)
        return next((pid for pid in pids if _name_of(pid) == FOREVER[0]), None)

    def reload(self, limits: str, more: str = "") -> Finished:
        """Have other limits."""
        (self.directory / "meshfd.toml").write_text(self._text(limits, FOREVER, more))
        return self._processes.run(
            [*COMMAND, "reload"], env={**os.environ, "XDG_RUNTIME_DIR": str(self.directory)}
        )

    def value(self, name: str) -> str:
        """What the kernel says of a limit."""
        return value(self.inner, name)

    def _text(self, limits: str, command: Sequence[str], more: str = "") -> str:
        limited = f"cgroup_limits = {{ {limits} }}\n" if limits else ""
        return f'[service.web]\ncgroup = "{self._path}"\n{limited}{toml_command(command)}{more}'


def _name_of(pid: int) -> str:
    try:
        return Path("/proc", str(pid), "comm").read_text().strip()
    except OSError:  # it ended meanwhile
        return ""


def end(running: Program) -> None:
    """Stop it in order."""
    running.signal(signal.SIGTERM)
    assert running.finish().code == 0


@pytest.fixture
def run(place: Place, processes: Processes, tmp_path: Path) -> Run:
    """Return a service that is not started."""
    return Run(place, processes, tmp_path)


def test_before_the_program(run: Run, tmp_path: Path) -> None:
    """The program finds its limits in force; the controller was enabled, and is not afterwards."""
    running = run.start(f'"{PAGES}" = "8MiB"', ["cp", str(run.inner / PAGES), str(tmp_path)])
    assert running.finish().code == 0
    assert (tmp_path / PAGES).read_text() == f"{8 * MIB}\n"
    assert run.place.enabled() == []
    assert not run.inner.exists()


def test_deep(run: Run, tmp_path: Path) -> None:
    """Every cgroup on the way is given the controller, those that meshfd makes, too."""
    path = f"{run.place.path}/a/b/web"
    inner = run.place.directory / "a" / "b" / "web"
    running = run.start(f'"{PAGES}" = 0', path=path)
    wait_until(lambda: inner.exists() and len(processes_in(inner)) == 2, "agent and program")
    assert (inner / PAGES).read_text() == "0\n"
    end(running)
    assert run.place.enabled() == []
    assert not (run.place.directory / "a").exists()


def test_who_else_is_there_keeps_it(run: Run) -> None:
    """A controller stays enabled while others have cgroups beside the service's."""
    other = run.place.below("other")
    running, _ = run.start_and_wait(f'"{PAGES}" = "2MiB"')
    (other.directory / PAGES).write_text("0")
    end(running)
    assert (other.directory / PAGES).read_text() == "0\n"
    other.directory.rmdir()
    running, _ = run.start_and_wait(f'"{PAGES}" = "2MiB"')
    end(running)
    assert run.place.enabled() == []  # whoever was the last has seen to it


def test_after_a_crash(run: Run) -> None:
    """The next meshfd begins without the limits of one that was killed, and disables for it."""
    running, _ = run.start_and_wait(f'"{PAGES}" = "2MiB"')
    running.signal(signal.SIGKILL)
    running.wait()
    wait_until(lambda: not processes_in(run.inner), "the service's end")
    assert run.place.enabled() == ["hugetlb"]
    running, _ = run.start_and_wait(f'"{RESERVED}" = "4MiB"')
    assert run.value(PAGES) == "max"
    end(running)
    assert run.place.enabled() == []


def test_what_was_there_is_put_back(run: Run) -> None:
    """A cgroup that meshfd has not made has the limits again that it had."""
    run.place.below("web")
    (run.place.directory / "cgroup.subtree_control").write_text("+hugetlb")
    (run.inner / PAGES).write_text(str(6 * MIB))
    running, _ = run.start_and_wait(f'"{PAGES}" = "2MiB"')
    assert run.value(PAGES) == str(2 * MIB)
    end(running)
    assert run.value(PAGES) == str(6 * MIB)


# --- reload ---------------------------------------------------------------------------------------


def test_reload(run: Run) -> None:
    """Limits change under a program that runs on; where one cannot be, all are as they were."""
    running, pid = run.start_and_wait("")
    for limits, pages, reserved in (
        (f'"{PAGES}" = "8MiB"', str(8 * MIB), "max"),
        (f'"{PAGES}" = "4MiB", "{RESERVED}" = 0', str(4 * MIB), "0"),
        ("", "max", "max"),
        (f'"{RESERVED}" = "2MiB"', "max", str(2 * MIB)),
    ):
        done = run.reload(limits)
        assert done.code == 0, done.err
        assert (run.value(PAGES), run.value(RESERVED)) == (pages, reserved)
    done = run.reload(f'"{PAGES}" = 0, "{RESERVED}" = 0, "{NONE_SUCH}" = 0')
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert f"cgroup {run.inner} cannot be limited: this kernel has no {NONE_SUCH}" in line
    assert (run.value(PAGES), run.value(RESERVED)) == ("max", str(2 * MIB))
    assert run.program() == pid
    end(running)


@pytest.mark.parametrize("more", ["", "strict = true\n"], ids=["same agent", "new agent"])
def test_reload_put_back(more: str, run: Run) -> None:
    """Where something else of the reload cannot be, the limits are as they were, too."""
    running, pid = run.start_and_wait(f'"{PAGES}" = "8MiB"')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listen = f'[[service.web.listen]]\naddress = "127.0.0.1:{port}"\n'
        done = run.reload(f'"{PAGES}" = 0, "{RESERVED}" = 0', more + listen)
    assert done.code == 1
    assert (run.value(PAGES), run.value(RESERVED)) == (str(8 * MIB), "max")
    assert run.program() == pid
    end(running)


def test_reload_with_a_new_agent(run: Run) -> None:
    """A cgroup that passes from one agent to the next has the limits of the next."""
    running, _ = run.start_and_wait(f'"{PAGES}" = "8MiB", "{RESERVED}" = 0')
    assert run.reload(f'"{PAGES}" = "4MiB"', "strict = true\n").code == 0
    assert (run.value(PAGES), run.value(RESERVED)) == (str(4 * MIB), "max")
    end(running)
    assert run.place.enabled() == []


async def test_refused_by_the_kernel(place: Place) -> None:
    """A value that the kernel refuses leaves the limits that could be written as they were."""
    path = f"{place.path}/web"
    inner = place.directory / "web"
    async with Cgroups().open("web", path, [(PAGES, (str(MIB * 8),))]) as cgroup:
        with pytest.raises(ServiceError, match=rf'{RESERVED} = "some": Invalid argument'):
            await cgroup.limit([(PAGES, ("0",)), (RESERVED, ("some",))])
        assert value(inner, PAGES) == str(MIB * 8)
        await cgroup.limit([(RESERVED, ("0",))])
        assert value(inner, PAGES) == "max"
    await cgroup.limit([(PAGES, ("0",))])  # too late
    assert not inner.exists()
    assert place.enabled() == []


# --- what cannot be had ---------------------------------------------------------------------------


def test_no_such_file(run: Run) -> None:
    """A limit that this kernel does not have is named; nothing is left of the attempt."""
    line = refused(run.start(f'"{PAGES}" = 0, "{NONE_SUCH}" = 0'))
    assert f"cgroup {run.inner} cannot be limited: this kernel has no {NONE_SUCH}" in line
    assert not run.inner.exists()
    assert run.place.enabled() == []


def test_controller_elsewhere(run: Run) -> None:
    """A controller that is not version 2's here is named, and where it is missing, and why."""
    mount = hierarchy_here().mount
    there = (mount / "cgroup.controllers").read_text().split()
    name = next((one for one in CONTROLLERS if one not in there), None)
    require(name is not None, "cgroup v2 has every controller here")
    limit = {"memory": '"memory.max" = "1GiB"', "pids": '"pids.max" = 100'}
    line = refused(run.start(limit[name or ""]))
    assert f"controller {name} is not available at {mount}: " in line
    assert "cgroup v1 holds it" in line or "the kernel has none" in line
    assert not run.inner.exists()


def test_processes_in_the_parent(run: Run) -> None:
    """Where meshfd itself is in the parent, the line says why that cannot be, and what to do."""
    line = refused(run.start(f'"{PAGES}" = 0', path="web", prefix=run.place.prefix))
    assert f"controller hugetlb is not available at {run.place.directory}: processes are in" in line
    assert 'from the root ("/...")' in line
    assert not run.inner.exists()
    assert run.place.enabled() == []


def _delegate(place: Place, *files: str) -> None:
    for name in ("", "cgroup.procs", *files):
        os.chown(place.directory / name, NOBODY, NOBODY)


def test_delegated(run: Run, tmp_path: Path) -> None:
    """An ordinary user's own cgroup serves, when meshfd is in a leaf of it."""
    leaf = run.place.below("leaf")
    _delegate(run.place, "cgroup.subtree_control")
    os.chown(tmp_path, NOBODY, NOBODY)
    prefix = [*leaf.prefix, *as_ordinary_user([])]
    running, _ = run.start_and_wait(f'"{PAGES}" = 0', prefix=prefix)
    assert run.value(PAGES) == "0"
    end(running)
    assert not run.inner.exists()
    assert run.place.enabled() == ["hugetlb"]  # the leaf has it, too


def test_not_delegated(run: Run, tmp_path: Path) -> None:
    """An ordinary user who may make cgroups but give them no controller is told so."""
    _delegate(run.place)
    os.chown(tmp_path, NOBODY, NOBODY)
    prefix = [*run.place.prefix, *as_ordinary_user([])]
    line = refused(run.start(f'"{PAGES}" = 0', prefix=prefix))
    where = f"controller hugetlb is not available at {run.place.directory}: "
    assert f"{where}it is not delegated to this user" in line
    assert "Delegate=yes" in line
    assert not run.inner.exists()
