"""Python's side of native/wire.h: the only module that imports the C extension.

Theory of operation: what crosses the border to an agent is built and read here, as bytes and file
descriptors, so that nobody else knows a layout. `encode_x` gives a packet for the control channel,
`decode` reads one. Route tables are compiled by the C code into sealed memfds (`compile_routes`),
with a second memfd beside each in which the agent counts what it did by rule and by endpoint:
reading the counts costs the agent nothing.

Source: native/wire.h, native/engine.h.
"""

from __future__ import annotations

import errno
import os
from ipaddress import IPv4Address, IPv6Address

from meshfd._engine import ffi as ffi  # noqa: PLC0414 -- for meshfd.channel and route_table, too
from meshfd._engine import lib as lib  # noqa: PLC0414
from meshfd.errors import MeshfdError
from meshfd.events import (
    Call,
    Denied,
    Emptied,
    Event,
    Exited,
    HandedOver,
    Listening,
    Mismatched,
    Notice,
    NoticeKind,
    Redirected,
    Statistics,
    Stopped,
)
from meshfd.model import (
    Ask,
    Deny,
    Endpoint,
    EndpointAddress,
    ListeningSocket,
    Pass,
    Protocol,
    Redirect,
    SocketAddress,
    UnixAddress,
    Upstream,
    Verdict,
)
from meshfd.records import Record

TYPE_CHECKING = False  # see meshfd.records
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Final

    from meshfd.features import Features
    from meshfd.program import Program

PACKET_MAX: Final = 4096  # bytes; the largest message has about 1,200
FDS_MAX: Final[int] = lib.MFD_CHANNEL_FDS
ENDPOINTS_MAX: Final[int] = lib.MFD_ENDPOINTS_MAX
LISTEN_MAX: Final[int] = lib.MFD_LISTEN_MAX
NETNS_MAX: Final[int] = lib.MFD_NETNS_MAX
NETNS_OWN: Final[int] = lib.MFD_NETNS_OWN
NETNS_IPV4: Final[int] = lib.MFD_NETNS_IPV4
NETNS_OTHER: Final[int] = lib.MFD_NETNS_OTHER
WIRE_VERSION: Final[int] = lib.MFD_WIRE_VERSION

_ANY: Final[int] = lib.MFD_ANY
PROTOCOLS: Final = {
    Protocol.TCP: lib.MFD_TCP,
    Protocol.UDP: lib.MFD_UDP,
}
_NOTICES: Final = {
    lib.MFD_NOTICE_UNREADABLE: NoticeKind.UNREADABLE,
    lib.MFD_NOTICE_NO_ENDPOINT: NoticeKind.NO_ENDPOINT,
    lib.MFD_NOTICE_ASK_FULL: NoticeKind.ASK_FULL,
    lib.MFD_NOTICE_ASK_TIMEOUT: NoticeKind.ASK_TIMEOUT,
    lib.MFD_NOTICE_REARMED: NoticeKind.REARMED,
    lib.MFD_NOTICE_FOREIGN_PID: NoticeKind.FOREIGN_PID,
    lib.MFD_NOTICE_HANDOVER: NoticeKind.HANDOVER,
    lib.MFD_NOTICE_PARKED: NoticeKind.PARKED,
    lib.MFD_NOTICE_WAITED_FOR: NoticeKind.WAITED_FOR,
    lib.MFD_NOTICE_STANDIN: NoticeKind.STANDIN,
    lib.MFD_NOTICE_SHARED: NoticeKind.SHARED,
    lib.MFD_NOTICE_FORBIDDEN: NoticeKind.FORBIDDEN,
    lib.MFD_NOTICE_EXHAUSTED: NoticeKind.EXHAUSTED,
    lib.MFD_NOTICE_CLASS: NoticeKind.CLASS,
}
_STAGES: Final = {
    lib.MFD_STAGE_BLOCK: "block",
    lib.MFD_STAGE_CLONE: "clone",
    lib.MFD_STAGE_NO_NEW_PRIVS: "no_new_privs",
    lib.MFD_STAGE_FILTER: "filter",
    lib.MFD_STAGE_FILES: "files",
    lib.MFD_STAGE_LIMITS: "limits",
    lib.MFD_STAGE_CREDENTIALS: "credentials",
    lib.MFD_STAGE_CHDIR: "chdir",
    lib.MFD_STAGE_EXEC: "exec",
}


