"""Numbers and tables of `meshfd status`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfd.histogram import percentile_ns
from meshfd.model import Deny, Endpoint, Redirect, Route, Upstream
from meshfd.redirects import RedirectCount, count_redirects
from meshfd.report import describe_exit
from meshfd.routes import parse_address, parse_destination, parse_endpoint
from meshfd.sparing import Sparing
from meshfd.table import format_duration, format_nanoseconds, format_status, format_table

histograms = st.lists(st.integers(0, 50), min_size=32, max_size=32)


@given(st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=50), st.floats(0, 100))
def test_percentile_is_in_the_right_bucket(times_ns: list[int], percent: float) -> None:
    """The percentile lies in the bucket of the time that has that rank."""
    buckets = [0] * 32
    for time_ns in times_ns:
        buckets[time_ns.bit_length() - 1] += 1
    rank = min(max(-(-len(times_ns) * percent // 100), 1), len(times_ns))
    bucket = sorted(times_ns)[int(rank) - 1].bit_length() - 1
    found_ns = percentile_ns(buckets, percent)
    assert found_ns is not None
    assert 1 << bucket <= found_ns <= 1 << bucket + 1


@given(histograms, st.floats(0, 100), st.floats(0, 100))
def test_percentiles_grow(buckets: list[int], one: float, other: float) -> None:
    """A higher percentile is never a shorter time; without calls there is none."""
    low, high = sorted([one, other])
    low_ns, high_ns = percentile_ns(buckets, low), percentile_ns(buckets, high)
    if sum(buckets) == 0:
        assert low_ns is None
    else:
        assert low_ns is not None
        assert high_ns is not None
        assert low_ns <= high_ns


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m00s"), (250, "4m10s"), (7500, "2h05m"), (266400, "3d02h")],
)
def test_durations(seconds: float, text: str) -> None:
    """Durations have at most two units."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("time_ns", "text"), [(None, "-"), (950, "0.9us"), (12345, "12.3us"), (2.5e6, "2.5ms")]
)
def test_short_times(time_ns: float | None, text: str) -> None:
    """Times of calls are in microseconds or milliseconds."""
    assert format_nanoseconds(time_ns) == text


def test_table_aligns_numbers_to_the_right() -> None:
    """Columns of numbers end together, all others begin together, and no line ends in blanks."""
    text = format_table([["NAME", "COUNT"], ["a", "7"], ["longer", "1234"]])
    assert text == "NAME    COUNT\na           7\nlonger   1234"


def test_an_end_has_a_code_or_a_signal() -> None:
    """Statuses are numbers, signals are names."""
    assert (describe_exit(3).code, describe_exit(3).signal) == (3, None)
    assert (describe_exit(-9).code, describe_exit(-9).signal) == (None, "SIGKILL")
    assert describe_exit(-64).signal == "SIGRTMAX"
    assert describe_exit(-40).signal == "SIG40"


def service(name: str, **values: Any) -> dict[str, Any]:
    """Return one service of a status answer."""
    connections: dict[str, Any] = {
        "redirected": 0,
        "passed": 0,
        "denied": 0,
        "connect_p50_ns": None,
        "redirects": [],
    }
    return {
        "name": name,
        "state": "running",
        "state_s": 5,
        "pid": 42,
        "restarts": 0,
        "reason": "",
        "listening": [],
        "connections": connections | values.pop("connections", {}),
        **values,
    }


def test_status_for_people() -> None:
    """Services, their sockets and where connections went are tables; reasons are lines."""
    text = format_status(
        {
            "services": [
                service(
                    "web",
                    listening=[{"name": "http", "address": "127.0.0.1:80", "handed": 2}],
                    connections={
                        "redirected": 3,
                        "redirects": [
                            {"asked": "127.66.0.1:80", "given": "127.0.0.1:81", "count": 3},
                            {"asked": "127.66.0.2:80", "given": None, "count": 1},
                        ],
                    },
                ),
                service("db", state="failed", pid=None, reason="ended with status 1"),
            ]
        }
    )
    assert text.splitlines() == [
        "SERVICE  STATE    FOR  PID  RESTARTS  REDIRECTED  PASSED  DENIED  P50",
        "web      running   5s   42         0           3       0       0    -",
        "db       failed    5s    -         0           0       0       0    -",
        "",
        "SERVICE  LISTENING  ADDRESS       HANDED",
        "web      http       127.0.0.1:80       2",
        "",
        "SERVICE  ASKED          GIVEN         COUNT",
        "web      127.66.0.1:80  127.0.0.1:81      3",
        "web      127.66.0.2:80  denied            1",
        "",
        "db: ended with status 1",
    ]


def test_status_says_what_goes_unseen() -> None:
    """A service that may use io_uring is named; one that may not is not."""
    text = format_status(
        {"services": [service("web", io_uring="allow"), service("db", io_uring="refuse")]}
    )
    assert text.splitlines()[3:] == [
        "",
        "web: io_uring is allowed: what goes through it goes unseen",
    ]


def test_rows_come_from_counts() -> None:
    """A row per endpoint that got connections, with every destination that leads there."""
    busy = Endpoint(parse_address("127.0.0.1:1"))
    idle = Endpoint(parse_address("127.0.0.1:2"))
    upstream = Upstream("shop", (busy, idle))
    first, second = (
        Route(parse_destination(text), Redirect(upstream)) for text in ("127.66.0.1:80", ":81")
    )
    denied = Route(parse_destination("127.66.0.9"), Deny(111))
    unused = Route(parse_destination("127.66.0.8"), Deny(111))
    routes = Counter({first: 4, second: 0, denied: 7, unused: 0})
    endpoints = Counter({(upstream, busy): 4, (upstream, idle): 0})
    assert count_redirects(routes, endpoints) == [
        RedirectCount("127.66.0.9", None, 7),
        RedirectCount("127.66.0.1:80, :81", "127.0.0.1:1", 4),
    ]


def test_rows_name_protocol_and_unix_socket() -> None:
    """They are written as a configuration has them."""
    hidden = Endpoint(parse_endpoint("unix:@hidden"))
    upstream = Upstream("shop", (hidden,))
    route = Route(parse_destination(":80"), Redirect(upstream))
    denied = Route(parse_destination("udp:*"), Deny(1))
    assert count_redirects(Counter({route: 1, denied: 1}), Counter({(upstream, hidden): 1})) == [
        RedirectCount(":80", "unix:@hidden", 1),
        RedirectCount("udp:*", None, 1),
    ]


def test_sparing_lets_one_of_a_kind_through() -> None:
    """Of equal messages one per interval passes, and says how many did not."""
    sparing = Sparing(interval_s=10)
    assert sparing.admit("a", 0) == 0
    assert sparing.admit("a", 5) is None
    assert sparing.admit("b", 5) == 0
    assert sparing.admit("a", 9.9) is None
    assert sparing.admit("a", 10) == 2
