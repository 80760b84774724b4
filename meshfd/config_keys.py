"""The keys of a configuration file: what each may hold, and what it means.

These are the parts that mean the same wherever they stand; what depends on the rest of the
configuration (names of upstreams and services, addresses that may occur once) is in
`meshfd.config`. Each function takes a value of its key's shape and the key's place, and gives the
value as `meshfd.model` has it; ValueError says what is wrong with it.
"""

from __future__ import annotations

import enum
import signal
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from meshfd.cgroup_limits import Limit, parse_limit
from meshfd.cgroup_paths import check_path
from meshfd.durations import parse_duration
from meshfd.env_file import EnvFileError, check_variable, parse_env_file
from meshfd.errors import Fault
from meshfd.model import Backoff, Endpoint, IoUring, OnExit, Ready, Restart, Track, Transition
from meshfd.netns import NEW, path_of
from meshfd.rlimits import NUMBERS, parse_rlimit
from meshfd.routes import (
    WEIGHT_MAX,
    check_endpoints,
    check_name,
    parse_endpoint,
    parse_listen_address,
)
from meshfd.toml_tables import Key, Place, convert, parse_each, read_table, read_text
from meshfd.wording import alternatives, quote, suggest

Table = dict[str, Any]
"""A TOML table, as tomli gives it."""

BACKLOG_MAX = 2**31 - 1
"""listen(2) takes an int."""

