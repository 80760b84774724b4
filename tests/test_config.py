"""From TOML files to a configuration: every key, and every fault with its file, key and line."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import replace
from datetime import date
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshfd.config import load_configuration
from meshfd.config_keys import LISTEN_KEYS, SERVICE_KEYS, STOP_SIGNALS
from meshfd.errors import ConfigError, Fault
from meshfd.model import (
    Backoff,
    Balance,
    Configuration,
    Deny,
    Destination,
    Endpoint,
    IoUring,
    ListeningSocket,
    OnExit,
    Pass,
    Ready,
    Redirect,
    Restart,
    Route,
    Service,
    SocketAddress,
    Track,
    Transition,
    UnixAddress,
    Upstream,
)
from meshfd.routes import format_destination, parse_destination, parse_target
from meshfd.toml_lines import locate
from tests.support.configured import Faults, Load


def address(ip: str, port: int) -> SocketAddress:
    """A socket address, shortly."""
    return SocketAddress(ip_address(ip), port)


FULL = """\
[service.web]
command = ["bin/web", "--port", "80"]
working_dir = "work"
user = "www-data"
group = "www"
cgroup = "mesh.slice/web"
cgroup_limits = { "pids.max" = 9, "memory.max" = "1MiB", "io.max" = ["8:0 rbps=1", "8:16 wbps=2"] }
netns = "blue"
transition = { ipv4_netns = "green" }
rlimits = { nofile = [1024, 4096], core = "unlimited", memlock = "64KiB" }
environment = { B = "2", A = "1" }
env_file = ["first.env", "second.env"]
depends_on = ["db", "db"]
autostart = false
restart = "on-failure"
backoff = { first = "200ms", last = 5, reset = "1m" }
stop_signal = "quit"
stop_timeout = "1m30s"
ready = "listen"
on_exit = "stop-all"
strict = true
track = "create"
transparent = true
io_uring = "allow"
log = "web.log"

[[service.web.listen]]
name = "http"
address = "[::]:80"
backlog = 128
v6only = true
netns = "host"
handover = "inject"

[[service.web.listen]]
address = ":81"

[service.web.routes]
"10.0.0.1:80" = "pass"
"10.0.0.0/8" = "deny=ENETUNREACH"
":5432" = "upstream:db"
"udp:10.0.0.53:53" = "127.0.0.1:53"
"10.1.0.0/16:80" = "127.0.0.1:1,127.0.0.2:2"
":6543" = "upstream:away"

[service.db]
command = ["db"]

[upstream.db]
addresses = ["10.9.0.1:5432", "[::ffff:10.9.0.2]:5432"]
endpoints = ["127.0.0.1:5432", { address = "[::1]:5432", weight = 3 },
    "unix:/run/db.sock", { address = "unix:@db, the second", weight = 2 }]
balance = "random"

[upstream.away]
endpoints = ["10.66.0.1:6543"]
netns = "/proc/1/ns/net"
"""


def test_every_key(load: Load, tmp_path: Path) -> None:
    """Each key reaches its field; upstreams' addresses become routes of every service."""
    (tmp_path / "first.env").write_text("A=0\nC=first\nD=first\n")
    (tmp_path / "second.env").write_text("# later files win\nC='second'\n")
    db = Upstream(
        "db",
        (
            Endpoint(address("127.0.0.1", 5432)),
            Endpoint(address("::1", 5432), weight=3),
            Endpoint(UnixAddress("/run/db.sock")),
            Endpoint(UnixAddress("@db, the second"), weight=2),
        ),
        (parse_destination("10.9.0.1:5432"), parse_destination("10.9.0.2:5432")),
        Balance.RANDOM,
    )
    away = Upstream("away", (Endpoint(address("10.66.0.1", 6543)),), netns="/proc/1/ns/net")
    from_db = tuple(Route(destination, Redirect(db)) for destination in db.addresses)
    web = Service(
        name="web",
        command=(str(tmp_path / "bin/web"), "--port", "80"),
        working_dir=tmp_path / "work",
        user="www-data",
        group="www",
        cgroup="mesh.slice/web",
        cgroup_limits=(
            ("io.max", ("8:0 rbps=1", "8:16 wbps=2")),
            ("memory.max", ("1048576",)),
            ("pids.max", ("9",)),
        ),
        netns="/run/netns/blue",
        transition=Transition("/run/netns/green"),
        rlimits=((4, 2**64 - 1, 2**64 - 1), (7, 1024, 4096), (8, 65536, 65536)),
        environment=(("A", "1"), ("B", "2"), ("C", "second"), ("D", "first")),
        depends_on=("db",),
        autostart=False,
        restart=Restart.ON_FAILURE,
        backoff=Backoff(first_s=0.2, last_s=5, reset_s=60),
        stop_signal=signal.SIGQUIT,
        stop_timeout_s=90,
        ready=Ready.LISTEN,
        on_exit=OnExit.STOP_ALL,
        strict=True,
        track=Track.CREATE,
        transparent=True,
        io_uring=IoUring.ALLOW,
        log=str(tmp_path / "web.log"),
        listen=(
            ListeningSocket(
                "http",
                address("::", 80),
                backlog=128,
                v6only=True,
                netns="/proc/self/ns/net",
            ),
            ListeningSocket("[::]:81", address("::", 81)),
        ),
        routes=(
            Route(parse_destination("10.0.0.1:80"), Pass()),
            Route(parse_destination("10.0.0.0/8"), Deny(errno.ENETUNREACH)),
            Route(parse_destination(":5432"), Redirect(db)),
            Route(parse_destination("udp:10.0.0.53:53"), parse_target("127.0.0.1:53")),
            Route(parse_destination("10.1.0.0/16:80"), parse_target("127.0.0.1:1,127.0.0.2:2")),
            Route(parse_destination(":6543"), Redirect(away)),
            *from_db,
        ),
    )
    assert load(FULL) == Configuration((web, Service("db", ("db",), routes=from_db)), (db, away))