class Done(Record):
    """The answer to request ``seq``: errno, the stage that a spawn failed at, and a value."""

    seq: int
    errno: int
    stage: str
    value: int


class WireError(MeshfdError):
    """A packet is not of our protocol version, or not sound."""


# --- addresses ---------------------------------------------------------------------------------


def fill_address(record: Any, ip: IPv4Address | IPv6Address, port: int) -> None:
    """Write a `struct mfd_address`."""
    record.family = lib.MFD_INET6 if isinstance(ip, IPv6Address) else lib.MFD_INET
    record.port = port
    ffi.memmove(record.bytes, ip.packed, len(ip.packed))


def fill_peer(record: Any, address: SocketAddress) -> None:
    """Write what a program connects to; as everywhere in an agent, v4-mapped means IPv4."""
    mapped = address.ip.ipv4_mapped if isinstance(address.ip, IPv6Address) else None
    fill_address(record, mapped or address.ip, address.port)


def _read_address(record: Any) -> SocketAddress | None:
    packed = bytes(ffi.buffer(record.bytes))
    if record.family == lib.MFD_INET:
        return SocketAddress(IPv4Address(packed[:4]), record.port)
    if record.family == lib.MFD_INET6:
        return SocketAddress(IPv6Address(packed), record.port)
    return None


def fill_endpoint(record: Any, address: EndpointAddress) -> None:
    """Write the address of a `struct mfd_endpoint`.

    Raises:
        ValueError: the name of a unix socket is longer than the kernel takes.

    """
    if isinstance(address, SocketAddress):
        fill_peer(record.address, address)
        return
    name = address.name.encode()
    if name.startswith(b"@"):
        name = b"\0" + name[1:]
    if len(name) >= lib.MFD_UNIX_PATH_MAX:
        raise ValueError(f"{address}: the kernel takes no name as long as this")
    record.address.family = lib.MFD_UNIX
    record.path_size = len(name)
    ffi.memmove(record.path, name, len(name))


def _read_endpoint(record: Any) -> EndpointAddress | None:
    if record.address.family != lib.MFD_UNIX:
        return _read_address(record.address)
    if not 0 < record.path_size <= lib.MFD_UNIX_PATH_MAX:
        raise WireError("an agent's report lacks the name of a unix socket")
    name = bytes(ffi.buffer(record.path, record.path_size))
    if name.startswith(b"\0"):
        name = b"@" + name[1:]
    return UnixAddress(name.decode(errors="backslashreplace"))


def _need_address(record: Any) -> SocketAddress:
    address = _read_address(record)
    if address is None:
        raise WireError("an agent's report lacks an address")
    return address


def at_home(upstream: Upstream, endpoint: Endpoint) -> int:  # noqa: ARG001 -- see encode_verdict
    """Where endpoints are reached from: everybody's own network namespace."""
    return NETNS_OWN


# --- requests ----------------------------------------------------------------------------------


def _message(kind: str, message_type: int, seq: int) -> Any:
    message = ffi.new(f"struct {kind} *")
    message.header.version = WIRE_VERSION
    message.header.type = message_type
    message.header.size = ffi.sizeof(f"struct {kind}")
    message.header.seq = seq
    return message


def _packet(message: Any) -> bytes:
    return bytes(ffi.buffer(message))


def _feature_flags(features: Features) -> int:
    flags: int = (
        features.strict * lib.MFD_SETUP_STRICT
        | features.create * lib.MFD_SETUP_CREATE
        | features.udp * lib.MFD_SETUP_UDP
        | features.standins * lib.MFD_SETUP_STANDINS
        | features.transparent * lib.MFD_SETUP_TRANSPARENT
        | features.io_uring * lib.MFD_SETUP_IO_URING
        | features.elsewhere * lib.MFD_SETUP_ELSEWHERE
        | features.ipv4 * lib.MFD_SETUP_IPV4
    )
    return flags


