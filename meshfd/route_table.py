"""Route tables as agents read them, and what agents count by them.

Theory of operation: the C extension compiles routes into a sealed memfd, which an agent maps.
Beside it stands another, in which the agent counts: for each route how many calls it has decided,
for each endpoint how many connections went there. So reading them asks nothing of a busy agent.

A table that replaces another goes on from its counts, for what both have; what is not in the new
one is forgotten, or we would grow. Finding what both have takes long where there are many routes,
and may be done in another thread (`compile_routes`). Adding it up is put off until somebody asks:
when a table comes into force its predecessor is closed, and counts no more.
Source: native/routes.h, native/routes_compile.c.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from array import array
from collections import Counter
from operator import add

from meshfd.engine import (
    PROTOCOLS,
    at_home,
    ffi,
    fill_address,
    fill_endpoint,
    fill_peer,
    lib,
)
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
    Upstream,
)

TYPE_CHECKING = False  # see meshfd.records
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from typing import Any, Final

_NOTHING: Final[int] = lib.MFD_ANY
_COUNTER_BYTES: Final = 8
_BALANCES: Final = {Balance.ROUND_ROBIN: lib.MFD_ROUND_ROBIN, Balance.RANDOM: lib.MFD_RANDOM}


class Counters:
    """What an agent counts in a memfd, added to what was counted before.

    ``fd`` is the memfd, until `close`; the counts can be read after that, too.
    """

    def __init__(
        self, n: int, former: Counters | None = None, heirs: Sequence[int | None] = ()
    ) -> None:
        """Make ``n``; ``heirs``: for each of the former the one that goes on from it, by index.

        Raises:
            OSError: ENFILE, EMFILE, ENOMEM.

        """
        self._n = n
        self._past = [0] * n
        self._former = former
        self._heirs = heirs
        size = max(n, 1) * _COUNTER_BYTES
        self.fd = os.memfd_create("meshfd-tally", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, size)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self._tally: mmap.mmap | bytes = mmap.mmap(self.fd, size, prot=mmap.PROT_READ)
        except BaseException:
            os.close(self.fd)
            raise

    def read(self) -> list[int]:
        """What has been counted of each, here and before; the former must have been closed."""
        former = self._former
        if former is not None:
            past = [0] * self._n
            for heir, count in zip(self._heirs, former.read(), strict=True):
                if heir is not None:
                    past[heir] += count
            self._past = past
            self._former = None  # last: two threads may add up at once, and come to the same
        tally = array("Q", self._tally[: self._n * _COUNTER_BYTES])
        return list(map(add, self._past, tally))

    def close(self) -> None:
        """Give up the memfd. Who reads in another thread has the mapping, or what was in it."""
        self._tally = self._tally[:]
        os.close(self.fd)


class RouteTable:
    """A compiled route table and its counters; owns two fds until `close`.

    The counts can be read after that, too. Where there are 100,000 routes that takes 0.2 s.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        endpoints: Sequence[tuple[Upstream, Endpoint]],
        table_fd: int,
        former: RouteTable | None,
    ) -> None:
        """Take ``table_fd`` over, unless that fails; see `compile_routes`.

        Raises:
            OSError: as `Counters`.

        """
        self.routes = tuple(routes)
        self.endpoints = tuple(endpoints)
        self.table_fd = table_fd
        counted = self.counted()
        if former is None:
            self.counters = Counters(len(counted))
        else:
            heirs = _heirs(former.counted(), counted)
            self.counters = Counters(len(counted), former.counters, heirs)
        self._is_open = True

    @property
    def tally_fd(self) -> int:
        """The memfd in which an agent counts."""
        return self.counters.fd

    def counted(self) -> tuple[Hashable, ...]:
        """What there is a counter of, in their order."""
        return (*self.routes, *self.endpoints)

    def route_counts(self) -> Counter[Route]:
        """How many calls each route has decided."""
        counts: Counter[Route] = Counter()
        for route, count in zip(self.routes, self.counters.read(), strict=False):
            counts[route] += count  # a route may be there twice
        return counts

    def endpoint_counts(self) -> Counter[tuple[Upstream, Endpoint]]:
        """How many connections went to each endpoint."""
        endpoint_counts = self.counters.read()[len(self.routes) :]
        counts: Counter[tuple[Upstream, Endpoint]] = Counter()
        for given, count in zip(self.endpoints, endpoint_counts, strict=True):
            counts[given] += count
        return counts

    def lookup(self, address: SocketAddress, protocol: Protocol = Protocol.TCP) -> Route | None:
        """The route that an agent would apply to a connection to ``address``; None passes it."""
        record = ffi.new("struct mfd_address *")
        fill_peer(record, address)
        verdict, rule, argument = (ffi.new("uint32_t *") for _ in range(3))
        error = lib.mfd_engine_lookup(
            self.table_fd, PROTOCOLS[protocol], record, verdict, rule, argument
        )
        if error < 0:
            raise OSError(-error, os.strerror(-error))
        return None if rule[0] == _NOTHING else self.routes[rule[0]]

    def close(self) -> None:
        """Give up the fds; an agent that has the table keeps it, and counts for nobody."""
        if self._is_open:
            self._is_open = False
            self.counters.close()
            os.close(self.table_fd)