def test_every_key_is_tried() -> None:
    """The text above holds every key that there is."""
    lines = locate(FULL)
    assert {path[2] for path in lines if path[:2] == ("service", "web") and len(path) > 2} == {
        *SERVICE_KEYS,
        "listen",
        "routes",
    }
    assert {path[4] for path in lines if path[2:4] == ("listen", 0) and len(path) > 4} == {
        *LISTEN_KEYS
    }


def test_defaults(load: Load) -> None:
    """What is left out is as the model has it."""
    assert load('[service.a]\ncommand = ["a"]') == Configuration((Service("a", ("a",)),))


def test_one_address_in_several_namespaces(load: Load, faults: Faults) -> None:
    """Each network namespace has its own ports; two names of one are one."""
    text = """
[service.{0}]
command = ["a"]
netns = "{1}"
listen = [{{ address = ":80", netns = "{2}" }}]
"""
    alone = text.replace(', netns = "{2}"', "")
    load(alone.format("a", "new"), alone.format("b", "new"), alone.format("c", "d"))
    load(text.format("a", "b", "c"), text.format("d", "b", "e"), alone.format("f", "b"))
    shared = alone.replace("netns", "transition = {{ ipv4_netns = 'x' }}\nnetns")
    load(shared.format("a", "b"), shared.format("c", "d"))  # of IPv6
    (fault,) = faults(
        *(shared.replace(":80", "0.0.0.0:80").format(name, name) for name in ("a", "b"))
    )
    assert "already listens on 0.0.0.0:80" in fault
    (fault,) = faults(text.format("a", "b", "c"), alone.format("d", "/run/netns/c"))
    assert "b.toml:5: service.d.listen[0].address: service.a.listen[0].address (a.toml:5)" in fault


def test_files_join(load: Load) -> None:
    """Files are one configuration, in the order given, whichever file names what."""
    together = load(
        '[service.a]\ncommand = ["a"]\ndepends_on = ["b"]\nroutes = { ":1" = "upstream:u" }',
        '[service.b]\ncommand = ["b"]\n[upstream.u]\nendpoints = ["127.0.0.1:1"]',
    )
    upstream = Upstream("u", (Endpoint(address("127.0.0.1", 1)),))
    assert [service.name for service in together.services] == ["a", "b"]
    assert together.upstreams == (upstream,)
    assert together.services[0].routes == (Route(Destination(None, 1, 1), Redirect(upstream)),)


def test_reload_compares(load: Load, tmp_path: Path) -> None:
    """Meaning counts, not notation: comments, order of variables and units make no difference."""
    first = load('[service.a]\ncommand = ["a"]\nstop_timeout = 60\nenvironment = {A="1", B="2"}')
    (tmp_path / "e").write_text("A=1\n")
    second = load(
        "# changed\n[service.a]\nstop_timeout = '1m' # the same\n"
        'env_file = "e"\nenvironment.B = "2"\ncommand = ["a"]'
    )
    assert first == second
    assert first != load('[service.a]\ncommand = ["a"]\nenvironment = {A="1", B="3"}')


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are relative to their file's folder; absolute ones, and bare programs, stay."""
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "c.toml").write_text(
        '[service.a]\ncommand = ["./run", "./argument"]\nworking_dir = "../data"\nlog = "/a.log"\n'
        '[service.b]\ncommand = ["/bin/true"]\nlog = "null"\n'
        '[service.c]\ncommand = ["true"]\nlog = "inherit"\nworking_dir = "."\n'
    )
    monkeypatch.chdir(tmp_path)
    a, b, c = load_configuration([Path("etc/c.toml")]).services
    assert a.command == (str(folder / "run"), "./argument")
    assert a.working_dir == folder / "../data"
    assert [service.log for service in (a, b, c)] == ["/a.log", "null", "inherit"]
    assert (b.command, c.command) == (("/bin/true",), ("true",))
    assert c.working_dir == folder