def encode_setup(  # noqa: PLR0913 -- one field each
    seq: int,
    features: Features,
    *,
    report_decisions: bool,
    ask_open: bool,
    ask_timeout_s: float,
    stop_signal: int,
    stop_timeout_s: float,
    enter_netns: bool = False,
    new_netns: bool = False,
    uid: int | None = None,
    gid: int | None = None,
) -> bytes:
    """SETUP, the first request. The answer brings the fd of the statistics.

    ``enter_netns``: to be sent with the fd of a network namespace. ``uid``, ``gid``: whose the
    first listening sockets are; None: the agent's own.
    """
    message = _message("mfd_setup", lib.MFD_MSG_SETUP, seq)
    message.flags = (
        _feature_flags(features)
        | report_decisions * lib.MFD_SETUP_EVENTS
        | ask_open * lib.MFD_SETUP_ASK_OPEN
        | enter_netns * lib.MFD_SETUP_NETNS
        | new_netns * lib.MFD_SETUP_NEW_NETNS
    )
    message.ask_timeout_ms = round(ask_timeout_s * 1000)
    message.stop_signal = stop_signal
    message.stop_timeout_ms = round(stop_timeout_s * 1000)
    message.uid = _ANY if uid is None else uid
    message.gid = _ANY if gid is None else gid
    return _packet(message)


def encode_routes(seq: int) -> bytes:
    """ROUTES; to be sent with the fds of a `RouteTable`."""
    return _packet(_message("mfd_plain", lib.MFD_MSG_ROUTES, seq))


def encode_detach(seq: int) -> bytes:
    """DETACH: the channel will close on purpose."""
    return _packet(_message("mfd_plain", lib.MFD_MSG_DETACH, seq))


def encode_netns(seq: int, index: int) -> bytes:
    """NETNS; to be sent with the fd of a network namespace, which has this index from then on."""
    message = _message("mfd_netns_msg", lib.MFD_MSG_NETNS, seq)
    message.index = index
    return _packet(message)


def encode_listen(seq: int, listening: ListeningSocket, netns: int = NETNS_OWN) -> bytes:
    """LISTEN: open this socket in the network namespace of this index."""
    message = _message("mfd_listen", lib.MFD_MSG_LISTEN, seq)
    ip = listening.address.ip
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    fill_address(message.address, mapped or ip, listening.address.port)
    message.flags = (mapped is not None) * lib.MFD_LISTEN_MAPPED
    message.flags |= listening.v6only * lib.MFD_LISTEN_V6ONLY
    message.backlog = listening.backlog
    message.netns = netns
    message.name = listening.name.encode()[: lib.MFD_NAME_MAX - 1]
    return _packet(message)


def encode_unlisten(seq: int, index: int) -> bytes:
    """UNLISTEN: close a listening socket."""
    message = _message("mfd_unlisten", lib.MFD_MSG_UNLISTEN, seq)
    message.index = index
    return _packet(message)


def encode_spawn(seq: int, *, inherit: bool, new_session: bool, ready_any: bool) -> bytes:
    """SPAWN; with the fd of a program block, and three standard files unless ``inherit``."""
    message = _message("mfd_spawn", lib.MFD_MSG_SPAWN, seq)
    message.flags = (
        inherit * lib.MFD_SPAWN_INHERIT
        | new_session * lib.MFD_SPAWN_SETSID
        | ready_any * lib.MFD_SPAWN_READY_ANY
    )
    return _packet(message)


def encode_signal(seq: int, signo: int, *, everything: bool) -> bytes:
    """SIGNAL, to the program spawned last or to everything of the service."""
    message = _message("mfd_signal", lib.MFD_MSG_SIGNAL, seq)
    message.signo = signo
    message.scope = lib.MFD_SCOPE_ALL if everything else lib.MFD_SCOPE_MAIN
    return _packet(message)


def encode_verdict(
    call: Call, verdict: Verdict, netns_of: Callable[[Upstream, Endpoint], int] = at_home
) -> bytes:
    """VERDICT on a call that waits; ``netns_of`` as in `compile_routes`.

    Raises:
        ValueError: the verdict is `Ask`, or names no endpoint or more than ENDPOINTS_MAX.

    """
    message = _message("mfd_verdict_msg", lib.MFD_MSG_VERDICT, 0)
    message.call = call.call
    match verdict:
        case Pass():
            message.verdict = lib.MFD_PASS
        case Deny(code):
            message.verdict = lib.MFD_DENY
            message.error = code
        case Redirect(upstream):
            endpoints = [endpoint for endpoint in upstream.endpoints if endpoint.weight > 0]
            if not 1 <= len(endpoints) <= ENDPOINTS_MAX:
                raise ValueError(f"a verdict names 1 to {ENDPOINTS_MAX} endpoints")
            message.verdict = lib.MFD_REDIRECT
            message.n_endpoints = len(endpoints)
            for index, endpoint in enumerate(endpoints):
                fill_endpoint(message.endpoints[index], endpoint.address)
                message.endpoints[index].netns = netns_of(upstream, endpoint)
        case Ask():
            raise ValueError("a verdict cannot be Ask")
        case _:
            raise TypeError(f"a verdict is a Pass, Deny or Redirect, not {verdict!r}")
    return _packet(message)


