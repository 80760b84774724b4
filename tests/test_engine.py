"""The border to C: packets, program blocks, the filter."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import resource
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshfd._engine import ffi, lib

from meshfd import engine
from meshfd.channel import open_channel, receive_packet, send_packet
from meshfd.engine import Done, WireError, decode
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
from meshfd.features import Features
from meshfd.model import (
    Ask,
    Deny,
    Endpoint,
    ListeningSocket,
    Pass,
    Redirect,
    SocketAddress,
    UnixAddress,
    Upstream,
)
from meshfd.program import Program

HERE = SocketAddress(ip_address("127.0.0.1"), 80)
THERE = SocketAddress(ip_address("2001:db8::1"), 443)
HIDDEN = UnixAddress("@hidden")

# --- requests ------------------------------------------------------------------------------------


def read_request(kind: str, packet: bytes, message_type: int, seq: int) -> Any:
    """Check a packet's header, and return the record."""
    record = ffi.from_buffer(f"struct {kind} *", packet)
    assert len(packet) == ffi.sizeof(f"struct {kind}") == record.header.size
    assert (record.header.version, record.header.type) == (engine.WIRE_VERSION, message_type)
    assert record.header.seq == seq
    # cffi keeps the buffer alive only as long as what from_buffer() returned
    copy = ffi.new(f"struct {kind} *")
    ffi.memmove(copy, packet, len(packet))
    return copy


features = st.builds(Features, *[st.booleans()] * 6)


@given(
    st.integers(0, 2**64 - 1),
    features,
    *[st.booleans()] * 2,
    st.floats(0, 4e6),
    st.integers(1, 64),
    st.none() | st.integers(0, 2**32 - 2),
)
def test_setup_carries_every_setting(
    seq: int,
    wanted: Features,
    report: bool,
    ask_open: bool,
    timeout_s: float,
    signo: int,
    uid: int | None,
) -> None:
    """Flags are separate bits, times become milliseconds."""
    packet = engine.encode_setup(
        seq,
        wanted,
        report_decisions=report,
        ask_open=ask_open,
        ask_timeout_s=timeout_s,
        stop_signal=signo,
        stop_timeout_s=1.5,
        uid=uid,
    )
    record = read_request("mfd_setup", packet, lib.MFD_MSG_SETUP, seq)
    assert record.flags == sum(
        flag << bit
        for bit, flag in enumerate(
            (
                wanted.strict,
                wanted.create,
                report,
                ask_open,
                wanted.udp,
                wanted.standins,
                wanted.transparent,
                wanted.io_uring,
            )
        )
    )
    assert record.ask_timeout_ms == round(timeout_s * 1000)
    assert (record.stop_signal, record.stop_timeout_ms) == (signo, 1500)
    assert (record.uid, record.gid) == (lib.MFD_ANY if uid is None else uid, lib.MFD_ANY)


@pytest.mark.parametrize(
    ("ip", "family", "packed", "flags"),
    [
        ("127.0.0.1", socket.AF_INET, b"\x7f\0\0\1" + bytes(12), 0),
        ("::1", socket.AF_INET6, bytes(15) + b"\1", 0),
        ("::ffff:127.0.0.1", socket.AF_INET, b"\x7f\0\0\1" + bytes(12), lib.MFD_LISTEN_MAPPED),
    ],
)
def test_listen_says_which_socket(ip: str, family: int, packed: bytes, flags: int) -> None:
    """An IPv4-mapped address asks for an AF_INET6 socket with that IPv4 address."""
    listening = ListeningSocket("n" * 60, SocketAddress(ip_address(ip), 8080), backlog=17)
    packet = engine.encode_listen(7, listening)
    record = read_request("mfd_listen", packet, lib.MFD_MSG_LISTEN, 7)
    assert (record.address.family, record.address.port) == (family, 8080)
    assert bytes(ffi.buffer(record.address.bytes)) == packed
    assert (record.flags, record.backlog) == (flags, 17)
    assert ffi.string(record.name) == b"n" * 60