@pytest.mark.parametrize(
    ("text", "backoff"),
    [
        ('"1s"', Backoff(1, 1)),
        ("0.25", Backoff(0.25, 0.25)),
        ("{}", Backoff()),
        ('{ first = "1m" }', Backoff(60, 60)),
        ('{ last = "10ms" }', Backoff(0.01, 0.01)),
        ('{ reset = "0s" }', Backoff(reset_s=0)),
    ],
)
def test_backoff(load: Load, text: str, backoff: Backoff) -> None:
    """A plain delay stays the same; limits that are left out give way to those that are set."""
    (service,) = load(f'[service.a]\ncommand = ["a"]\nbackoff = {text}').services
    assert service.backoff == backoff


@pytest.mark.parametrize("form", ["{}", "SIG{}"])
@pytest.mark.parametrize("name", STOP_SIGNALS)
def test_stop_signals(load: Load, name: str, form: str) -> None:
    """Signals are written with SIG or without."""
    (service,) = load(f'[service.a]\ncommand = ["a"]\nstop_signal = "{form.format(name)}"').services
    assert service.stop_signal.name == f"SIG{name}"


def test_same_port_on_different_addresses(load: Load) -> None:
    """Addresses that do not overlap may be listened on side by side."""
    load(
        '[service.a]\ncommand = ["a"]\nlisten = [{ address = "127.0.0.1:80" },'
        '{ address = "127.0.0.2:80" }, { address = "[::1]:80" }, { address = "0.0.0.0:81" }]'
    )


def test_both_families_by_themselves(load: Load) -> None:
    """An IPv6 socket that is IPv6 only leaves the port to IPv4, whichever comes first."""
    only = '{ address = "[::]:80", v6only = true }'
    load(f'[service.a]\ncommand = ["a"]\nlisten = [{{ address = "0.0.0.0:80" }}, {only}]')
    load(f'[service.a]\ncommand = ["a"]\nlisten = [{only}, {{ address = "127.0.0.1:80" }}]')


