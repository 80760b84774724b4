"""Compiled routes: which one decides, whose turn it is, and what has been counted."""

from __future__ import annotations

import errno
import os
import resource
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshfd import routes
from meshfd.model import (
    Ask,
    Balance,
    Deny,
    Destination,
    Endpoint,
    Pass,
    Protocol,
    Redirect,
    Route,
    SocketAddress,
    UnixAddress,
    Upstream,
    Verdict,
)
from meshfd.route_table import RouteTable, compile_routes
from tests.support.processes import held_fds

HERE = SocketAddress(ip_address("127.0.0.1"), 80)
THERE = SocketAddress(ip_address("2001:db8::1"), 443)
UPSTREAMS = (
    Upstream("one", (Endpoint(SocketAddress(ip_address("127.0.0.1"), 8001)),)),
    Upstream(
        "two",
        (
            Endpoint(SocketAddress(ip_address("::1"), 8002), weight=3),
            Endpoint(SocketAddress(ip_address("127.0.0.1"), 8003), weight=0),
            Endpoint(UnixAddress("/run/two.sock")),
        ),
        balance=Balance.RANDOM,
    ),
)
VERDICTS: tuple[Verdict, ...] = (
    Pass(),
    Deny(errno.EACCES),
    Ask(),
    *(Redirect(upstream) for upstream in UPSTREAMS),
)

# A small world, so that networks nest and ranges overlap: a few bits differ, and few ports.
PORTS = (0, 1, 79, 80, 81, 82, 90, 65534, 65535)
IPV4_PREFIXES = (0, 1, 8, 16, 24, 29, 30, 31, 32)
IPV6_PREFIXES = (0, 1, 32, 63, 64, 65, 96, 125, 127, 128)

ipv4 = st.builds(
    lambda high, low: ip_address(bytes([127, 66, high, low])),
    st.sampled_from([0, 1, 128, 255]),
    st.integers(0, 15),
)
ipv6 = st.builds(
    lambda high, middle, low: ip_address(
        bytes([0x20, 0x01, 0x0D, 0xB8, 0, high, 0, 0, middle, *bytes(6), low])
    ),
    st.sampled_from([0, 1, 255]),
    st.sampled_from([0, 127, 128]),
    st.integers(0, 7),
)
addresses = st.builds(SocketAddress, ipv4 | ipv6, st.sampled_from(PORTS))
networks = st.none() | st.one_of(
    st.builds(
        lambda ip, prefix: IPv4Network((ip, prefix), strict=False),
        ipv4,
        st.sampled_from(IPV4_PREFIXES),
    ),
    st.builds(
        lambda ip, prefix: IPv6Network((ip, prefix), strict=False),
        ipv6,
        st.sampled_from(IPV6_PREFIXES),
    ),
)
port_ranges = st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)).map(sorted)
destinations = st.builds(
    lambda network, ports, protocol: Destination(network, ports[0], ports[1], protocol),
    networks,
    port_ranges,
    st.sampled_from(Protocol),
)
tables = st.lists(st.builds(Route, destinations, st.sampled_from(VERDICTS)), max_size=25)


@contextmanager
def compiled(given_routes: list[Route]) -> Iterator[RouteTable]:
    """Compile, and give the fds up afterwards."""
    table = compile_routes(given_routes)
    try:
        yield table
    finally:
        table.close()


def naive_match(
    given_routes: list[Route], address: SocketAddress, protocol: Protocol
) -> int | None:
    """Return the index of the winner, by looking at integers alone."""
    best: tuple[int, int, int] | None = None
    for index, route in enumerate(given_routes):
        network = route.destination.network
        first, last = route.destination.first_port, route.destination.last_port
        if not first <= address.port <= last or route.destination.protocol is not protocol:
            continue
        prefix = 0
        if network is not None:
            if network.version != address.ip.version:
                continue
            prefix = network.prefixlen
            past = network.max_prefixlen - prefix
            if int(network.network_address) >> past != int(address.ip) >> past:
                continue
        rank = (prefix, first - last, -index)
        if best is None or rank > best:
            best = rank
    return None if best is None else -best[2]