def test_short_requests_say_what_they_say() -> None:
    """The remaining requests hold their numbers and flags."""
    read_request("mfd_plain", engine.encode_routes(1), lib.MFD_MSG_ROUTES, 1)
    read_request("mfd_plain", engine.encode_detach(2), lib.MFD_MSG_DETACH, 2)
    packet = engine.encode_unlisten(3, 63)
    assert read_request("mfd_unlisten", packet, lib.MFD_MSG_UNLISTEN, 3).index == 63
    for flag, words in (
        (lib.MFD_SPAWN_INHERIT, (True, False, False)),
        (lib.MFD_SPAWN_SETSID, (False, True, False)),
        (lib.MFD_SPAWN_READY_ANY, (False, False, True)),
    ):
        inherit, new_session, ready_any = words
        packet = engine.encode_spawn(
            4, inherit=inherit, new_session=new_session, ready_any=ready_any
        )
        assert read_request("mfd_spawn", packet, lib.MFD_MSG_SPAWN, 4).flags == flag
    for everything, scope in ((False, lib.MFD_SCOPE_MAIN), (True, lib.MFD_SCOPE_ALL)):
        packet = engine.encode_signal(5, 15, everything=everything)
        record = read_request("mfd_signal", packet, lib.MFD_MSG_SIGNAL, 5)
        assert (record.signo, record.scope) == (15, scope)


WAITING = Call(call=2**63, pid=1, rule=None, cookie=1, asked=HERE)


def verdict_record(packet: bytes) -> Any:
    """Return a verdict as the agent reads it."""
    record = read_request("mfd_verdict_msg", packet, lib.MFD_MSG_VERDICT, 0)
    assert record.call == WAITING.call
    return record


def test_verdicts_say_what_to_do() -> None:
    """Pass, deny with an errno, or redirect to the endpoints that have a weight, in their order."""
    assert verdict_record(engine.encode_verdict(WAITING, Pass())).verdict == lib.MFD_PASS
    record = verdict_record(engine.encode_verdict(WAITING, Deny(errno.EACCES)))
    assert (record.verdict, record.error) == (lib.MFD_DENY, errno.EACCES)
    endpoints = (Endpoint(HERE), Endpoint(THERE, weight=0), Endpoint(THERE, weight=9))
    record = verdict_record(engine.encode_verdict(WAITING, Redirect(Upstream("x", endpoints))))
    assert (record.verdict, record.n_endpoints) == (lib.MFD_REDIRECT, 2)
    assert [record.endpoints[index].address.port for index in range(2)] == [80, 443]


@pytest.mark.parametrize(
    ("name", "path"),
    [("/run/a.sock", b"/run/a.sock"), ("@a", b"\0a"), ("/" + "x" * 106, b"/" + b"x" * 106)],
)
def test_a_verdict_can_name_a_unix_socket(name: str, path: bytes) -> None:
    """Its path as unix(7) has it: an abstract name begins with NUL."""
    upstream = Upstream("x", (Endpoint(UnixAddress(name)), Endpoint(HERE)))
    record = verdict_record(engine.encode_verdict(WAITING, Redirect(upstream)))
    first, second = record.endpoints[0], record.endpoints[1]
    assert (first.address.family, first.path_size) == (socket.AF_UNIX, len(path))
    assert bytes(ffi.buffer(first.path, first.path_size)) == path
    assert (second.address.family, second.path_size) == (socket.AF_INET, 0)


def test_a_unix_socket_with_a_long_name_is_refused() -> None:
    """Records of the library's callers are not always parsed ones."""
    upstream = Upstream("x", (Endpoint(UnixAddress("/" + "x" * 107)),))
    with pytest.raises(ValueError, match="the kernel takes no name as long as this"):
        engine.encode_verdict(WAITING, Redirect(upstream))


def upstream_of(n: int, weight: int = 1) -> Upstream:
    """Return an upstream of n endpoints."""
    return Upstream("x", tuple(Endpoint(HERE, weight) for _ in range(n)))


@pytest.mark.parametrize(
    "verdict",
    [
        Ask(),
        Redirect(upstream_of(0)),
        Redirect(upstream_of(3, weight=0)),
        Redirect(upstream_of(engine.ENDPOINTS_MAX + 1)),
    ],
)
def test_a_verdict_that_cannot_be_carried_out_is_refused(verdict: Ask | Redirect) -> None:
    """Ask is no answer, and endpoints are 1 to ENDPOINTS_MAX."""
    with pytest.raises(ValueError, match="verdict"):
        engine.encode_verdict(WAITING, verdict)