# One service each, whose text begins in line 3; what is expected follows "a.toml:".
SERVICE_FAULTS = [
    ('user = ""', "3: service.a.user: expected a user's name, found an empty string"),
    ("group = 0", "3: service.a.group: expected a group's name, found 0"),
    (r'user = "a\u0000"', "3: service.a.user: a NUL character would end this text early; take it"),
    ("working_dir = 1", "3: service.a.working_dir: expected a path, found 1"),
    (r'log = "\u0000"', "3: service.a.log: a NUL character would end this text early"),
    ("log = true", '3: service.a.log: expected "inherit", "null" or a file\'s path, found true'),
    ("strict = 1", "3: service.a.strict: expected true or false, found 1"),
    ('autostart = "no"', '3: service.a.autostart: expected true or false, found "no"'),
    (
        'restart = "on-failur"',
        '3: service.a.restart: expected "no", "on-failure" or "always", found "on-failur"',
    ),
    ('track = "bind"', '3: service.a.track: expected "create" or "connect", found "bind"'),
    ("transparent = 1", "3: service.a.transparent: expected true or false, found 1"),
    ("io_uring = true", '3: service.a.io_uring: expected "refuse" or "allow", found true'),
    ("ready = false", '3: service.a.ready: expected "exec" or "listen", found false'),
    ('on_exit = "stop"', '3: service.a.on_exit: expected "nothing" or "stop-all", found "stop"'),
    (
        'stop_timeout = "soon"',
        '3: service.a.stop_timeout: "soon" is not a duration; write such as "5s"',
    ),
    ("stop_timeout = -1", "3: service.a.stop_timeout: a duration is from 0 to 30 days"),
    (
        "stop_timeout = 2020-01-01",
        (
            '3: service.a.stop_timeout: expected a duration such as "5s", "100ms" or "1m30s", '
            "found a date or time"
        ),
    ),
    ("stop_timeout = 0x" + "f" * 5000, "3: service.a.stop_timeout: a duration is from 0 to 30"),
    ('stop_signal = "TREM"', '3: service.a.stop_signal: "TREM" is not a signal to stop with; did'),
    ('stop_signal = "STOP"', '3: service.a.stop_signal: "STOP" is not a signal to stop with; '),
    ("backoff = [1]", '3: service.a.backoff: expected a duration such as "1s", or { first = '),
    ("backoff = 0", "3: service.a.backoff: a program that fails at once would be restarted in a"),
    ("backoff = {first = 2, last = 1}", "3: service.a.backoff: the first delay is longer than the"),
    (
        "backoff.frist = 2",
        '3: service.a.backoff.frist: this key is not known; did you mean "first"',
    ),
    ("backoff = {first = {}}", "3: service.a.backoff.first: expected a duration such as"),
    (
        'depends_on = "b"',
        '3: service.a.depends_on: expected an array of services\' names, found "b"',
    ),
    ("depends_on = [1]", "3: service.a.depends_on: expected an array of services' names, found 1"),
    (
        'environment = ["A=1"]',
        '3: service.a.environment: expected a table such as { NAME = "value" }, found an array',
    ),
    ("environment.PORT = 80", "3: service.a.environment.PORT: expected a string, found 80"),
    (
        'environment."A=B" = ""',
        '3: service.a.environment."A=B": "A=B" cannot be a variable\'s name: no spaces',
    ),
    (r'environment.A = "\u0000"', '3: service.a.environment.A: the value of "A" holds a NUL'),
    ("env_file = 1", "3: service.a.env_file: expected a path, or an array of paths, found 1"),
    (
        'env_file = "no.env"',
        '3: service.a.env_file: "no.env": the file cannot be read: No such file or directory',
    ),
    ('env_file = "."', '3: service.a.env_file: ".": the file cannot be read: Is a directory'),
    ('env_file = "/dev/zero"', '3: service.a.env_file: "/dev/zero": this is a pipe, socket or dev'),
    (
        "listen = {}",
        "3: service.a.listen: expected [[service.NAME.listen]] tables, at most 64, found",
    ),
    (
        'listen = [":80"]',
        "3: service.a.listen: expected [[service.NAME.listen]] tables, at most 64",
    ),
    ("listen = [" + "{}," * 65 + "]", "3: service.a.listen: expected [[service.NAME.listen]] tabl"),
    (
        "[[service.a.listen]]",
        "3: service.a.listen[0].address: this key is missing; write an address such as",
    ),
    (
        '[[service.a.listen]]\naddress = "80"',
        '4: service.a.listen[0].address: "80": write :80 for this port of any address',
    ),
    (
        '[[service.a.listen]]\naddress = ":80"\nbacklog = 0',
        "5: service.a.listen[0].backlog: expected a whole number from 1 to 2147483647, found 0",
    ),
    (
        '[[service.a.listen]]\naddress = "0.0.0.0:80"\nv6only = true',
        "5: service.a.listen[0].v6only: this is for IPv6 addresses; drop it",
    ),
    (
        'listen = [{ address = "[::]:80", v6only = true },\n{ address = "[::1]:80" }]',
        "4: service.a.listen[1].address: service.a.listen[0].address (a.toml:3) already listens",
    ),
    (
        '[[service.a.listen]]\naddress = ":80"\nhandover = "listen_fds"',
        '5: service.a.listen[0].handover: expected "inject", found "listen_fds"',
    ),
    (
        '[[service.a.listen]]\naddress = ":80"\nnam = "x"',
        '5: service.a.listen[0].nam: this key is not known; did you mean "name"?',
    ),
    (
        '[[service.a.listen]]\naddress = ":80"\nname = "a b"',
        '5: service.a.listen[0].name: "a b" cannot be a name: write 1 to 60 letters',
    ),
    (
        'listen = [{ address = ":80", name = "x" },\n{ address = ":81", name = "x" }]',
        '4: service.a.listen[1].name: "x" is already the name of service.a.listen[0] (a.toml:3); ',
    ),
    (
        'listen = [{ address = "0.0.0.0:80" },\n{ address = "[::ffff:127.0.0.1]:80" }]',
        (
            "4: service.a.listen[1].address: service.a.listen[0].address (a.toml:3) "
            "already listens on 0.0.0.0:80; change the address or port of one of them"
        ),
    ),
    (
        'listen = [{ address = "127.0.0.1:80" },\n{ address = "*:80" }]',
        (
            "4: service.a.listen[1].address: service.a.listen[0].address (a.toml:3) "
            "already listens on 127.0.0.1:80"
        ),
    ),
    (
        "transition = {}",
        "3: service.a.transition.ipv4_netns: this key is missing; write a network namespace",
    ),
    (
        "transition = { ipv4_netns = 'new' }",
        "3: service.a.transition.ipv4_netns: a new one has nothing but its loopback device",
    ),
    (
        'listen = [{ address = ":80", netns = "new" }]',
        "3: service.a.listen[0].netns: a new one has nothing but its loopback device",
    ),
    (
        "rlimits = { nofiles = 10 }",
        '3: service.a.rlimits.nofiles: there is no limit "nofiles"; did you mean "nofile"?',
    ),
    (
        'rlimits = { nofile = "many" }',
        '3: service.a.rlimits.nofile: "many" is no count; write a whole number, or "unlimited"',
    ),
    (
        "rlimits = { nofile = [20, 10] }",
        "3: service.a.rlimits.nofile: the soft limit is above the hard one; swap them",
    ),
    (
        "rlimits = { nofile = [1, 2, 3] }",
        "3: service.a.rlimits.nofile: write one value, or [soft, hard]",
    ),
    (
        'rlimits = { memlock = "64 QiB" }',
        '3: service.a.rlimits.memlock: "64 QiB" is not a size; write such as 4096, "64KiB" or',
    ),
    (
        'cgroup = "a"\ncgroup_limits = { "memory.max" = "lots" }',
        '4: service.a.cgroup_limits."memory.max": "lots" is not a size; write such as 4096, ',
    ),
    (
        'cgroup = "a"\n[service.a.cgroup_limits]\n"pids.max" = 1\n"pids.may" = 1',
        '6: service.a.cgroup_limits."pids.may": a cgroup has no limit "pids.may"; did you mean "p',
    ),
    (
        'cgroup = "a"\n[service.a.cgroup_limits]\nmemory.max = "1GiB"',
        (
            '5: service.a.cgroup_limits.memory: expected a value such as 100, "512MiB" or "max", '
            'with the name quoted: "memory.max" = "512MiB", found a table'
        ),
    ),
    (
        'cgroup_limits = { "pids.max" = 1 }',
        '3: service.a.cgroup_limits: a service without "cgroup" has none of its own to limit; ',
    ),
    ('netns = ".."', '3: service.a.netns: ".." is no name of a network namespace'),
    (
        'cgroup = "mesh/../web"',
        '3: service.a.cgroup: write names with "/" between them: "mesh.slice/shop" below meshfd',
    ),
    (
        'cgroup = "mesh"\n[service.b]\ncommand = ["b"]\ncgroup = "mesh/b"',
        (
            '6: service.b.cgroup: service.a.cgroup (a.toml:3) has "mesh" for itself; '
            "choose a cgroup beside it"
        ),
    ),
    (
        "routes = []",
        '3: service.a.routes: expected a table of "DEST" = "TARGET", found an empty array',
    ),
    (
        "[service.a.routes]\n10.0.0.1 = 'pass'",
        (
            '4: service.a.routes.10: expected a target, such as "10.0.0.1:80" = "127.0.0.1:8080", '
            "with the destination quoted, found a table"
        ),
    ),
    (
        "[service.a.routes]\n'10.0.0.1/8' = 'pass'",
        '4: service.a.routes."10.0.0.1/8": "10.0.0.1/8": the address has bits beyond the prefix; ',
    ),
    (
        "[service.a.routes]\n\n':80' = 'ask'",
        '5: service.a.routes.":80": "ask" needs a program that answers (library only); write',
    ),
    (
        "[service.a.routes]\n':80' = 'upstream:x'",
        '4: service.a.routes.":80": there is no upstream "x"; none is defined, write ADDR:PORT',
    ),
    (
        "[service.a.routes]\n':80' = 'pass'\n'*:80-80' = 'deny'",
        (
            '5: service.a.routes."*:80-80": this destination has a route already, '
            'service.a.routes.":80" (a.toml:4)'
        ),
    ),
    (
        'comand = ["x"]',
        '3: service.a.comand: this key is not known; did you mean "command"?',
    ),
    (
        "[service.a.router]\nx = 1",
        '3: service.a.router: this key is not known; did you mean "routes"',
    ),
]