@given(tables, st.lists(st.tuples(addresses, st.sampled_from(Protocol)), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_compiled_routes_decide_like_both_matchers(
    given_routes: list[Route], asked: list[tuple[SocketAddress, Protocol]]
) -> None:
    """What C looks up is what the definition says, and what counting bits by hand says."""
    with compiled(given_routes) as table:
        for address, protocol in asked:
            winner = naive_match(given_routes, address, protocol)
            expected = None if winner is None else given_routes[winner]
            assert table.lookup(address, protocol) is expected
            assert routes.match(given_routes, address, protocol) is expected


@pytest.mark.parametrize("text", ["127.66.0.1:80", "[::ffff:127.66.0.1]:80"])
def test_a_mapped_address_is_looked_up_as_ipv4(text: str) -> None:
    """A program that writes an IPv4 address v4-mapped meets the same routes."""
    host, _, port = text.rpartition(":")
    address = SocketAddress(ip_address(host.strip("[]")), int(port))
    route = Route(Destination(IPv4Network("127.66.0.0/16")), Pass())
    with compiled([route, Route(Destination(IPv6Network("::/0")), Ask())]) as table:
        assert table.lookup(address) is route


def test_an_empty_table_passes_everything() -> None:
    """Without a route nothing matches."""
    with compiled([]) as table:
        assert table.lookup(HERE) is None
        assert table.lookup(THERE) is None
        assert table.route_counts() == Counter()
        assert table.endpoint_counts() == Counter()


def test_counts_start_at_zero_and_follow_the_agent() -> None:
    """An agent counts by route and by endpoint in the memfd beside the table."""
    upstream = UPSTREAMS[1]
    one, two = (Route(Destination(None, port, port), Redirect(upstream)) for port in (1, 2))
    pairs = [(upstream, endpoint) for endpoint in upstream.endpoints]
    with compiled([one, two, one]) as table:
        assert table.endpoints == tuple(pairs)  # shared by the routes, so there once
        assert table.route_counts() == {one: 0, two: 0}
        os.pwrite(table.tally_fd, struct.pack("=6Q", 1, 2, 0, 3, 2**40, 7), 0)
        assert table.route_counts() == {one: 1, two: 2}  # the second of the same adds nothing
        assert table.endpoint_counts() == dict(zip(pairs, (3, 2**40, 7), strict=True))


def count(table: RouteTable, *counts: int) -> None:
    """Do what the agent does."""
    os.pwrite(table.tally_fd, struct.pack(f"={len(counts)}Q", *counts), 0)


def test_counts_go_on_in_the_next_table() -> None:
    """What both tables have goes on from where it was, over several tables; the rest is gone."""
    one, two, three = (Route(Destination(None, port, port), Pass()) for port in (1, 2, 3))
    away = Route(Destination(None, 9, 9), Redirect(UPSTREAMS[0]))
    pair = (UPSTREAMS[0], UPSTREAMS[0].endpoints[0])
    with compiled([one, two, one, away]) as first:
        count(first, 1, 20, 300, 7, 8)
        second = compile_routes([three, away, one], former=first)
        count(first, 2, 20, 300, 7, 9)  # it is still in force
    count(second, 5, 0, 1000, 1)
    assert second.route_counts() == {three: 5, away: 7, one: 1302}
    assert second.endpoint_counts() == {pair: 10}
    third = compile_routes([two, one, three], former=second)
    second.close()
    assert third.route_counts() == {two: 0, one: 1302, three: 5}
    fourth = compile_routes([one], former=third)
    third.close()
    count(fourth, 1)
    fourth.close()
    assert fourth.route_counts() == {one: 1303}


def test_counts_stay_when_a_table_is_closed() -> None:
    """The last counts can be read when the fds are gone; a second close() does nothing."""
    route = Route(Destination(None), Pass())
    with compiled([route]) as table:
        count(table, 3)
    table.close()
    assert table.route_counts() == {route: 3}


def test_no_fd_is_left_when_there_are_too_many() -> None:
    """A table that cannot have its counters leaves nothing open."""
    before = held_fds(os.getpid())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limits[1]))  # room for one
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            compile_routes([Route(Destination(None), Pass())])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert held_fds(os.getpid()) == before