def test_a_verdict_holds_as_many_endpoints_as_the_wire() -> None:
    """ENDPOINTS_MAX endpoints fit."""
    packet = engine.encode_verdict(WAITING, Redirect(upstream_of(engine.ENDPOINTS_MAX)))
    assert verdict_record(packet).n_endpoints == engine.ENDPOINTS_MAX


# --- program blocks ------------------------------------------------------------------------------

texts = st.text(
    st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from("\udc80\udcff"),
    max_size=8,
)
ids = st.none() | st.integers(0, 2**32 - 2)
u64s = st.integers(0, 2**64 - 1)
programs = st.builds(
    Program,
    argv=st.lists(texts, min_size=1, max_size=4).map(tuple),
    environment=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
    working_dir=texts,
    uid=ids,
    gid=ids,
    groups=st.lists(st.integers(0, 2**32 - 1), max_size=4).map(tuple),
    umask=st.none() | st.integers(0, 0o777),
    blocked_signals=st.frozensets(st.integers(1, 64)),
    rlimits=st.dictionaries(st.integers(0, 15), st.tuples(u64s, u64s)).map(
        lambda limits: tuple((number, *pair) for number, pair in sorted(limits.items()))
    ),
)
PROGRAM_HEADER = struct.Struct("=8I2Q32Q")  # the last: soft and hard of 16 limits


def read_block(program: Program) -> tuple[tuple[int, ...], tuple[int, ...], list[str]]:
    """Write a block, and return its numbers, groups and strings."""
    fd = engine.program_block(program)
    try:
        content = os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)
    numbers = PROGRAM_HEADER.unpack_from(content)
    n_groups, strings_size = numbers[3], numbers[7]
    groups = struct.unpack_from(f"={n_groups}I", content, PROGRAM_HEADER.size)
    strings = content[PROGRAM_HEADER.size + 4 * n_groups :]
    assert len(strings) == strings_size
    assert strings.endswith(b"\0")
    return numbers, groups, [os.fsdecode(text) for text in strings[:-1].split(b"\0")]


@given(programs)
@settings(deadline=None)
def test_a_program_block_holds_the_program(program: Program) -> None:
    """Everything that execve(2) and its surroundings need can be read back, byte for byte."""
    numbers, groups, strings = read_block(program)
    magic, n_argv, n_env, _, uid, gid, umask, _, blocked, limited, *limits = numbers
    assert magic == lib.MFD_PROGRAM_MAGIC
    assert groups == program.groups
    assert [uid, gid, umask] == [
        lib.MFD_ANY if value is None else value
        for value in (program.uid, program.gid, program.umask)
    ]
    assert blocked == sum(1 << (signo - 1) for signo in program.blocked_signals)
    assert limited == sum(1 << number for number, _, _ in program.rlimits)
    for number, soft, hard in program.rlimits:
        assert limits[2 * number : 2 * number + 2] == [soft, hard]
    assert (n_argv, n_env) == (len(program.argv), len(program.environment))
    assert strings == [
        program.working_dir,
        program.argv[0],
        *program.argv,
        *(f"{name}={value}" for name, value in program.environment),
    ]


@pytest.mark.parametrize(
    "program",
    [
        Program((), ()),
        Program(("a\0b",), ()),
        Program(("a", "\0"), ()),
        Program(("a",), (("N", "\0"),)),
        Program(("a",), (("N\0", ""),)),
        Program(("a",), (), working_dir="/\0"),
    ],
)
def test_a_program_that_cannot_be_written_is_refused(program: Program) -> None:
    """There must be a command, and no string can hold NUL."""
    with pytest.raises(ValueError, match="program"):
        engine.program_block(program)


# --- reports -------------------------------------------------------------------------------------


def fill(record: Any, address: SocketAddress) -> None:
    """Write an address as an agent would."""
    record.family = socket.AF_INET if address.ip.version == 4 else socket.AF_INET6
    record.port = address.port
    ffi.memmove(record.bytes, address.ip.packed, len(address.ip.packed))