@pytest.mark.parametrize(("text", "expected"), SERVICE_FAULTS)
def test_service_faults(faults: Faults, text: str, expected: str) -> None:
    """Whatever is wrong with a service is one fault at its key and line."""
    (fault,) = faults(f'[service.a]\ncommand = ["a"]\n{text}\n')
    assert fault.startswith(f"a.toml:{expected}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "",
            "a.toml:1: service.a.command: this key is missing; write an array of strings",
        ),
        (
            'command = "web --port 80"',
            (
                "a.toml:2: service.a.command: expected an array of strings such as "
                '["python3", "-m", "http.server"], found "web --port 80"'
            ),
        ),
        ("command = []", "a.toml:2: service.a.command: expected an array of strings such as"),
        ('command = ["a", 1]', "a.toml:2: service.a.command: expected an array of strings such as"),
        ('command = [""]', "a.toml:2: service.a.command: the program's name is empty; write"),
        ('command = ["a",\n"\\u0000"]', "a.toml:3: service.a.command[1]: a NUL character would"),
    ],
)
def test_command_faults(faults: Faults, text: str, expected: str) -> None:
    """A command is an array with a program in it."""
    (fault,) = faults(f"[service.a]\n{text}\n")
    assert fault.startswith(expected)


ENDPOINT = 'endpoints = ["127.0.0.1:1"]\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1: upstream.u.endpoints: this key is missing; write an array of endpoints such as ["),
        ("endpoints = []", "2: upstream.u.endpoints: expected an array of endpoints such as"),
        (
            "endpoints = '127.0.0.1:1'",
            "2: upstream.u.endpoints: expected an array of endpoints such",
        ),
        (
            "endpoints = [\n1]",
            '3: upstream.u.endpoints[0]: expected an endpoint such as "127.0.0.1:8080" or {',
        ),
        ("endpoints = ['127.0.0.1:0']", '2: upstream.u.endpoints[0]: "127.0.0.1:0": nothing lis'),
        (
            "endpoints = [{}]",
            "2: upstream.u.endpoints[0].address: this key is missing; write an address such as",
        ),
        (
            "endpoints = [{address = '127.0.0.1:1', weight = 1001}]",
            "2: upstream.u.endpoints[0].weight: expected a whole number from 0 to 1000, found 1001",
        ),
        (
            "endpoints = [{address = '127.0.0.1:1', wieght = 1}]",
            '2: upstream.u.endpoints[0].wieght: this key is not known; did you mean "weight"?',
        ),
        (
            "endpoints = [{address = '127.0.0.1:1', weight = 0}]",
            "2: upstream.u.endpoints: every weight is 0, so no endpoint gets connections",
        ),
        (
            "endpoints = ['127.0.0.1:1', '127.0.0.1:1']",
            "2: upstream.u.endpoints: endpoint 127.0.0.1:1 is there twice; write it once",
        ),
        (
            f"{ENDPOINT}netns = 'new'",
            "3: upstream.u.netns: a new one has nothing but its loopback device; name one that is",
        ),
        (
            "endpoints = ['127.0.0.1:1', 'unix:/run/x']\nnetns = 'b'",
            '3: upstream.u.netns: "unix:/run/x" is in no other network namespace; take this out',
        ),
        (
            f"{ENDPOINT}addresses = ['udp::53']\nnetns = 'b'",
            '3: upstream.u.addresses[0]: "udp::53": UDP cannot go through the network namespace of',
        ),
        (
            f"{ENDPOINT}balance = 'least'",
            '3: upstream.u.balance: expected "round-robin" or "random", found "least"',
        ),
        (f"{ENDPOINT}addresses = ':80'", "3: upstream.u.addresses: expected an array of destinati"),
        (
            f"{ENDPOINT}addresses = [80]",
            '3: upstream.u.addresses[0]: expected a destination such as "10.0.0.1:80", found 80',
        ),
        (f"{ENDPOINT}addresses = ['x']", '3: upstream.u.addresses[0]: "x": "x" is not an IPv4'),
        (
            f"{ENDPOINT}addresses = [':80',\n'*:80']",
            (
                "4: upstream.u.addresses[1]: this is already an address of upstream.u.addresses[0] "
                "(a.toml:3); drop one"
            ),
        ),
        (
            "endpoints = ['unix:app.sock']",
            '2: upstream.u.endpoints[0]: "unix:app.sock": write an absolute path, such as',
        ),
        (
            "endpoints = ['unix:/a']\naddresses = [':53',\n'udp::53']",
            (
                '4: upstream.u.addresses[1]: "udp::53": UDP cannot go to a unix socket, "unix:/a"; '
                "write ADDR:PORT"
            ),
        ),
        (f"{ENDPOINT}adresses = []", "3: upstream.u.adresses: this key is not known; did you mean"),
    ],
)
def test_upstream_faults(faults: Faults, text: str, expected: str) -> None:
    """Whatever is wrong with an upstream is one fault at its key and line."""
    (fault,) = faults(f"[upstream.u]\n{text}\n[service.a]\ncommand = ['a']\n")
    assert fault.startswith(f"a.toml:{expected}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a.toml: there is no service; write a [service.NAME]"),
        ("service = 1", "a.toml:1: service: expected [service.NAME] tables, found 1"),
        ("upstream = []", "a.toml:1: upstream: expected [upstream.NAME] tables, found an empty ar"),
        ("[services.a]", 'a.toml:1: services: this key is not known; did you mean "service"?'),
        ("[service]\na = 1", "a.toml:2: service.a: expected a table, found 1"),
        (
            '[service."a b"]\ncommand = ["a"]',
            'a.toml:1: service."a b": "a b" cannot be a name: write 1 to 60 letters, digits, ',
        ),
        ("[service.a\n", "a.toml:1: this is not TOML: "),
        ("\n\na = ", "a.toml:3: this is not TOML: "),
        (
            "[service.a.routes]\n10.0.0.1:80 = 'pass'",
            (
                "a.toml:2: this is not TOML: Expected '=' after a key in a key/value pair "
                "(column 9); "
                'quote keys such as "10.0.0.1:80"'
            ),
        ),
        ("a = " + "[" * 5000, "a.toml: "),
        ("a = " + "1" * 5000, "a.toml: "),
    ],
)
def test_file_faults(faults: Faults, text: str, expected: str) -> None:
    """What is wrong with a file as a whole is one fault, with the line if there is one."""
    (fault,) = faults(text)
    assert fault.startswith(expected)


