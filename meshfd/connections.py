"""The sockets that services have open now, in whichever network namespace they are.

Several services may have sockets in one namespace (`transition`, an upstream's or a listening
socket's ``netns``): there, this tells whose each is.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from meshfd.errors import ControlError, ServiceError
from meshfd.helper import ask_helper
from meshfd.netns import NAMED, NEW, OWN_PATH, identity_of, open_netns
from meshfd.netns_plan import netns_of
from meshfd.socket_table import Answer, Owner, Place, Question

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from meshfd.model import Service
    from meshfd.namespaces import Namespaces
    from meshfd.service import ManagedService

OURS: Final = "-"
"""The title of the namespace that meshfd itself is in."""


async def report_connections(
    services: Iterable[ManagedService], namespaces: Namespaces
) -> dict[str, Any]:
    """What `meshfd status --connections --json` says: ``connections``, and ``left_out``.

    Raises:
        ControlError: it cannot be found out.

    """
    places = {identity_of(OWN_PATH): Place(OURS, None)}
    owners = []
    with contextlib.ExitStack() as stack:
        for managed in services:
            if managed.runner is None:
                continue
            agent_pid = managed.runner.agent_pid
            owners.append(Owner(managed.name, agent_pid))
            for title, fd in _open_places(managed.service, agent_pid, namespaces):
                if identity_of(fd) in places:
                    os.close(fd)
                    continue
                stack.callback(os.close, fd)
                places[identity_of(fd)] = Place(title, fd)
        question = Question(tuple(places.values()), tuple(owners))
        fds = [one.fd for one in question.places if one.fd is not None]
        answer = await ask_helper("meshfd.socket_scan", msgspec.json.encode(question), fds)
    if answer.exit_status != 0:
        raise ControlError(f"the sockets are not found: status {answer.exit_status} of the search")
    found = msgspec.json.decode(answer.data, type=Answer)
    if found.error:
        raise ControlError(found.error)
    rows: list[dict[str, Any]] = msgspec.to_builtins(found.rows)
    return {"connections": rows, "left_out": found.left_out}


def _open_places(
    service: Service, agent_pid: int, namespaces: Namespaces
) -> Iterator[tuple[str, int]]:
    """The namespaces that a service can have sockets in, by title, perhaps more than once.

    A name may be gone, or mean another by now: so what the agent is in, and what it holds, comes
    after what has a name. The fds are the caller's.
    """
    for name in netns_of(service):
        if name == NEW:
            continue
        with contextlib.suppress(ServiceError):
            yield name.removeprefix(f"{NAMED}/"), namespaces.open(name)
    if service.netns == NEW:
        with contextlib.suppress(ServiceError):
            yield f"{service.name} (new)", open_netns(f"/proc/{agent_pid}/ns/net")
    for file in _files_of(agent_pid):
        with contextlib.suppress(ServiceError, OSError):
            yield f"net:[{file.stat().st_ino}]", open_netns(str(file))


def _files_of(agent_pid: int) -> Iterator[Path]:
    """The files of the namespaces that an agent is in, and holds."""
    process = Path("/proc", str(agent_pid))
    yield process / "ns/net"
    device, _ = identity_of(OWN_PATH)  # that of every namespace (nsfs), whatever a path says
    with contextlib.suppress(OSError):  # it has ended
        for file in process.joinpath("fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                if file.stat().st_dev == device:
                    yield file