def _heirs(former: Sequence[Hashable], present: Sequence[Hashable]) -> list[int | None]:
    """For each of the former counters the one that goes on from it, by index."""
    index_of: dict[Hashable, int] = {}
    for index, one in enumerate(present):
        index_of.setdefault(one, index)
    return [index_of.get(one) for one in former]


def _fill_rule(rule: Any, route: Route, upstreams: dict[Upstream, int]) -> None:
    destination: Destination = route.destination
    if destination.network is not None:
        fill_address(rule.network, destination.network.network_address, 0)
        rule.prefix = destination.network.prefixlen
    rule.protocol = PROTOCOLS[destination.protocol]
    rule.first_port = destination.first_port
    rule.last_port = destination.last_port
    match route.verdict:
        case Pass():
            rule.verdict = lib.MFD_PASS
        case Deny(code):
            rule.verdict = lib.MFD_DENY
            rule.error = code
        case Redirect(upstream):
            rule.verdict = lib.MFD_REDIRECT
            rule.upstream = upstreams[upstream]
        case Ask():
            rule.verdict = lib.MFD_ASK


def compile_routes(
    routes: Sequence[Route],
    netns_of: Callable[[Upstream, Endpoint], int] = at_home,
    former: RouteTable | None = None,
) -> RouteTable:
    """Compile routes, in the order in which they were given, into a table for agents.

    Routes to the same upstream share its turn. ``netns_of`` gives the index of the network
    namespace that an endpoint is reached from, as the agent knows it (`engine.encode_netns`).
    ``former`` is the table that this one shall go on from: the one in force, which is to be closed
    before the counts of this one are read.

    Takes some 10 us a route.

    Raises:
        OSError: ENOMEM, EMFILE; E2BIG when the table would exceed 256 MiB; EINVAL when an upstream
            has no endpoint with a weight.

    """
    if former is not None:
        former.counters.read()  # so that it lets go of those before it
    upstreams: dict[Upstream, int] = {}
    for route in routes:
        if isinstance(route.verdict, Redirect):
            upstreams.setdefault(route.verdict.upstream, len(upstreams))
    endpoints = [(upstream, endpoint) for upstream in upstreams for endpoint in upstream.endpoints]
    c_rules = ffi.new("struct mfd_rule[]", max(len(routes), 1))
    c_upstreams = ffi.new("struct mfd_upstream[]", max(len(upstreams), 1))
    c_endpoints = ffi.new("struct mfd_endpoint[]", max(len(endpoints), 1))
    first = 0
    for upstream, index in upstreams.items():
        c_upstreams[index].balance = _BALANCES[upstream.balance]
        c_upstreams[index].first_endpoint = first
        c_upstreams[index].n_endpoints = len(upstream.endpoints)
        first += len(upstream.endpoints)
    for index, (upstream, endpoint) in enumerate(endpoints):
        fill_endpoint(c_endpoints[index], endpoint.address)
        c_endpoints[index].netns = netns_of(upstream, endpoint)
        c_endpoints[index].weight = endpoint.weight
    for index, route in enumerate(routes):
        _fill_rule(c_rules[index], route, upstreams)
    table_fd = lib.mfd_routes_compile(
        c_rules, len(routes), c_upstreams, len(upstreams), c_endpoints, len(endpoints)
    )
    if table_fd < 0:
        raise OSError(-table_fd, os.strerror(-table_fd))
    try:
        return RouteTable(routes, endpoints, table_fd, former)
    except BaseException:
        os.close(table_fd)
        raise
