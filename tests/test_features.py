"""What a service needs of its filter."""

from __future__ import annotations

from dataclasses import fields, replace
from ipaddress import IPv4Address

import pytest

from meshfd.features import Features, features_of, features_of_service
from meshfd.model import (
    Endpoint,
    IoUring,
    Redirect,
    Route,
    Service,
    SocketAddress,
    Track,
    Transition,
    Upstream,
)
from meshfd.routes import parse_route

AWAY = Redirect(
    Upstream(
        "away", (Endpoint(SocketAddress(IPv4Address("10.0.0.1"), 80)),), netns="/run/netns/away"
    )
)


def routes(*texts: str) -> tuple[Route, ...]:
    """Routes, shortly."""
    return tuple(parse_route(text, allow_ask=True) for text in texts)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((), Features()),
        (("*=pass", ":80=deny", ":81=127.0.0.1:80", ":82=ask"), Features()),
        (("udp:*=pass",), Features(udp=True)),
        (("*=pass", "udp::53=127.0.0.1:53"), Features(udp=True)),
        ((":80=unix:/run/a",), Features(standins=True)),
        ((":80=127.0.0.1:80,unix:@a", "udp:*=deny"), Features(udp=True, standins=True)),
    ],
)
def test_routes_say_what_is_trapped(texts: tuple[str, ...], expected: Features) -> None:
    """UDP calls are trapped where a route is for UDP, a stand-in's where an endpoint needs one."""
    assert features_of(routes(*texts)) == expected


def test_keys_say_the_rest() -> None:
    """Each key is one feature; a service's are those of its keys and routes together."""
    assert features_of((), strict=True) == Features(strict=True)
    assert features_of((), track=Track.CREATE) == Features(create=True)
    assert features_of((), transparent=True) == Features(transparent=True)
    assert features_of((), io_uring=IoUring.ALLOW) == Features(io_uring=True)
    elsewhere = [replace(one, verdict=AWAY) for one in routes(":80=pass")]
    service = Service(
        "a",
        ("a",),
        strict=True,
        track=Track.CREATE,
        transparent=True,
        io_uring=IoUring.ALLOW,
        routes=(*routes("udp:*=pass", "*=unix:@a"), *elsewhere),
        transition=Transition("/run/netns/egress"),
    )
    assert features_of_service(service) == Features(*[True] * len(fields(Features)))
    assert features_of_service(Service("a", ("a",))) == Features()


def test_features_cover_what_routes_need() -> None:
    """New routes may need less than the program was started with, but not more."""
    both = Features(udp=True, standins=True, elsewhere=True)
    assert both.cover(Features())
    assert both.cover(both)
    assert not replace(both, udp=False).cover(Features(udp=True))
    assert not replace(both, elsewhere=False).cover(Features(elsewhere=True))
    assert not replace(both, standins=False).cover(Features(standins=True))
    assert Features().cover(Features(strict=True, create=True, transparent=True, io_uring=True))
