"""From a service's description to what is spawned."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from meshfd.errors import ServiceError
from meshfd.launch import open_stdio, plan_launch
from meshfd.model import Service

CONTROL = Path("/run/meshfd/control.sock")
SERVICE = Service("web", ("sh", "-c", "true"))
OWN = {"PATH": "/usr/bin:/bin", "LANG": "C", "NOTIFY_SOCKET": "/x", "LISTEN_FDS": "1"}


def open_fds() -> set[str]:
    """Return the numbers of this process's open files."""
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


def test_the_environment_is_ours_and_the_services() -> None:
    """Programs inherit meshfd's environment but for what was said to meshfd alone; theirs wins."""
    service = replace(SERVICE, environment=(("LANG", "de"), ("A", "1")))
    assert dict(plan_launch(service, OWN, CONTROL).environment) == {
        "PATH": "/usr/bin:/bin",
        "LANG": "de",
        "A": "1",
        "MESHFD_CONTROL": str(CONTROL),
    }


def test_a_service_is_a_session_of_its_own() -> None:
    """A service is not in meshfd's session, so its terminal's signals do not reach it."""
    program = plan_launch(SERVICE, OWN, CONTROL)
    assert program.new_session
    assert (program.argv, program.uid, program.gid) == (SERVICE.command, None, None)


def test_commands_are_looked_for_in_the_services_own_path(tmp_path: Path) -> None:
    """PATH in the service's environment decides what a bare name means."""
    script = tmp_path / "only-here"
    script.touch(0o755)
    service = replace(SERVICE, command=("only-here",))
    with pytest.raises(ServiceError, match="web: only-here is not found in PATH"):
        plan_launch(service, OWN, CONTROL)
    plan_launch(replace(service, environment=(("PATH", str(tmp_path)),)), OWN, CONTROL)


def test_a_relative_command_is_relative_to_its_directory(tmp_path: Path) -> None:
    """A path with a slash starts at working_dir, as execve(2) has it."""
    (tmp_path / "run").touch(0o755)
    service = replace(SERVICE, command=("./run",))
    plan_launch(replace(service, working_dir=tmp_path), OWN, CONTROL)
    with pytest.raises(ServiceError, match=r"web: there is no \./run"):
        plan_launch(service, OWN, CONTROL)


@pytest.mark.parametrize(("log", "inherits"), [("inherit", True), ("null", False), ("file", False)])
def test_standard_files(tmp_path: Path, log: str, *, inherits: bool) -> None:
    """Input is empty; both outputs go where log says, and what was opened is closed again."""
    name = str(tmp_path / "log") if log == "file" else log
    before = open_fds()
    with open_stdio(replace(SERVICE, log=name)) as (input_fd, output_fd, error_fd):
        assert os.read(input_fd, 1) == b""
        assert ((output_fd, error_fd) == (1, 2)) is inherits
        if not inherits:
            os.write(output_fd, b"hello")
            assert output_fd == error_fd
            assert not os.get_inheritable(output_fd)
    assert open_fds() == before
    if log == "file":
        assert (tmp_path / "log").read_text() == "hello"
        assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_log_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    """The text has the service, the file and why."""
    service = replace(SERVICE, log=str(tmp_path / "missing" / "log"))
    with (
        pytest.raises(ServiceError, match=r"service web: cannot open log .*: No such file"),
        open_stdio(service),
    ):
        pass