def test_counts_are_read_while_the_table_is_closed() -> None:
    """A thread that reads the counts then hears what they were."""
    route = Route(Destination(None), Pass())
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(300):
            table = compile_routes([route])
            count(table, 3)
            with ThreadPoolExecutor(1) as thread:
                readings = thread.submit(lambda: [table.route_counts()[route] for _ in range(20)])  # noqa: B023
                table.close()
            assert set(readings.result()) == {3}
    finally:
        sys.setswitchinterval(interval_s)


def test_a_unix_socket_with_a_long_name_is_refused() -> None:
    """Records of the library's callers are not always parsed ones."""
    upstream = Upstream("x", (Endpoint(UnixAddress("/" + "x" * 107)),))
    with pytest.raises(ValueError, match="the kernel takes no name as long as this"):
        compile_routes([Route(Destination(None), Redirect(upstream))])


def test_a_table_cannot_change_any_more() -> None:
    """The memfd is sealed: what an agent has checked stays as it was."""
    with compiled([Route(Destination(None), Pass())]) as table:
        with pytest.raises(PermissionError):
            os.pwrite(table.table_fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(table.table_fd, 0)
        with pytest.raises(PermissionError):
            os.ftruncate(table.tally_fd, 0)


def test_closing_a_table_closes_its_fds() -> None:
    """Nothing of a table is left after close()."""
    table = compile_routes([])
    table.close()
    for fd in (table.table_fd, table.tally_fd):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@pytest.mark.parametrize(
    "upstream", [Upstream("x", ()), Upstream("x", (Endpoint(HERE, weight=0),))]
)
def test_an_upstream_that_serves_nobody_is_refused(upstream: Upstream) -> None:
    """An upstream needs an endpoint with a weight."""
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)) as caught:
        compile_routes([Route(Destination(None), Redirect(upstream))])
    assert caught.value.errno == errno.EINVAL


def schedule_of(table: RouteTable) -> tuple[int, ...]:
    """Read the turns of a table's only upstream (struct mfd_table, native/routes.h)."""
    size = os.fstat(table.table_fd).st_size
    content = os.pread(table.table_fd, size, 0)
    header = struct.unpack_from("=14I", content)
    n_schedule, schedule_at = header[8], header[13]
    return struct.unpack_from(f"={n_schedule}H", content, schedule_at)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any))
@settings(max_examples=100, deadline=None)
def test_weights_are_turns(weights: list[int]) -> None:
    """In one round each endpoint serves as often as its weight says, and never before its turn."""
    endpoints = tuple(
        Endpoint(SocketAddress(ip_address("127.0.0.1"), port), weight)
        for port, weight in enumerate(weights, start=1)
    )
    with compiled([Route(Destination(None), Redirect(Upstream("x", endpoints)))]) as table:
        turns = schedule_of(table)
    common = sum(weights) // len(turns)
    assert Counter(turns) == {
        index: weight // common for index, weight in enumerate(weights) if weight
    }
    assert all(weight % common == 0 for weight in weights)
    served = Counter[int]()
    for n_turns, index in enumerate(turns, start=1):
        served[index] += 1  # at most the share that it has earned by now, rounded up
        assert served[index] < n_turns * weights[index] / sum(weights) + 1


def test_a_large_table_finds_what_a_small_one_would() -> None:
    """A hundred thousand routes are looked up like ten: samples of every kind agree."""
    n = 100_000
    base = int(ip_address("127.0.0.0"))
    given_routes = [
        Route(Destination(ip_network((base + index * 3, 32)), 80, 90), VERDICTS[index % 5])
        for index in range(n)
    ]
    narrow = Route(Destination(ip_network((base, 32)), 85, 85), Deny(errno.EPERM))
    wide = Route(Destination(ip_network("127.0.0.0/8"), 1, 100), Deny(errno.ETIMEDOUT))
    with compiled([*given_routes, narrow, wide]) as table:
        for index in (*range(0, n, 4999), n - 1):
            ip = ip_address(base + index * 3)
            assert table.lookup(SocketAddress(ip, 90)) is given_routes[index]
            assert table.lookup(SocketAddress(ip, 91)) is wide
            assert table.lookup(SocketAddress(ip + 1, 90)) is wide
            assert table.lookup(SocketAddress(ip, 101)) is None
        assert table.lookup(SocketAddress(ip_address(base), 85)) is narrow
        assert table.lookup(SocketAddress(ip_address(base), 84)) is given_routes[0]