STOP_SIGNALS = {
    name: signal.Signals[f"SIG{name}"]
    for name in ("TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "WINCH", "ABRT", "ALRM", "KILL")
}
"""Signals that programs are asked to end with, WINCH among them (Apache's graceful stop)."""

_Text = Annotated[str, Meta(min_length=1)]
_Duration = str | int | float
_Limit = str | int
_LIMIT_HINT = 'a limit such as 4096, "64MiB", "unlimited" or [1024, 4096]'
_CGROUP_LIMIT_HINT = (
    'a value such as 100, "512MiB" or "max", with the name quoted: "memory.max" = "512MiB"'
)
_DURATION_HINT = 'a duration such as "5s", "100ms" or "1m30s"'
NETNS_HINT = 'a network namespace: a name, a path, or "host"'
_ENDPOINT_HINT = (
    'an endpoint such as "127.0.0.1:8080" or { address = "127.0.0.1:8080", weight = 2 }'
)


def either(words: type[enum.Enum]) -> str:
    """Words for the shape of a key that holds one of these values."""
    return alternatives(quote(word.value) for word in words)


def read_endpoints(values: list[Any], place: Place) -> tuple[Endpoint, ...]:
    """The endpoints of an upstream: each ``"ADDR:PORT"``, or a table with its weight."""
    n_faults = len(place.source.faults)
    endpoints = parse_each(enumerate(values), place, _endpoint)
    if len(place.source.faults) == n_faults:
        check_endpoints(endpoints)
    return endpoints


def _endpoint(value: object, place: Place) -> Endpoint | None:
    value = convert(value, _Text | Table, _ENDPOINT_HINT)
    if isinstance(value, str):
        return Endpoint(parse_endpoint(value))
    fields = read_table(value, _ENDPOINT_KEYS, place)
    return Endpoint(**fields) if "address" in fields else None


def _parsed(parse: Any) -> Any:
    """``parse`` as a Key wants it, for what does not depend on the place."""
    return lambda value, place: parse(value)  # noqa: ARG005 -- a Key's


def _plain(text: str, place: Place) -> str:  # noqa: ARG001 -- a Key's
    if "\0" in text:
        raise ValueError("a NUL character would end this text early; take it out")
    return text


def _path(text: str, place: Place) -> Path:
    return place.source.file.absolute().parent / _plain(text, place)


def _command(words: list[str], place: Place) -> tuple[str, ...]:
    program, *arguments = parse_each(enumerate(words), place, _plain) or ("",)
    if not program:
        raise ValueError("the program's name is empty; write the program to run first")
    if "/" in program:
        program = str(_path(program, place))
    return (program, *arguments)


def _environment(table: Table, place: Place) -> dict[str, str]:
    def parse(name: str, _: Place) -> tuple[str, str]:
        value = convert(table[name], str, "a string")
        check_variable(name, value)
        return name, value

    return dict(parse_each(((name, name) for name in table), place, parse))


def _rlimits(table: Table, place: Place) -> tuple[tuple[int, int, int], ...]:
    """Number, soft and hard limit of each; sorted, because their order means nothing."""

    def parse(name: str, _: Place) -> tuple[int, int, int]:
        value = convert(table[name], _Limit | list[_Limit], _LIMIT_HINT)
        return (NUMBERS.get(name, 0), *parse_rlimit(name, value))

    return tuple(sorted(parse_each(((name, name) for name in table), place, parse)))


def _cgroup_limits(table: Table, place: Place) -> tuple[Limit, ...]:
    """Sorted, because their order means nothing."""

    def parse(name: str, _: Place) -> Limit:
        return parse_limit(name, convert(table[name], _Limit | list[_Limit], _CGROUP_LIMIT_HINT))

    return tuple(sorted(parse_each(((name, name) for name in table), place, parse)))


def _env_file(value: str | list[str], place: Place) -> dict[str, str]:
    """The variables of all files; what a later file says wins."""
    variables: dict[str, str] = {}
    for text in [value] if isinstance(value, str) else value:
        file = _path(text, place)
        try:
            variables |= parse_env_file(read_text(file))
        except EnvFileError as error:
            place.source.faults.append(Fault(str(file), error.line, "", str(error)))
        except ValueError as error:
            place.fault(f"{quote(text)}: {error}")
    return variables


def read_netns(text: str, place: Place) -> str:
    """``NEW``, the name of one that is declared, or a path; another name is one of ip-netns(8)."""
    if text == NEW:
        return NEW
    if text in place.source.netns:
        return text
    return str(_path(path_of(text), place))


def existing_netns(text: str, place: Place) -> str:
    """A name or path, as `read_netns` reads it."""
    netns = read_netns(text, place)
    if netns == NEW:
        raise ValueError("a new one has nothing but its loopback device; name one that is there")
    return netns


def _transition(table: Table, place: Place) -> Transition | None:
    fields = read_table(table, _TRANSITION_KEYS, place)
    return Transition(**fields) if "ipv4_netns" in fields else None


def _stop_signal(name: str, place: Place) -> signal.Signals:  # noqa: ARG001 -- a Key's
    short = name.upper().removeprefix("SIG")
    if short not in STOP_SIGNALS:
        advice = suggest(short, STOP_SIGNALS, none="")
        raise ValueError(f"{quote(name)} is not a signal to stop with; {advice}")
    return STOP_SIGNALS[short]


def _backoff(value: str | float | Table, place: Place) -> Backoff:
    """A table; or a duration, which is then the delay of every restart."""
    if not isinstance(value, dict):
        delay_s = parse_duration(value)
        return _checked_backoff({"first_s": delay_s, "last_s": delay_s})
    return _checked_backoff(read_table(value, _BACKOFF_KEYS, place))


def _checked_backoff(fields: dict[str, float]) -> Backoff:
    usual = Backoff()
    first_s = fields.get("first_s", min(usual.first_s, fields.get("last_s", usual.first_s)))
    last_s = fields.get("last_s", max(usual.last_s, first_s))
    if first_s <= 0:
        raise ValueError('a program that fails at once would be restarted in a loop; write "100ms"')
    if first_s > last_s:
        raise ValueError("the first delay is longer than the last; swap them")
    return Backoff(first_s, last_s, fields.get("reset_s", usual.reset_s))


def _log(text: str, place: Place) -> str:
    return text if text in ("inherit", "null") else str(_path(text, place))


def _seconds(field: str) -> Key:
    return Key(field, _Duration, _DURATION_HINT, _parsed(parse_duration))


def _text(field: str, hint: str) -> Key:
    return Key(field, _Text, hint, _plain)


def _flag(field: str) -> Key:
    return Key(field, bool, "true or false")


def choice(field: str, words: type[enum.Enum]) -> Key:
    """A key that holds one of these words."""
    return Key(field, words, either(words))


SERVICE_KEYS = {
    "command": Key(
        "command",
        Annotated[list[str], Meta(min_length=1)],
        'an array of strings such as ["python3", "-m", "http.server"]',
        _command,
        required=True,
    ),
    "working_dir": Key("working_dir", _Text, "a path", _path),
    "user": _text("user", "a user's name"),
    "group": _text("group", "a group's name"),
    "netns": Key("netns", _Text, 'a network namespace: "new", a name, or a path', read_netns),
    "transition": Key(
        "transition", Table, 'a table such as { ipv4_netns = "egress" }', _transition
    ),
    "cgroup": Key("cgroup", _Text, 'a cgroup such as "mesh.slice/shop"', _parsed(check_path)),
    "cgroup_limits": Key(
        "cgroup_limits",
        Table,
        'a table such as { "memory.max" = "512MiB", "pids.max" = 100 }',
        _cgroup_limits,
    ),
    "rlimits": Key(
        "rlimits", Table, 'a table such as { nofile = 4096, core = "unlimited" }', _rlimits
    ),
    "environment": Key("environment", Table, 'a table such as { NAME = "value" }', _environment),
    "env_file": Key("env_file", _Text | list[_Text], "a path, or an array of paths", _env_file),
    "depends_on": Key(
        "depends_on",
        list[str],
        "an array of services' names",
        _parsed(lambda names: tuple(dict.fromkeys(names))),
    ),
    "autostart": _flag("autostart"),
    "restart": choice("restart", Restart),
    "backoff": Key(
        "backoff",
        _Duration | Table,
        'a duration such as "1s", or { first = "100ms", last = "30s", reset = "10s" }',
        _backoff,
    ),
    "stop_signal": Key("stop_signal", _Text, 'a signal\'s name such as "SIGTERM"', _stop_signal),
    "stop_timeout": _seconds("stop_timeout_s"),
    "ready": choice("ready", Ready),
    "on_exit": choice("on_exit", OnExit),
    "strict": _flag("strict"),
    "track": choice("track", Track),
    "transparent": _flag("transparent"),
    "io_uring": choice("io_uring", IoUring),
    "log": Key("log", _Text, '"inherit", "null" or a file\'s path', _log),
}
"""``[service.NAME]``, but for ``listen`` and ``routes``."""

LISTEN_KEYS = {
    "name": Key("name", _Text, "a name", _parsed(check_name)),
    "address": Key(
        "address",
        _Text,
        'an address such as "127.0.0.1:80", "[::1]:80" or ":80"',
        _parsed(parse_listen_address),
        required=True,
    ),
    "backlog": Key(
        "backlog",
        Annotated[int, Meta(ge=1, le=BACKLOG_MAX)],
        f"a whole number from 1 to {BACKLOG_MAX}",
    ),
    "v6only": Key("v6only", bool, "true or false"),
    "netns": Key("netns", _Text, NETNS_HINT, existing_netns),
    "handover": Key("handover", Literal["inject"], '"inject"'),
}
"""``[[service.NAME.listen]]``."""

_TRANSITION_KEYS = {
    "ipv4_netns": Key("ipv4_netns", _Text, NETNS_HINT, existing_netns, required=True),
}

_BACKOFF_KEYS = {
    "first": _seconds("first_s"),
    "last": _seconds("last_s"),
    "reset": _seconds("reset_s"),
}

_ENDPOINT_KEYS = {
    "address": Key(
        "address",
        _Text,
        'an address such as "127.0.0.1:8080"',
        _parsed(parse_endpoint),
        required=True,
    ),
    "weight": Key(
        "weight",
        Annotated[int, Meta(ge=0, le=WEIGHT_MAX)],
        f"a whole number from 0 to {WEIGHT_MAX}",
    ),
}