def test_unusable_files(tmp_path: Path) -> None:
    """A file that is missing, no file, no text, or too large is one fault; the others go on."""
    (tmp_path / "latin.toml").write_bytes(b"# fine\n# caf\xe9\n")
    (tmp_path / "ok.toml").write_text("[service.a]\n")
    os.mkfifo(tmp_path / "fifo")  # nobody will ever write to it
    with (tmp_path / "large.toml").open("wb") as large:
        large.truncate((16 << 20) + 1)
    names = ["fifo", "large.toml", "no.toml", ".", "latin.toml", "ok.toml", "ok.toml"]
    with pytest.raises(ConfigError) as caught:
        load_configuration([Path("/dev/zero"), *(tmp_path / name for name in names)])
    found = [(Path(f.file).name, f.line, f.text.partition(";")[0]) for f in caught.value.faults]
    assert found == [
        ("zero", None, "this is a pipe, socket or device"),
        ("fifo", None, "this is a pipe, socket or device"),
        ("large.toml", None, "the file is larger than 16 MiB"),
        ("no.toml", None, "the file cannot be read: No such file or directory"),
        (tmp_path.name, None, "the file cannot be read: Is a directory"),
        ("latin.toml", None, "the file is not UTF-8 (line 2)"),
        ("ok.toml", None, "this file is given twice"),
        ("ok.toml", 1, "this key is missing"),
    ]