def report(kind: str, message_type: int, **values: object) -> bytes:
    """Build a packet as an agent would."""
    record = ffi.new(f"struct {kind} *")
    record.header.version = engine.WIRE_VERSION
    record.header.type = message_type
    record.header.size = ffi.sizeof(f"struct {kind}")
    for name, value in values.items():
        if isinstance(value, UnixAddress):
            endpoint = getattr(record, name)
            path = value.name.encode().replace(b"@", b"\0")
            endpoint.address.family = socket.AF_UNIX
            endpoint.path_size = len(path)
            ffi.memmove(endpoint.path, path, len(path))
        elif isinstance(value, SocketAddress):
            field = getattr(record, name)
            fill(field.address if name == "given" else field, value)
        else:
            setattr(record, name, value)
    return bytes(ffi.buffer(record))


REPORTS: tuple[tuple[bytes, Done | Event], ...] = (
    (
        report("mfd_done", lib.MFD_MSG_DONE, error=2, stage=lib.MFD_STAGE_EXEC, value=9),
        Done(0, 2, "exec", 9),
    ),
    (report("mfd_done", lib.MFD_MSG_DONE), Done(0, 0, "", 0)),
    (report("mfd_exited", lib.MFD_MSG_EXITED, pid=5, status=0x300), Exited(5, 0x300)),
    (report("mfd_exited", lib.MFD_MSG_STOPPED, pid=5, status=0x137F), Stopped(5, 0x13)),
    (report("mfd_exited", lib.MFD_MSG_STOPPED, pid=5, status=0x8000137F), Stopped(5, 0x13)),
    (
        report("mfd_bound", lib.MFD_MSG_LISTENING, pid=5, index=lib.MFD_ANY, address=THERE),
        Listening(5, None, THERE),
    ),
    (
        report("mfd_bound", lib.MFD_MSG_LISTENING, pid=5, index=0),
        Listening(5, 0, None),
    ),
    (
        report("mfd_bound", lib.MFD_MSG_HANDED, pid=5, index=3, address=HERE),
        HandedOver(5, 3, HERE),
    ),
    (
        report("mfd_bound", lib.MFD_MSG_MISMATCH, pid=5, index=63, address=THERE),
        Mismatched(5, 63, THERE),
    ),
    (
        report(
            "mfd_decided",
            lib.MFD_MSG_DECIDED,
            pid=5,
            verdict=lib.MFD_REDIRECT,
            rule=4,
            error=115,
            attempts=2,
            nanoseconds=777,
            asked=THERE,
            given=HERE,
        ),
        Redirected(5, 4, THERE, HERE, 115, 2, 777),
    ),
    (
        report("mfd_decided", lib.MFD_MSG_DECIDED, pid=5, attempts=1, asked=THERE, given=HIDDEN),
        Redirected(5, 0, THERE, HIDDEN, 0, 1, 0),
    ),
    (
        report(
            "mfd_decided",
            lib.MFD_MSG_DECIDED,
            pid=5,
            verdict=lib.MFD_DENY,
            rule=lib.MFD_ANY,
            error=13,
            nanoseconds=7,
            asked=HERE,
        ),
        Denied(5, None, HERE, 13, 7),
    ),
    (
        report("mfd_call", lib.MFD_MSG_CALL, call=2**63, pid=5, rule=1, cookie=2**40, asked=HERE),
        Call(2**63, 5, 1, 2**40, HERE),
    ),
    (
        report(
            "mfd_notice_msg",
            lib.MFD_MSG_NOTICE,
            notice=lib.MFD_NOTICE_HANDOVER,
            pid=5,
            error=1,
            index=lib.MFD_ANY,
            address=HERE,
        ),
        Notice(NoticeKind.HANDOVER, 5, 1, None, HERE),
    ),
    (
        report("mfd_notice_msg", lib.MFD_MSG_NOTICE, notice=lib.MFD_NOTICE_REARMED, index=2),
        Notice(NoticeKind.REARMED, 0, 0, 2, None),
    ),
    (report("mfd_plain", lib.MFD_MSG_EMPTY), Emptied()),
)
PACKETS = tuple(packet for packet, _ in REPORTS)


@pytest.mark.parametrize(("packet", "expected"), REPORTS)
def test_reports_are_read(packet: bytes, expected: Done | Event) -> None:
    """Each report becomes its record."""
    assert decode(packet) == expected


