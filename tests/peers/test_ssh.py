"""ssh, scp, sftp and ssh-agent, through a route to an sshd with keys of its own.

sshd confines the process that speaks to a stranger by a filter of its own. As root it wants a
directory in /run, and gets a /run of its own. Whose shell is nologin can copy and forward only.
"""

from __future__ import annotations

import os
import pwd
import random
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.request import ProxyHandler, build_opener

import pytest

from tests.support.clients import Clients
from tests.support.command import Way
from tests.support.need import require_tool
from tests.support.servers import HttpServer, free_port, is_listening, port_of
from tests.support.services import HOST, Services
from tests.support.waiting import DEADLINE_S, wait_until

BEHIND: Final = "127.66.0.2"  # what is forwarded to; sshd's own route leads from there
BEHIND_PORT: Final = 80
HOST_ALIAS: Final = "meshfd-test"
N_BYTES: Final = 3_000_000  # many times what socket buffers hold
REMOTE_STATUS: Final = 7
REMOTE: Final = f'wc -c; echo "$SSH_CONNECTION" | cut -d " " -f 3,4; exit {REMOTE_STATUS}'
REQUEST: Final = "GET / HTTP/1.0\r\n\r\n"

# ssh-agent would notice the end of the command some seconds later.
WITH_KEY: Final = 'ssh-add -q "$0" && "$@"; status=$?; ssh-agent -k > /dev/null; exit $status'
OWN_RUN: Final = 'mount -t tmpfs run /run && mkdir -m 755 /run/sshd && exec "$@"'

SERVER: Final = """\
ListenAddress {host}:{port}
HostKey {directory}/host
AuthorizedKeysFile {directory}/user.pub
Subsystem sftp {sftp}
PidFile none
LogLevel VERBOSE
UsePAM {pam}
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
PrintLastLog no
"""

CLIENT: Final = """\
User {user}
IdentityFile {directory}/user
IdentityAgent none
HostKeyAlias {alias}
UserKnownHostsFile {directory}/known_hosts
GlobalKnownHostsFile none
StrictHostKeyChecking yes
BatchMode yes
LogLevel ERROR
"""


@dataclass(frozen=True, slots=True)
class Sshd:
    """An sshd that runs; its clients' configuration is the file "client"."""

    directory: Path
    port: int

    def ssh(self, way: Way, *words: str) -> list[str]:
        """Return a command of ssh, without an action."""
        client = str(self.directory / "client")
        return [require_tool("ssh"), "-F", client, "-p", str(way.port), *words, way.host]

    def copier(self, name: str, way: Way, *words: str) -> list[str]:
        """Return a command of scp or sftp."""
        client = str(self.directory / "client")
        return [require_tool(name), "-q", "-F", client, "-P", str(way.port), *words]


def make_key(where: Path) -> None:
    """Make a key and its public half."""
    command = [
        require_tool("ssh-keygen"),
        "-q",
        "-t",
        "ed25519",
        "-N",
        "",
        "-C",
        "",
        "-f",
        str(where),
    ]
    subprocess.run(command, check=True)


def is_locked(user: str) -> bool:
    """Whether no password opens the account: sshd lets nobody in then, but where PAM decides."""
    command = [require_tool("getent"), "shadow", user]
    entry = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return entry.partition(":")[2].startswith("!")


@pytest.fixture(scope="module")
def behind() -> Iterator[HttpServer]:
    """Return the server that sshd alone knows the way to."""
    with HttpServer() as server:
        yield server


@pytest.fixture(scope="module")
def sshd(services: Services, behind: HttpServer) -> Iterator[Sshd]:
    """Return sshd under meshfd, with a route from `BEHIND` to the HTTP server."""
    directory = services.directory
    running = Sshd(directory, free_port())
    is_root = os.geteuid() == 0
    user = pwd.getpwuid(os.geteuid()).pw_name
    make_key(directory / "host")
    make_key(directory / "user")
    public = (directory / "host.pub").read_text()
    (directory / "known_hosts").write_text(f"{HOST_ALIAS} {public}")
    (directory / "server").write_text(
        SERVER.format(
            host=HOST,
            port=running.port,
            directory=directory,
            pam="yes" if is_locked(user) else "no",
            sftp="/usr/lib/openssh/sftp-server" if is_root else "internal-sftp",
        )
    )
    client = CLIENT.format(user=user, directory=directory, alias=HOST_ALIAS)
    (directory / "client").write_text(client)
    command = [require_tool("sshd"), "-D", "-e", "-f", str(directory / "server")]
    if is_root:
        command = [require_tool("unshare"), "--mount", "sh", "-c", OWN_RUN, "sh", *command]
    target = f"{HOST}:{port_of(behind.listening)}"
    routes = f'routes = {{ "{BEHIND}:{BEHIND_PORT}" = "{target}" }}'
    with services.serving(command, running.port, toml=routes):
        yield running