def test_no_files() -> None:
    """Without files there are no services, which is a fault like any other."""
    with pytest.raises(ConfigError, match="there is no service"):
        load_configuration([])


def test_byte_order_mark(tmp_path: Path) -> None:
    """A byte order mark, as some editors write it, is no part of the text."""
    (tmp_path / "a.toml").write_bytes(b'\xef\xbb\xbf[service.a]\r\ncommand = ["a"]\r\n')
    assert load_configuration([tmp_path / "a.toml"]).services == (Service("a", ("a",)),)


def test_all_faults_at_once(faults: Faults) -> None:
    """One run shows every fault of every file; a fault hides no other one."""
    assert [fault.partition(": ")[0] for fault in faults(
        "[service.a]\nrestart = 'yes'\nstop_timeout = 'x'\n[[service.a.listen]]\naddress = 'y'\n"
        "backlog = 0\n[service.a.routes]\n'x' = 'pass'\n':1' = 'drop'\n",
        "[upstream.u]\nendpoints = ['x', 'y', '127.0.0.1:1']\naddresses = ['z']\nq = 1\n",
    )] == [
        # In the order in which files are read: upstreams, then services.
        "b.toml:4", "b.toml:3", "b.toml:2", "b.toml:2",
        "a.toml:1", "a.toml:2", "a.toml:3", "a.toml:5", "a.toml:6", "a.toml:8", "a.toml:9",
    ]  # fmt: skip


def test_names_across_files(faults: Faults) -> None:
    """A name or an address that two files claim is a fault that names both places."""
    assert faults(
        "[service.web]\ncommand = ['a']\nlisten = [{ address = '127.0.0.1:80' }]\n"
        "[upstream.u]\nendpoints = ['127.0.0.1:1']\naddresses = ['10.0.0.1']",
        "[service.db]\ncommand = ['b']\nlisten = [{ address = '[::ffff:127.0.0.1]:80' }]\n"
        "[upstream.v]\nendpoints = ['127.0.0.1:1']\naddresses = ['10.0.0.1/32']\n"
        "[service.web]\n[upstream.u]",
    ) == [
        "b.toml:8: upstream.u: upstream.u is already there (a.toml:4); choose another name",
        (
            "b.toml:6: upstream.v.addresses[0]: this is already an address of "
            "upstream.u.addresses[0] (a.toml:6); drop one"
        ),
        "b.toml:7: service.web: service.web is already there (a.toml:1); choose another name",
        (
            "b.toml:3: service.db.listen[0].address: service.web.listen[0].address (a.toml:3) "
            "already listens on 127.0.0.1:80; change the address or port of one of them"
        ),
    ]


def test_env_file_faults(faults: Faults, tmp_path: Path) -> None:
    """A wrong line in an environment file is a fault of that file, once."""
    (tmp_path / "x.env").write_text("A=1\nB\n")
    service = "command = ['a']\nenv_file = 'x.env'\n"
    assert faults(f"[service.a]\n{service}[service.b]\n{service}") == [
        f'{tmp_path / "x.env"}:2: "B": this line has no value; write NAME=VALUE'
    ]


def services(**depends_on: str) -> str:
    """Services that depend on each other: ``a="b c"``."""
    return "".join(
        f"[service.{name}]\ncommand = ['x']\ndepends_on = {needs.split()}\n"
        for name, needs in depends_on.items()
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (services(a="a"), ["3: service.a.depends_on: services wait for each other: a -> a; take"]),
        (
            services(x="a", a="b", b="c", c="a"),
            ["6: service.a.depends_on: services wait for each other: a -> b -> c -> a; take one"],
        ),
        (
            services(a="b", b="a", c="d", d="c"),
            [
                "3: service.a.depends_on: services wait for each other: a -> b -> a",
                "9: service.c.depends_on: services wait for each other: c -> d -> c",
            ],
        ),
        (
            services(web="databse", database=""),
            ['3: service.web.depends_on: there is no service "databse"; did you mean "database"?'],
        ),
        (services(a="b"), ['3: service.a.depends_on: there is no service "b"; this is the only']),
    ],
)
def test_dependencies(faults: Faults, text: str, expected: list[str]) -> None:
    """Dependencies that do not exist, or go round in a circle, are named."""
    found = faults(text)
    assert len(found) == len(expected)
    for fault, beginning in zip(found, expected, strict=True):
        assert fault.startswith(f"a.toml:{beginning}")