def test_every_notice_has_a_wording() -> None:
    """No notice that an agent can send is unknown here."""
    for notice in range(1, lib.MFD_NOTICE_COUNT_):
        packet = report("mfd_notice_msg", lib.MFD_MSG_NOTICE, notice=notice)
        assert isinstance(decode(packet), Notice)


@pytest.mark.parametrize("packet", PACKETS)
def test_packets_of_another_size_are_refused(packet: bytes) -> None:
    """A packet that is cut off or too long is no report."""
    for wrong in (*(packet[:size] for size in range(len(packet))), packet + b"\0", packet * 2):
        with pytest.raises(WireError, match=r"bytes|lacks"):
            decode(wrong)


@pytest.mark.parametrize("version", [0, engine.WIRE_VERSION + 1, 65535])
def test_another_version_is_refused_with_both_named(version: int) -> None:
    """Who mixes two installations is told so."""
    packet = struct.pack("=H", version) + PACKETS[0][2:]
    with pytest.raises(WireError, match=f"version {version}, this meshfd {engine.WIRE_VERSION}"):
        decode(packet)


@pytest.mark.parametrize("message_type", [0, lib.MFD_MSG_SETUP, lib.MFD_MSG_EMPTY + 1, 65535])
def test_unknown_types_are_refused(message_type: int) -> None:
    """What an agent never sends is refused by its number."""
    packet = PACKETS[0][:2] + struct.pack("=H", message_type) + PACKETS[0][4:]
    with pytest.raises(WireError, match=f"unknown type {message_type}$"):
        decode(packet)


@pytest.mark.parametrize(
    "packet",
    [
        report("mfd_bound", lib.MFD_MSG_HANDED, index=lib.MFD_ANY, address=HERE),
        report("mfd_bound", lib.MFD_MSG_MISMATCH, index=1),
        report("mfd_decided", lib.MFD_MSG_DECIDED, given=HERE),
        report("mfd_decided", lib.MFD_MSG_DECIDED, asked=HERE, given=UnixAddress("")),
        report("mfd_call", lib.MFD_MSG_CALL),
    ],
)
def test_reports_that_lack_what_they_are_about_are_refused(packet: bytes) -> None:
    """A handover without its socket, or a call without its address, says nothing."""
    with pytest.raises(WireError, match="lacks"):
        decode(packet)


@pytest.mark.parametrize("notice", [0, lib.MFD_NOTICE_COUNT_, 2**32 - 1])
def test_unknown_notices_are_refused(notice: int) -> None:
    """A notice that nobody has words for is refused by its number."""
    with pytest.raises(WireError, match=f"notice.* {notice}$"):
        decode(report("mfd_notice_msg", lib.MFD_MSG_NOTICE, notice=notice))


@given(st.sampled_from(PACKETS), st.data())
def test_no_packet_raises_anything_else(packet: bytes, data: st.DataObject) -> None:
    """Whatever bytes an agent sends are a record or a WireError."""
    changed = bytearray(packet)
    for at in data.draw(st.lists(st.integers(0, len(packet) - 1), max_size=6)):
        changed[at] = data.draw(st.integers(0, 255))
    try:
        record = decode(bytes(changed))
    except WireError:
        return
    assert isinstance(record, Done | Event)


def test_a_refused_version_is_told_from_other_failures() -> None:
    """An agent that does not speak our version says EPROTONOSUPPORT."""
    assert engine.version_refused(Done(1, errno.EPROTONOSUPPORT, "", 2))
    assert not engine.version_refused(Done(1, errno.EBADMSG, "", 0))


# --- the channel ---------------------------------------------------------------------------------


@pytest.fixture
def channel() -> Iterator[tuple[int, socket.socket]]:
    """Our end, and the agent's."""
    ours_fd, theirs_fd = open_channel()
    with socket.socket(fileno=theirs_fd) as theirs:
        yield ours_fd, theirs
    os.close(ours_fd)