def _strings(texts: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(text) + b"\0" for text in texts)


def program_block(program: Program) -> int:
    """Write a program block; returns its fd, owned by the caller.

    Raises:
        ValueError: a string holds a NUL byte, or argv is empty.

    """
    if not program.argv:
        raise ValueError("a program needs a name to be started by")
    variables = [f"{name}={value}" for name, value in program.environment]
    texts = [program.working_dir, program.argv[0], *program.argv, *variables]
    if any("\0" in text for text in texts):
        raise ValueError("a program's arguments and environment cannot hold NUL")
    strings = _strings(texts)
    record = ffi.new("struct mfd_program *")
    record.magic = lib.MFD_PROGRAM_MAGIC
    record.n_argv = len(program.argv)
    record.n_env = len(variables)
    record.n_groups = len(program.groups)
    record.uid = _ANY if program.uid is None else program.uid
    record.gid = _ANY if program.gid is None else program.gid
    record.umask = _ANY if program.umask is None else program.umask
    record.strings_size = len(strings)
    record.blocked_signals = sum(1 << (signo - 1) for signo in program.blocked_signals)
    for number, soft, hard in program.rlimits:
        record.limited |= 1 << number
        record.rlimits[number].soft = soft
        record.rlimits[number].hard = hard
    groups = bytes(ffi.buffer(ffi.new("uint32_t[]", list(program.groups))))
    block_fd = os.memfd_create("meshfd-program", os.MFD_CLOEXEC)
    with os.fdopen(block_fd, "wb", closefd=False) as block:
        block.write(_packet(record) + groups + strings)
    return block_fd


# --- reports -----------------------------------------------------------------------------------


def _index(value: int) -> int | None:
    return None if value == _ANY else value


def _decode_done(message: Any) -> Done:
    return Done(
        seq=message.header.seq,
        errno=message.error,
        stage=_STAGES.get(message.stage, ""),
        value=message.value,
    )


def _decode_bound(message: Any) -> Event:
    index = _index(message.index)
    if message.header.type == lib.MFD_MSG_LISTENING:
        return Listening(message.pid, index, _read_address(message.address))
    if index is None:
        raise WireError("an agent's report lacks the listening socket it is about")
    kind = HandedOver if message.header.type == lib.MFD_MSG_HANDED else Mismatched
    return kind(message.pid, index, _need_address(message.address))


def _decode_decided(message: Any) -> Event:
    rule = _index(message.rule)
    asked = _need_address(message.asked)
    given = _read_endpoint(message.given)
    if given is None:
        return Denied(message.pid, rule, asked, message.error, message.nanoseconds)
    return Redirected(
        pid=message.pid,
        rule=rule,
        asked=asked,
        given=given,
        errno=message.error,
        attempts=message.attempts,
        cost_ns=message.nanoseconds,
    )


def _decode_call(message: Any) -> Event:
    return Call(
        call=message.call,
        pid=message.pid,
        rule=_index(message.rule),
        cookie=message.cookie,
        asked=_need_address(message.asked),
    )


def _decode_notice(message: Any) -> Event:
    if message.notice not in _NOTICES:
        raise WireError(f"an agent sent an unknown notice {message.notice}")
    return Notice(
        kind=_NOTICES[message.notice],
        pid=message.pid,
        errno=message.error,
        index=_index(message.index),
        address=_read_address(message.address),
    )


_DECODERS: Final[dict[int, tuple[str, Callable[[Any], Done | Event]]]] = {
    lib.MFD_MSG_DONE: ("mfd_done", _decode_done),
    lib.MFD_MSG_EXITED: ("mfd_exited", lambda message: Exited(message.pid, message.status)),
    lib.MFD_MSG_STOPPED: (
        "mfd_exited",
        # os.WSTOPSIG() would have it an int of C's
        lambda message: Stopped(message.pid, message.status >> 8 & 0xFF),
    ),
    lib.MFD_MSG_LISTENING: ("mfd_bound", _decode_bound),
    lib.MFD_MSG_HANDED: ("mfd_bound", _decode_bound),
    lib.MFD_MSG_MISMATCH: ("mfd_bound", _decode_bound),
    lib.MFD_MSG_DECIDED: ("mfd_decided", _decode_decided),
    lib.MFD_MSG_CALL: ("mfd_call", _decode_call),
    lib.MFD_MSG_NOTICE: ("mfd_notice_msg", _decode_notice),
    lib.MFD_MSG_EMPTY: ("mfd_plain", lambda _: Emptied()),
}


