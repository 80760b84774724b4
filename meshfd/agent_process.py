"""Start `meshfd-agent`, and the requests that its start is made of.

Both users of an agent, `meshfd.foreground` (synchronous) and `meshfd.agent` (trio), start it here.

The agent is a child of ours with one end of a socket pair as its control channel. With ``inherit``
it gets all our inheritable fds, which become those of the program that it spawns; else nothing but
standard error, for a sanitizer's or the dynamic linker's last words, and no signal is ignored: what
whoever started us in the background had ignored is not for services.

``MESHFD_AGENT`` in the environment names another executable, for tests with an instrumented one.
"""

from __future__ import annotations

import errno
import os
import signal

from meshfd.channel import open_channel
from meshfd.engine import LISTEN_MAX, WIRE_VERSION, Done, version_refused
from meshfd.errors import ListenError, NotSupportedError, SpawnError

TYPE_CHECKING = False  # see meshfd.records
if TYPE_CHECKING:
    from typing import Final

    from meshfd.model import ListeningSocket

AGENT_VARIABLE: Final = "MESHFD_AGENT"

_SANITIZER_VARIABLES: Final = {"ASAN_OPTIONS", "LSAN_OPTIONS", "UBSAN_OPTIONS"}
# An agent holds about a dozen by itself, and needs a few more for each call.
LEAST_FDS: Final = 32
# Python ignores these two for itself; a program expects the default (signal(7)).
_PYTHONS_OWN: Final = {signal.SIGPIPE, signal.SIGXFSZ}
_NEVER_IGNORED: Final = {signal.SIGKILL, signal.SIGSTOP}
# For standard input and output, opened by the agent's process itself: it takes no fd of ours.
_NULL_FILES: Final = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1)]
_BUSY: Final = (
    "another seccomp supervisor already notifies on this process (meshfd inside meshfd, or a "
    "container runtime with its own): the kernel allows one; start meshfd outside of it"
)


def agent_path() -> str:
    """Where the agent's executable is."""
    here = os.path.dirname(__file__)  # noqa: PTH120 -- `meshfd exec` has no time for pathlib
    return os.environ.get(AGENT_VARIABLE) or f"{here}/_libexec/meshfd-agent"


def start_agent(*, inherit: bool) -> tuple[int, int]:
    """Start an agent; returns its pid and our end of the control channel, an fd (blocking).

    Raises:
        NotSupportedError: the executable is missing or cannot be run, or there are too few fds.

    """
    n_fds = os.sysconf("SC_OPEN_MAX")  # RLIMIT_NOFILE; -1: no limit
    if 0 <= n_fds < LEAST_FDS:
        raise NotSupportedError(
            f"at most {n_fds} files may be open here and meshfd needs {LEAST_FDS}: "
            "raise the limit (ulimit -n)"
        )
    try:
        ours_fd, theirs_fd = open_channel()
    except OSError as error:
        raise NotSupportedError(f"an agent cannot be started: {error.strerror}") from error
    path = agent_path()
    environment = {
        name: value for name, value in os.environ.items() if name in _SANITIZER_VARIABLES
    }
    os.set_inheritable(theirs_fd, True)
    try:
        pid = os.posix_spawn(
            path,
            ["meshfd-agent", "--inherit" if inherit else "--control", str(theirs_fd)],
            environment,
            file_actions=[] if inherit else _NULL_FILES,
            setsigdef=_PYTHONS_OWN if inherit else signal.valid_signals() - _NEVER_IGNORED,
        )
    except OSError as error:
        os.close(ours_fd)
        raise NotSupportedError(
            f"the agent {path} cannot be run: {error.strerror}; reinstall meshfd"
        ) from error
    finally:
        os.close(theirs_fd)
    return pid, ours_fd


def check_done(done: Done) -> None:
    """Raise what any request may fail with: a version that does not fit.

    Raises:
        NotSupportedError: the agent is of another version.

    """
    if version_refused(done):
        raise NotSupportedError(
            f"the agent speaks protocol version {done.value}, this meshfd {WIRE_VERSION}: "
            "reinstall meshfd, both belong together"
        )


def check_listen(done: Done, listening: ListeningSocket) -> int:
    """The index of the socket that was opened.

    Raises:
        ListenError: it was not.

    """
    check_done(done)
    what = f"cannot listen on {listening.address}"
    if listening.netns is not None:
        from meshfd.netns import title_of  # noqa: PLC0415 -- hardly ever needed

        what += f" in {title_of(listening.netns)}"
    if done.errno == errno.ENOSPC:
        raise ListenError(f"{what}: {LISTEN_MAX} sockets are the most", errno=done.errno)
    if done.errno:
        raise ListenError(f"{what}: {os.strerror(done.errno)}", errno=done.errno)
    return done.value


def check_spawn(done: Done, name: str) -> int:
    """The pid of the program that was spawned.

    Raises:
        NotSupportedError: the kernel does not let us install the filter.
        SpawnError: it could not be started; ``errno`` and ``stage`` tell situations apart.

    """
    check_done(done)
    if done.errno == 0:
        return done.value
    reason = os.strerror(done.errno)
    if done.stage == "filter":
        busy = _BUSY if done.errno == errno.EBUSY else reason
        raise NotSupportedError(f"cannot install the seccomp filter: {busy}")
    if done.stage == "clone" and done.errno == errno.ENOSPC:
        reason = "too many programs of this agent are running already"
    texts = {
        "limits": "cannot take on its limits",
        "credentials": "cannot take on its user and group",
        "chdir": "cannot enter its working directory",
        "exec": "cannot be run",
    }
    text = texts.get(done.stage, f"cannot be started ({done.stage})")
    raise SpawnError(f"{name}: {text}: {reason}", errno=done.errno, stage=done.stage)