@contextlib.contextmanager
def no_numbers_but(n_free: int) -> Iterator[None]:
    """Have no more fds be opened."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + n_free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def open_fds() -> list[str]:
    """Return the fds that are open, the directory that is read here among them."""
    return sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.mark.parametrize("n_fds", range(engine.FDS_MAX + 1))
def test_a_packet_comes_with_its_fds(channel: tuple[int, socket.socket], n_fds: int) -> None:
    """They are other fds of the same files, and close-on-exec."""
    ours_fd, theirs = channel
    send_packet(theirs.fileno(), PACKETS[0], (0,) * n_fds)
    record, fds = receive_packet(ours_fd)
    assert record == decode(PACKETS[0])
    assert len(set(fds)) == n_fds
    for fd in fds:
        assert os.path.sameopenfile(fd, 0)
        assert not os.get_inheritable(fd)
        os.close(fd)


@pytest.mark.parametrize(
    ("packet", "n_fds", "n_free", "said"),
    [
        (PACKETS[0], engine.FDS_MAX + 1, None, errno.EMSGSIZE),
        (PACKETS[0] + bytes(engine.PACKET_MAX), 2, None, errno.EMSGSIZE),
        (PACKETS[0], engine.FDS_MAX, 0, errno.EMFILE),
        (PACKETS[0], engine.FDS_MAX, engine.FDS_MAX - 1, errno.EMFILE),
    ],
    ids=["too-many-fds", "too-long", "no-number", "too-few-numbers"],
)
def test_a_packet_that_is_cut_is_lost_and_that_is_told(
    channel: tuple[int, socket.socket], packet: bytes, n_fds: int, n_free: int | None, said: int
) -> None:
    """The fds that did come are closed; the next packet is read as if nothing had been."""
    ours_fd, theirs = channel
    before = open_fds()
    socket.send_fds(theirs, [packet], [0] * n_fds)
    few = contextlib.nullcontext() if n_free is None else no_numbers_but(n_free)
    with few, pytest.raises(WireError, match=os.strerror(said)):
        receive_packet(ours_fd)
    assert open_fds() == before
    send_packet(theirs.fileno(), PACKETS[1], ())
    assert receive_packet(ours_fd) == (decode(PACKETS[1]), ())


# --- statistics, signals -------------------------------------------------------------------------


def test_statistics_are_read_as_the_agent_writes_them() -> None:
    """Counters and histograms are seen at once, and still after the agent's end."""
    record = ffi.new("struct mfd_stats *")
    record.calls, record.listeners = 2**50, 3
    record.connect_ns[31], record.socket_ns[0] = 4, 5
    fd = os.memfd_create("statistics")
    try:
        os.write(fd, bytes(ffi.buffer(record)))
        shared = engine.SharedStatistics(fd)
        first = shared.read()
        assert (first.calls, first.listeners, first.connects) == (2**50, 3, 0)
        assert first.connect_ns == (0,) * 31 + (4,)
        assert first.socket_ns == (5,) + (0,) * 31
        record.connects = 6
        os.pwrite(fd, bytes(ffi.buffer(record)), 0)
    finally:
        os.close(fd)
    assert shared.read().connects == 6
    shared.close()


def test_statistics_have_every_counter_of_the_agent() -> None:
    """No counter of struct mfd_stats is forgotten."""
    fields = {name for name, _ in ffi.typeof("struct mfd_stats").fields}
    assert fields - {"version"} == set(Statistics.__match_args__)