def decode(packet: bytes) -> Done | Event:
    """Read one packet of an agent's.

    Raises:
        WireError: it is of another protocol version, or not sound.

    """
    if len(packet) < ffi.sizeof("struct mfd_header"):
        raise WireError(f"an agent sent a packet of {len(packet)} bytes")
    header = ffi.from_buffer("struct mfd_header *", packet)
    if header.version != WIRE_VERSION:
        raise WireError(
            f"the agent speaks protocol version {header.version}, this meshfd {WIRE_VERSION}: "
            "reinstall meshfd, both belong together"
        )
    if header.type not in _DECODERS:
        raise WireError(f"an agent sent a message of unknown type {header.type}")
    kind, decoder = _DECODERS[header.type]
    if len(packet) != ffi.sizeof(f"struct {kind}"):
        raise WireError(f"an agent sent a {kind} of {len(packet)} bytes")
    return decoder(ffi.from_buffer(f"struct {kind} *", packet))


def version_refused(done: Done) -> bool:
    """Whether an agent refused our protocol version; ``done.value`` is then its own."""
    return done.errno == errno.EPROTONOSUPPORT


# --- statistics, signals -----------------------------------------------------------------------


class SharedStatistics:
    """An agent's counters, mapped; readable also after the agent has ended."""

    def __init__(self, stats_fd: int) -> None:
        """Map the memfd; ``stats_fd`` stays the caller's."""
        import mmap  # noqa: PLC0415 -- `meshfd exec` has no time for it

        self._map = mmap.mmap(stats_fd, ffi.sizeof("struct mfd_stats"), prot=mmap.PROT_READ)

    def read(self) -> Statistics:
        """The counters as they are now."""
        stats = ffi.new("struct mfd_stats *")
        ffi.memmove(stats, self._map[:], ffi.sizeof("struct mfd_stats"))
        values: dict[str, Any] = {name: getattr(stats, name) for name in Statistics.__match_args__}
        values["connect_ns"] = tuple(stats.connect_ns)
        values["socket_ns"] = tuple(stats.socket_ns)
        return Statistics(**values)

    def close(self) -> None:
        """Unmap."""
        self._map.close()


class ReceivedSignal(Record):
    """A signal and where it came from (sigaction(2), si_code and si_pid)."""

    signo: int
    from_kernel: bool
    pid: int


class SignalReader:
    """Signals of this process, by signalfd(2); they stay blocked."""

    def __init__(self, signals: Iterable[int]) -> None:
        """Block ``signals`` in the calling thread, and read them here from now on."""
        self.fd: int = lib.mfd_engine_signals_open(sum(1 << (signo - 1) for signo in signals))
        if self.fd < 0:
            raise OSError(-self.fd, os.strerror(-self.fd))

    def receive_nowait(self) -> ReceivedSignal | None:
        """The next signal, or None when none waits."""
        signo, code, pid = (ffi.new("int *") for _ in range(3))
        n = lib.mfd_engine_signals_next(self.fd, signo, code, pid)
        if n < 0:
            raise OSError(-n, os.strerror(-n))
        return ReceivedSignal(signo[0], code[0] > 0, pid[0]) if n == 1 else None


def make_netns() -> None:
    """Move this thread to a network namespace that is new.

    Raises:
        OSError: EPERM: that needs CAP_SYS_ADMIN; ENOSPC: there are too many.

    """
    _check(lib.mfd_engine_netns_enter(-1))


def enter_netns(netns_fd: int) -> None:
    """Move this thread to a network namespace.

    Raises:
        OSError: EPERM: that needs CAP_SYS_ADMIN; EINVAL: the fd is something else.

    """
    _check(lib.mfd_engine_netns_enter(netns_fd))


def _check(error: int) -> None:
    if error < 0:
        raise OSError(-error, os.strerror(-error))


def filter_words(features: Features) -> tuple[int, ...]:
    """The seccomp filter of a service, as the 8-byte words of its struct sock_filter."""
    words = ffi.new("uint64_t[]", lib.MFD_ENGINE_FILTER_MAX)
    n = lib.mfd_engine_filter(_feature_flags(features), words)
    return tuple(words[index] for index in range(n))
