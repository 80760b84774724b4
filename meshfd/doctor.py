"""`meshfd doctor`: what this kernel and user allow, and what is lost without it.

Each row comes from a probe (`meshfd.probes`), never from a version number. The main job can work
when every row that is ``needed`` is present; the last of these is the job itself, done once.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from meshfd import probes
from meshfd.agent_process import agent_path
from meshfd.cgroup_controllers import why_missing, why_no_cgroup
from meshfd.cgroup_limits import CONTROLLERS
from meshfd.system_calls import known_architecture
from meshfd.table import format_table

YAMA: Final = Path("/proc/sys/kernel/yama/ptrace_scope")
SELF_TEST_S: Final = 20.0
# Nobody serves this address, and it cannot leave the machine.
SELF_TEST_ADDRESS: Final = "127.66.0.1"
_CLIENT: Final = f"import socket; socket.create_connection(('{SELF_TEST_ADDRESS}', 9), 5)"

# What each feature is called in probes' answers; its title, whether the main job needs it, and what
# is lost without it.
_SECCOMP: Final = (
    ("notify", "seccomp user notification", True, "nothing works: calls cannot be intercepted"),
    ("addfd", "ADDFD", True, "sockets cannot be handed over"),
    ("send", "ADDFD with SEND", True, "sockets cannot be made for programs"),
    (
        "killable",
        "WAIT_KILLABLE_RECV",
        False,
        "a program that gets many signals sees calls interrupted that never were before",
    ),
    ("sync", "SYNC_WAKE_UP", False, "each intercepted call costs a few microseconds more"),
    (
        "privileged",
        "filter without no_new_privs",
        False,
        "setuid programs run without their rights under meshfd (root avoids this)",
    ),
)
_TARGETS: Final = (
    ("pidfd", "pidfd_open", True, "nothing works: programs cannot be named safely"),
    ("getfd", "pidfd_getfd", True, "sockets of programs cannot be connected"),
    ("kcmp", "kcmp", False, "sockets are taken up anew at each call, which costs more"),
    ("memory", "process_vm_readv", True, "addresses that programs connect to cannot be read"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One feature. ``detail`` says why it is not present; ``lost`` what that costs."""

    name: str
    present: bool
    needed: bool
    detail: str
    lost: str


def examine() -> list[Finding]:
    """Probe everything; takes a few tenths of a second and forks children.

    Raises:
        OSError: no process could be made.

    """
    findings: list[Finding] = []

    def note(name: str, reason: str | None, *, needed: bool, lost: str) -> None:
        findings.append(Finding(name, reason is None, needed, reason or "", lost))

    note("agent", _probe_agent(), needed=True, lost="nothing works")
    if known_architecture():
        for rows, answer in (
            (_SECCOMP, probes.probe_seccomp()),
            (_TARGETS, probes.probe_targets()),
        ):
            for key, name, needed, lost in rows:
                note(name, answer[key], needed=needed, lost=lost)
        lost = "a call of a thread is followed through its whole process"
        note("pidfd of a thread", probes.probe_threads(), needed=False, lost=lost)
    lost = "route tables cannot be handed over"
    note("sealed memfd", probes.probe_sealed_memory(), needed=True, lost=lost)
    note("SO_COOKIE", probes.probe_cookie(), needed=True, lost="sockets cannot be told apart")
    lost = "programs that are not children of the agent may be closed to it"
    note("ptrace scope", _probe_yama(), needed=False, lost=lost)
    lost = "no IPv6 destinations, endpoints and listening sockets"
    note("IPv6", probes.probe_ipv6(), needed=False, lost=lost)
    lost = "no listening sockets below 1024"
    note("low ports", probes.probe_low_port(), needed=False, lost=lost)
    lost = "services run as the user who runs meshfd: no user and group"
    note("change of user", probes.probe_identity(), needed=False, lost=lost)
    lost = "services live where meshfd does: no netns and no transition; it takes CAP_SYS_ADMIN"
    note("network namespaces", probes.probe_netns(), needed=False, lost=lost)
    lost = "no transition, and no netns of upstreams and listening sockets"
    note("SO_NETNS_COOKIE", probes.probe_netns_cookie(), needed=False, lost=lost)
    lost = "no cgroup of a service's own"
    note("cgroup version 2", why_no_cgroup(), needed=False, lost=lost)
    for controller in CONTROLLERS:
        lost = f'no limits "{controller}.*" in a service\'s cgroup_limits'
        note(f"cgroup {controller}", why_missing(controller), needed=False, lost=lost)
    if all(one.present for one in findings if one.needed):
        lost = "the main job does not work"
        note("a redirected connection", _probe_everything(), needed=True, lost=lost)
    return findings


def format_findings(findings: list[Finding]) -> str:
    """A table for people, and what is lost below it."""
    rows = [["FEATURE", "PRESENT", "NEEDED"]]
    rows += [
        [one.name, "yes" if one.present else "no", "yes" if one.needed else ""] for one in findings
    ]
    missing = [f"no {one.name} ({one.detail}): {one.lost}" for one in findings if not one.present]
    works = all(one.present for one in findings if one.needed)
    verdict = "meshfd can work here" if works else "meshfd cannot work here"
    return "\n".join([format_table(rows), "", *missing, verdict])


def report_findings(findings: list[Finding]) -> dict[str, Any]:
    """The same for scripts: ``works``, and one record per feature."""
    return {
        "works": all(one.present for one in findings if one.needed),
        "features": [asdict(one) for one in findings],
    }


def _probe_agent() -> str | None:
    path = agent_path()
    if not Path(path).exists():
        return f"{path} is missing: reinstall meshfd"
    return None if os.access(path, os.X_OK) else f"{path} is not executable: reinstall meshfd"


def _probe_yama() -> str | None:
    try:
        scope = int(YAMA.read_text("ascii"))
    except (OSError, ValueError):
        return None  # no Yama, no restriction
    return None if scope <= 1 else f"{YAMA} is {scope}"


def _probe_everything() -> str | None:
    """Have a program connect to an address that nobody serves, and be redirected to us."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        port = server.getsockname()[1]
        route = f"{SELF_TEST_ADDRESS}:9=127.0.0.1:{port}"
        command = [sys.executable, "-m", "meshfd", "exec", "--route", route, "--", sys.executable]
        try:
            done = subprocess.run(
                [*command, "-c", _CLIENT],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SELF_TEST_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"the program did not end in {SELF_TEST_S:.0f} s"
        try:
            server.accept()[0].close()
        except BlockingIOError:
            lines = done.stderr.strip().splitlines()
            return lines[-1] if lines else f"the program ended with status {done.returncode}"
    return None