def check_log(services: Services, sshd: Sshd, n_connections: int) -> None:
    """Sshd has seen so many connections to its real address, and has let all of them in."""
    lines = (f"on {HOST} port {sshd.port} rdomain", "Accepted publickey for")

    def seen() -> bool:
        return [services.log().count(line) for line in lines] == [n_connections, n_connections]

    wait_until(seen, "sshd's view of all connections")


def test_command(sshd: Sshd, clients: Clients, services: Services) -> None:
    """A remote command gets its input, and its output and exit status come back."""
    if Path(pwd.getpwuid(os.geteuid()).pw_shell).name in {"nologin", "false"}:
        pytest.skip("the shell of whoever runs the tests runs nothing")
    text = "x" * N_BYTES
    done = clients.compare(lambda way: [*sshd.ssh(way), REMOTE], sshd.port, text=text)
    assert done.code == REMOTE_STATUS, done.err
    assert done.lines == [str(N_BYTES), f"{HOST} {sshd.port}"]
    check_log(services, sshd, 2)


def test_copies(sshd: Sshd, clients: Clients, services: Services, tmp_path: Path) -> None:
    """Scp brings a file there and sftp fetches it back, whole; ConnectTimeout is set for one."""
    contents = random.Random(N_BYTES).randbytes(N_BYTES)
    here, there, back = (tmp_path / name for name in ("here", "there", "back"))
    here.write_bytes(contents)

    def scp(way: Way) -> list[str]:
        return sshd.copier("scp", way, "-oConnectTimeout=20", str(here), f"{way.host}:{there}")

    def sftp(way: Way) -> list[str]:
        return sshd.copier("sftp", way, "-b", "-", way.host)

    copied = clients.compare(scp, sshd.port, seen=lambda done: done)
    assert copied.code == 0, copied.err
    assert there.read_bytes() == contents
    done = clients.routed(sftp, sshd.port, text=f"get {there} {back}\nrm {there}\n")
    assert done.code == 0, done.err
    assert back.read_bytes() == contents
    assert not there.exists()
    check_log(services, sshd, 3)


def test_forwarding(sshd: Sshd, clients: Clients, services: Services) -> None:
    """A forwarded port leads to an address behind sshd, to which sshd's own route leads it."""
    port = free_port()
    forward = f"{HOST}:{port}:{BEHIND}:{BEHIND_PORT}"
    client = clients.start_routed(
        lambda way: sshd.ssh(way, "-N", "-oExitOnForwardFailure=yes", "-L", forward), sshd.port
    )

    def is_open() -> bool:
        if client.popen.poll() is not None:
            client.give_up("ssh has ended")
        return is_listening(port)

    wait_until(is_open, "the forwarded port")
    url = f"http://{HOST}:{port}/forwarded"
    with build_opener(ProxyHandler({})).open(url, timeout=DEADLINE_S) as answer:
        assert answer.read() == b"served /forwarded\n"

    def has_ended() -> bool:
        client.signal(signal.SIGTERM)  # ssh misses one that comes just before it sleeps in poll(2)
        return client.popen.poll() is not None

    wait_until(has_ended, "the end of ssh")
    client.finish()
    check_log(services, sshd, 1)


def test_agent(sshd: Sshd, clients: Clients, services: Services) -> None:
    """A key of an ssh-agent, which lets nobody look into it, opens the way to what is behind."""

    def client(way: Way) -> list[str]:
        words = ["-oIdentityFile=none", "-oIdentityAgent=SSH_AUTH_SOCK"]
        ssh = sshd.ssh(way, *words, "-W", f"{BEHIND}:{BEHIND_PORT}")
        key = str(sshd.directory / "user")
        return [require_tool("ssh-agent"), "sh", "-c", WITH_KEY, key, *ssh]

    done = clients.compare(
        client, sshd.port, seen=lambda done: (done.code, done.lines[-1:]), text=REQUEST
    )
    assert (done.code, done.lines[-1:]) == (0, ["served /"]), done.err
    check_log(services, sshd, 2)
