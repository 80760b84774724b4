"""The runtime directory, and who a service runs as."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from meshfd.errors import ControlError, ServiceError
from meshfd.identity import resolve_identity
from meshfd.runtime_dir import claim_runtime_directory, control_path, runtime_directory


@pytest.mark.parametrize(
    ("environment", "uid", "expected"),
    [
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, 7, "/run/user/7/meshfd"),
        ({"XDG_RUNTIME_DIR": "/run/user/0"}, 0, "/run/user/0/meshfd"),
        ({}, 0, "/run/meshfd"),
        ({"XDG_RUNTIME_DIR": ""}, 7, "/tmp/meshfd-7"),
    ],
)
def test_where_it_is(environment: dict[str, str], uid: int, expected: str) -> None:
    """XDG_RUNTIME_DIR is used where it is set; root has /run, others a directory in /tmp."""
    assert runtime_directory(environment, uid) == Path(expected)


def test_a_service_is_told_where() -> None:
    """MESHFD_CONTROL names the socket itself and wins."""
    environment = {"XDG_RUNTIME_DIR": "/run/user/7", "MESHFD_CONTROL": "/elsewhere/socket"}
    assert control_path(environment, 7) == Path("/elsewhere/socket")


def test_it_is_private_and_left_clean(tmp_path: Path) -> None:
    """The directory is made with mode 0700, and no socket stays in it."""
    directory = tmp_path / "meshfd"
    with claim_runtime_directory(directory) as control:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(os.fspath(control))
    assert not control.exists()


def test_an_open_directory_is_closed(tmp_path: Path) -> None:
    """A directory of ours that others may enter is made private."""
    tmp_path.chmod(0o755)
    with claim_runtime_directory(tmp_path):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_leftover_socket_is_replaced(tmp_path: Path) -> None:
    """The socket file of a meshfd that was killed is in nobody's way."""
    with socket.socket(socket.AF_UNIX) as leftover:
        leftover.bind(os.fspath(tmp_path / "control.sock"))
    with claim_runtime_directory(tmp_path) as control:
        assert not control.exists()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_there_is_only_one(tmp_path: Path) -> None:
    """A second meshfd is told of the first, by its pid, and takes nothing from it."""
    with claim_runtime_directory(tmp_path) as control:
        control.touch()
        with (
            pytest.raises(ControlError, match=rf"already runs \(pid {os.getpid()}\)"),
            claim_runtime_directory(tmp_path),
        ):
            pass
        assert control.exists()


def test_what_belongs_to_others_is_not_used(tmp_path: Path) -> None:
    """A link in the directory's place, as anybody can put one into /tmp, is refused."""
    (tmp_path / "real").mkdir()
    link = tmp_path / "meshfd"
    link.symlink_to(tmp_path / "real")
    with (
        pytest.raises(ControlError, match="is not a directory of yours"),
        claim_runtime_directory(link),
    ):
        pass


def test_no_place_is_one_line(tmp_path: Path) -> None:
    """A parent that does not exist is an error that says what to set."""
    with (
        pytest.raises(ControlError, match="set XDG_RUNTIME_DIR"),
        claim_runtime_directory(tmp_path / "missing" / "meshfd"),
    ):
        pass


def test_a_path_too_long_for_a_socket_is_one_line(tmp_path: Path) -> None:
    """A directory whose socket could not be bound is refused before anything is made."""
    with (
        pytest.raises(ControlError, match="too long for a socket"),
        claim_runtime_directory(tmp_path / ("x" * 108)),
    ):
        pass


def test_nobody_asked_for_is_nobody_changed() -> None:
    """Without user and group nothing is changed."""
    identity = resolve_identity(None, None)
    assert (identity.uid, identity.gid, identity.groups, identity.environment) == (
        None,
        None,
        (),
        (),
    )


@pytest.mark.parametrize(("user", "group"), [("no such user", None), (None, "no such group")])
def test_unknown_names_are_named(user: str | None, group: str | None) -> None:
    """A user or group that does not exist is named."""
    with pytest.raises(ServiceError, match=r"there is no (user|group) 'no such"):
        resolve_identity(user, group)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.parametrize("user", ["nobody", "65534"])
def test_root_becomes_a_user_with_all_that_belongs_to_it(user: str) -> None:
    """A user, by name or number, brings its ids, groups and the environment of a login."""
    identity = resolve_identity(user, None)
    environment = dict(identity.environment)
    assert identity.uid == 65534
    assert identity.gid in identity.groups
    assert environment["USER"] == environment["LOGNAME"] == "nobody"
    assert set(environment) == {"HOME", "LOGNAME", "SHELL", "USER"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its group")
def test_a_group_alone_keeps_the_user() -> None:
    """With only a group the uid stays, and no group of meshfd's own is kept."""
    identity = resolve_identity(None, "nogroup")
    assert (identity.uid, identity.groups) == (None, (identity.gid,))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may become everybody")
def test_an_ordinary_user_cannot_become_another() -> None:
    """Only root may run services as others."""
    with pytest.raises(ServiceError, match="only root can run a service as user root"):
        resolve_identity("root", None)