def test_signals_are_read_with_their_sender() -> None:
    """A signal that a process sent comes with that process's pid, and does not act."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    reader = engine.SignalReader([signal.SIGUSR1, signal.SIGRTMAX])
    try:
        assert reader.receive_nowait() is None
        for signo in (signal.SIGUSR1, signal.SIGRTMAX):
            signal.pthread_kill(threading.get_ident(), signo)  # others do not block it
        received = [reader.receive_nowait(), reader.receive_nowait()]
        assert received == [
            engine.ReceivedSignal(signal.SIGUSR1, from_kernel=False, pid=os.getpid()),
            engine.ReceivedSignal(signal.SIGRTMAX, from_kernel=False, pid=os.getpid()),
        ]
        assert reader.receive_nowait() is None
    finally:
        os.close(reader.fd)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- the filter ----------------------------------------------------------------------------------

ALLOW = 0x7FFF0000
NOTIFY = 0x7FC00000
ERRNO = 0x00050000
FAST_OPEN = 0x20000000
FOREIGN_ARCH = 0xC00000F3  # RISC-V

# Architecture, then connect, socket, bind, listen, sendto, io_uring_setup, getpid, sendmsg.
NUMBERS = {
    "x86_64": (
        (0xC000003E, 42, 41, 49, 50, 44, 425, 39, 46),
        (0x40000003, 362, 359, 361, 363, 369, 425, 20, 370),
    ),
    "aarch64": (
        (0xC00000B7, 203, 198, 200, 201, 206, 425, 172, 211),
        (0x40000028, 283, 281, 282, 284, 290, 425, 20, 296),
    ),
}
CASES = (  # index above, arguments, what it needs ("": nothing), result
    (1, (3, 0, 16), "", NOTIFY),
    (1, (3, 0, 28), "", NOTIFY),
    (1, (3, 0, 128), "", NOTIFY),
    (1, (3, 0, 15), "strict", NOTIFY),
    (1, (3, 0, 129), "strict", NOTIFY),
    (2, (2, 1, 0), "create", NOTIFY),
    (2, (10, 1 | 0o2004000, 6), "create", NOTIFY),
    (2, (10, 2, 0), "", ALLOW),
    (2, (1, 1, 0), "", ALLOW),
    (3, (3, 0, 16), "", NOTIFY),
    (3, (3, 0, 15), "", ALLOW),
    (4, (3, 10), "", NOTIFY),
    (5, (3, 0, 1, 0, 0x1000, 16), "udp", NOTIFY),
    (5, (3, 0, 1, 0), "", ALLOW),
    (6, (1, 0), "no io_uring", ERRNO | errno.ENOSYS),
    (7, (), "", ALLOW),
    (8, (3, 0, 0), "udp", NOTIFY),
)


def run_filter(words: tuple[int, ...], nr: int, arch: int, args: tuple[int, ...]) -> int:
    """Interpret classic BPF over a struct seccomp_data, as the kernel would."""
    padded = (*args, *(0,) * (6 - len(args)))
    data = struct.pack("<iIQ6Q", nr, arch, 0, *padded)
    accumulator = at = 0
    tests = {
        0x15: lambda k: accumulator == k,
        0x25: lambda k: accumulator > k,
        0x35: lambda k: accumulator >= k,
        0x45: lambda k: accumulator & k != 0,
    }
    while True:
        code, if_true, if_false, k = struct.unpack("<HBBI", struct.pack("<Q", words[at]))
        at += 1
        match code:
            case 0x05:
                at += k
            case 0x20:  # load a word
                (accumulator,) = struct.unpack_from("<I", data, k)
            case 0x54:
                accumulator &= k
            case 0x06:
                return int(k)
            case 0x05:  # jump always
                at += k
            case _:
                at += if_true if tests[code](k) else if_false


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("io_uring", [False, True])
@pytest.mark.parametrize("udp", [False, True])
def test_the_filter_traps_what_a_service_asks_for(
    udp: bool, strict: bool, create: bool, io_uring: bool
) -> None:
    """Each call gets its answer in both ABIs of the machine, and strangers get ENOSYS."""
    words = engine.filter_words(Features(strict=strict, create=create, io_uring=io_uring, udp=udp))
    has = {"": True, "strict": strict, "create": create, "no io_uring": not io_uring, "udp": udp}
    assert 0 < len(words) <= lib.MFD_ENGINE_FILTER_MAX
    for arch, *numbers in NUMBERS[platform.machine()]:
        for which, args, needs, action in CASES:
            found = run_filter(words, numbers[which - 1], arch, args)
            assert found == (action if has[needs] else ALLOW), (arch, which, args)
        for which, args in ((5, (3, 0, 1, FAST_OPEN)), (8, (3, 0, FAST_OPEN))):
            found = run_filter(words, numbers[which - 1], arch, args)
            assert found == (ERRNO | errno.EOPNOTSUPP if strict else NOTIFY)
    assert run_filter(words, 0, FOREIGN_ARCH, ()) == ERRNO | errno.ENOSYS
    if platform.machine() == "x86_64":
        assert run_filter(words, 0x40000000 | 39, 0xC000003E, ()) == ERRNO | errno.ENOSYS