def test_broken_file_blames_no_other(faults: Faults) -> None:
    """While a file cannot be parsed, what it might define is not missed elsewhere."""
    (fault,) = faults(
        services(a="b") + "[service.a.routes]\n':1' = 'upstream:u'",
        "[service.b\n",
    )
    assert fault.startswith("b.toml:1: this is not TOML")


def test_broken_upstream_is_known(faults: Faults) -> None:
    """A route to an upstream that is wrong in itself is not wrong, too."""
    (fault,) = faults(services(a="") + "routes.':1' = 'upstream:u'\n[upstream.u]\nendpoints = []")
    assert "upstream.u.endpoints" in fault


dependency_graphs = st.dictionaries(
    st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=3), min_size=1
)
patient = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@patient
@given(dependency_graphs)
def test_every_cycle_is_real(load: Load, graph: dict[str, list[str]]) -> None:
    """A configuration is refused exactly if services cannot be put in order."""
    text = services(**{name: " ".join(needs) for name, needs in graph.items()})
    left = {name: set(needs) for name, needs in graph.items()}
    while ready := [name for name, needs in left.items() if not needs & set(left)]:
        for name in ready:
            del left[name]
    unknown = any(need not in graph for needs in graph.values() for need in needs)
    try:
        load(text)
    except ConfigError as error:
        assert left or unknown
        for fault in error.faults:
            if " -> " in fault.text:
                cycle = fault.text.split(": ")[1].partition(";")[0].split(" -> ")
                assert all(b in graph[a] for a, b in pairwise(cycle))
                assert cycle[0] == cycle[-1]
    else:
        assert not left
        assert not unknown


def toml(value: object) -> str:
    """A value, as TOML, inline."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
        case dict():
            return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case _:
            return str(value)


words = st.sampled_from(
    [
        *SERVICE_KEYS,
        *LISTEN_KEYS,
        "listen",
        "routes",
        "first",
        "weight",
        "a",
        "upstream:a",
        "pass",
        "127.0.0.1:80",
        ":80",
        "10.0.0.0/8",
        "5s",
        "inherit",
        "TERM",
        "no",
        ".",
    ]
)
texts = words | st.text(st.characters(codec="utf-8"), max_size=5)
leaves = texts | st.booleans() | st.integers() | st.floats() | st.just(date(2020, 1, 1))
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
service_like = st.dictionaries(st.sampled_from([*SERVICE_KEYS, "listen", "routes"]), anything)
upstream_like = st.dictionaries(st.sampled_from(["addresses", "endpoints", "balance"]), anything)
documents = st.fixed_dictionaries(
    {},
    optional={
        "service": st.dictionaries(texts, service_like | anything, max_size=3) | anything,
        "upstream": st.dictionaries(texts, upstream_like | anything, max_size=3) | anything,
        "other": anything,
    },
)


@patient
@given(documents)
def test_any_document(load: Load, document: dict[str, Any]) -> None:
    """Whatever a well-formed file holds, it is a configuration or a ConfigError says why not."""
    text = "".join(f"{key} = {toml(value)}\n" for key, value in document.items())
    try:
        configuration = load(text)
    except ConfigError as error:
        for fault in error.faults:
            assert isinstance(fault, Fault)
            assert str(fault).isprintable()
            assert "this is not TOML" not in fault.text
    else:
        assert configuration == load(text)
        assert configuration.services


@patient
@given(st.text(st.characters(codec="utf-8")) | st.text("[]service.a=\"'{}\n 1", max_size=40))
def test_any_text(load: Load, text: str) -> None:
    """Whatever a file holds, nothing but a ConfigError comes out."""
    try:
        load(text)
    except ConfigError as error:
        assert error.faults  # noqa: PT017 -- there may be none


def test_upstream_routes_follow_the_services_own(load: Load) -> None:
    """A service's own route to an upstream's address stands before the upstream's."""
    configuration = load(
        services(a="") + "routes.'10.0.0.1' = 'deny'\n"
        "[upstream.u]\nendpoints = ['127.0.0.1:1']\naddresses = ['10.0.0.1']"
    )
    (a,) = configuration.services
    assert [format_destination(route.destination) for route in a.routes] == ["10.0.0.1"] * 2
    assert isinstance(a.routes[0].verdict, Deny)
    assert replace(a, routes=a.routes[1:]).routes[0].verdict == Redirect(configuration.upstreams[0])


EXAMPLES = sorted((Path(__file__).parent.parent / "conf").glob("*.toml"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_example(file: Path) -> None:
    """Each example is valid by itself, and says in its first lines how to run it."""
    load_configuration([file])
    assert f"conf/{file.name}" in file.read_text(encoding="utf-8").partition("\n\n")[0]


def test_examples_join() -> None:
    """The examples get along in one meshfd: no name, address or port is used by two of them."""
    names = ["redirect.toml", "activation.toml", "services.toml"]
    load_configuration([file for file in EXAMPLES if file.name in names])
