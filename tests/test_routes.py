"""Routes, destinations, targets and addresses: notation, canonical form, and which route wins."""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshfd.errors import RouteSyntaxError
from meshfd.model import (
    Ask,
    Balance,
    Deny,
    Destination,
    Endpoint,
    ListeningSocket,
    Pass,
    Protocol,
    Redirect,
    Route,
    SocketAddress,
    UnixAddress,
    Upstream,
    Verdict,
)
from meshfd.routes import (
    DENY_ERRNOS,
    ENDPOINTS_MAX,
    SCHEDULE_MAX,
    WEIGHT_MAX,
    check_endpoints,
    check_name,
    format_destination,
    match,
    parse_address,
    parse_destination,
    parse_endpoint,
    parse_listen,
    parse_listen_address,
    parse_route,
    parse_target,
    route_rank,
)

ports = st.integers(0, 65535)
ipv4s = st.integers(0, 2**32 - 1).map(IPv4Address)
# Few and close together, so that networks contain addresses, and each other.
near_ipv4s = st.integers(0, 7).map(lambda n: IPv4Address((10 << 24) + n))
ipv6s = st.integers(0, 2**128 - 1).map(IPv6Address).filter(lambda ip: ip.ipv4_mapped is None)
near_ipv6s = st.integers(0, 7).map(lambda n: IPv6Address((0x20010DB8 << 96) + n))
near_mapped = near_ipv4s.map(lambda ip: IPv6Address(f"::ffff:{ip}"))
port_ranges = st.tuples(ports, ports).map(sorted) | ports.map(lambda port: [port, port])


@st.composite
def networks(draw: st.DrawFn, *, near: bool = False) -> IPv4Network | IPv6Network:
    """A network of any length whose address has no bits beyond its prefix."""
    ip = draw(near_ipv4s | near_ipv6s if near else ipv4s | ipv6s)
    prefix = draw(
        st.integers(0, ip.max_prefixlen) | st.integers(ip.max_prefixlen - 4, ip.max_prefixlen)
    )
    network = ip_network((int(ip) if ip.version == 4 else ip, prefix), strict=False)
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        return IPv6Network("2001:db8::/32")
    return network


@st.composite
def destinations(draw: st.DrawFn, *, near: bool = False) -> Destination:
    """Any destination; with ``near``, one of few, so that several match one address."""
    network = draw(st.none() | networks(near=near))
    if near:
        first, last = sorted((draw(st.integers(0, 5)), draw(st.integers(0, 5))))
    else:
        first, last = draw(port_ranges | st.just([0, 65535]))
    return Destination(network, first, last, draw(st.sampled_from(Protocol)))


def destination(network: str | None, first: int = 0, last: int = 65535) -> Destination:
    """A destination, shortly."""
    return Destination(None if network is None else ip_network(network), first, last)


def udp(network: str | None, first: int = 0, last: int = 65535) -> Destination:
    """A destination for UDP, shortly."""
    return replace(destination(network, first, last), protocol=Protocol.UDP)


def address(ip: str, port: int) -> SocketAddress:
    """A socket address, shortly."""
    return SocketAddress(ip_address(ip), port)


class TestAddress:
    """``ADDR:PORT`` and ``[IPV6]:PORT``."""

    @given(st.builds(SocketAddress, ipv4s | ipv6s, ports))
    def test_inverse(self, given_address: SocketAddress) -> None:
        """What str() writes, parse_address reads as the same address."""
        assert parse_address(str(given_address)) == given_address

    @given(ipv4s, ports)
    def test_mapped(self, ip: IPv4Address, port: int) -> None:
        """An IPv4-mapped IPv6 address is the IPv4 address that it maps."""
        assert parse_address(f"[::ffff:{ip}]:{port}") == SocketAddress(ip, port)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("127.0.0.1:80", address("127.0.0.1", 80)),
            ("[::1]:443", address("::1", 443)),
            ("[2001:DB8:0::1]:0", address("2001:db8::1", 0)),
            (" 127.0.0.1:080 ", address("127.0.0.1", 80)),
        ],
    )
    def test_reads(self, text: str, expected: SocketAddress) -> None:
        """Spaces around an address, and the many ways to write IPv6, make no difference."""
        assert parse_address(text) == expected

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", '"": this is not an address and a port; write ADDR:PORT, such as 127.0.0.1:80 or'),
            ("::1:80", '"::1:80": an IPv6 address goes in brackets; write ADDR:PORT, such as'),
            ("127.0.0.1", '"127.0.0.1": the port is missing; write 127.0.0.1:PORT'),
            ("[::1]", '"[::1]": the port is missing; write [::1]:PORT'),
            ("127.0.0.1:", '"" is not a port; write a number from 1 to 65535'),
            ("127.0.0.1:http", '"http" is not a port; write a number from 1 to 65535'),
            ("127.0.0.1:65536", '"65536" is not a port'),
            ("127.0.0.1:-1", '"-1" is not a port'),
            ("127.0.0.1:٨٠", '"٨٠" is not a port'),
            ("localhost:80", '"localhost" is not an IPv4 address; names are not looked up, write'),
            ("127.0.0.256:80", '"127.0.0.256" is not an IPv4 address'),
            ("127.0.0.01:80", '"127.0.0.01" is not an IPv4 address'),
            ("[127.0.0.1]:80", '"127.0.0.1" is not an IPv6 address; brackets are for IPv6'),
            ("[::1:80", "this is not an address and a port"),
            ("[fe80::1%eth0]:80", "scope ids are not supported; write a global or unique local"),
            ("127.0.0.1/8:80", "a prefix has no place here; write ADDR:PORT"),
            (":80", '"" is not an IPv4 address'),
            ("127.0.0.1:80\n127.0.0.2:80", r"127.0.0.1:80\n127.0.0.2:80"),
        ],
    )
    def test_refuses(self, text: str, message: str) -> None:
        """What is not an address is refused, with what is wrong and what to write, on one line."""
        with pytest.raises(RouteSyntaxError) as caught:
            parse_address(text)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_endpoint_has_a_port(self) -> None:
        """Port 0 is refused where connections are to go."""
        assert parse_endpoint("127.0.0.1:1") == address("127.0.0.1", 1)
        with pytest.raises(RouteSyntaxError, match="nothing listens on port 0; write 1 to"):
            parse_endpoint("127.0.0.1:0")


@st.composite
def unix_names(draw: st.DrawFn) -> str:
    """A name that fits: a path or an abstract one, of characters that str.strip() keeps."""
    name = draw(st.sampled_from("/@")) + draw(
        st.text(
            st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Zs", "Zl", "Zp", "Cn"]),
            min_size=1,
            max_size=110,
        )
    )
    return name.encode()[:107].decode(errors="ignore")


class TestUnixEndpoint:
    """``unix:/PATH`` and ``unix:@NAME``."""

    @given(unix_names().filter(str.isprintable))
    def test_inverse(self, name: str) -> None:
        """What str() writes, parse_endpoint reads as the same address."""
        assert parse_endpoint(str(UnixAddress(name))) == UnixAddress(name)

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("unix:/run/app.sock", "/run/app.sock"),
            (" unix:@app ", "@app"),
            ("unix:/a b,c", "/a b,c"),
            ("unix:/" + "x" * 106, "/" + "x" * 106),
        ],
    )
    def test_reads(self, text: str, name: str) -> None:
        """An absolute path or an abstract name, spaces around it aside."""
        assert parse_endpoint(text) == UnixAddress(name)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("unix:", '"unix:": write an absolute path, such as unix:/run/app.sock, or unix:@NAME'),
            ("unix:@", "write an absolute path"),
            ("unix:/", "write an absolute path"),
            ("unix:app.sock", "write an absolute path, such as unix:/run/app.sock"),
            ("unix:./app.sock", "write an absolute path"),
            ("unix:/" + "x" * 107, "takes 107 bytes of a unix socket's name, this has 108; make"),
            ("unix:@" + "\u00e4" * 54, "takes 107 bytes of a unix socket's name, this has 109"),
            ("unix:/a\0b", "a unix socket's name is plain text; rename it"),
            ("unix:/a\nb", "a unix socket's name is plain text; rename it"),
        ],
    )
    def test_refuses(self, text: str, message: str) -> None:
        """What cannot be connected to is refused, with what to write."""
        with pytest.raises(RouteSyntaxError) as caught:
            parse_endpoint(text)
        assert message in str(caught.value)
        assert str(caught.value).isprintable()

    def test_is_no_plain_address(self) -> None:
        """Only an endpoint can be a unix socket."""
        for parse in (parse_address, parse_destination, parse_listen):
            with pytest.raises(RouteSyntaxError):
                parse("unix:/run/app.sock")


class TestDestination:
    """``ADDR[/PREFIX][:PORT[-PORT]]``."""

    @given(destinations())
    @example(destination(None))
    @example(destination(None, 0, 0))
    @example(destination("::/0"))
    def test_inverse(self, given_destination: Destination) -> None:
        """What format_destination writes, parse_destination reads as the same destination."""
        assert parse_destination(format_destination(given_destination)) == given_destination

    @given(networks().filter(lambda network: network.version == 4), port_ranges)
    def test_mapped(self, network: IPv4Network, port_range: list[int]) -> None:
        """A mapped prefix of 96 bits and more is the IPv4 prefix that it maps."""
        first, last = port_range
        text = f"[::ffff:{network.network_address}/{96 + network.prefixlen}]:{first}-{last}"
        assert parse_destination(text) == Destination(network, first, last)

    @pytest.mark.parametrize(
        ("text", "expected", "canonical"),
        [
            ("10.0.0.1", destination("10.0.0.1"), "10.0.0.1"),
            ("10.0.0.1/32", destination("10.0.0.1"), "10.0.0.1"),
            ("10.0.0.1:80", destination("10.0.0.1", 80, 80), "10.0.0.1:80"),
            ("10.0.0.1:80-80", destination("10.0.0.1", 80, 80), "10.0.0.1:80"),
            ("10.0.0.0/8:80-90", destination("10.0.0.0/8", 80, 90), "10.0.0.0/8:80-90"),
            ("0.0.0.0/0", destination("0.0.0.0/0"), "0.0.0.0/0"),
            ("[2001:db8::1]", destination("2001:db8::1"), "[2001:db8::1]"),
            ("[2001:db8::/32]:443", destination("2001:db8::/32", 443, 443), "[2001:db8::/32]:443"),
            ("[2001:db8::]/32:443", destination("2001:db8::/32", 443, 443), "[2001:db8::/32]:443"),
            ("[::]/0", destination("::/0"), "[::/0]"),
            (":80", destination(None, 80, 80), ":80"),
            (":80-90", destination(None, 80, 90), ":80-90"),
            ("*:80", destination(None, 80, 80), ":80"),
            ("*", destination(None), "*"),
            (":0-65535", destination(None), "*"),
            ("[::ffff:10.0.0.1]:80", destination("10.0.0.1", 80, 80), "10.0.0.1:80"),
            ("[::ffff:0:0/96]", destination("0.0.0.0/0"), "0.0.0.0/0"),
            ("[::/80]", destination("::/80"), "[::/80]"),
            ("tcp:10.0.0.1:80", destination("10.0.0.1", 80, 80), "10.0.0.1:80"),
            ("tcp:*", destination(None), "*"),
            ("udp:10.0.0.53:53", udp("10.0.0.53", 53, 53), "udp:10.0.0.53:53"),
            ("udp:[2001:db8::1]:53", udp("2001:db8::1", 53, 53), "udp:[2001:db8::1]:53"),
            ("udp:[::ffff:10.0.0.1]", udp("10.0.0.1"), "udp:10.0.0.1"),
            ("udp:10.0.0.0/8:1-9", udp("10.0.0.0/8", 1, 9), "udp:10.0.0.0/8:1-9"),
            (" udp::53 ", udp(None, 53, 53), "udp::53"),
            ("udp:*:53", udp(None, 53, 53), "udp::53"),
            ("udp:*", udp(None), "udp:*"),
        ],
    )
    def test_reads(self, text: str, expected: Destination, canonical: str) -> None:
        """Each notation has its meaning, and one of those with the same meaning is written."""
        assert parse_destination(text) == expected
        assert format_destination(expected) == canonical

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", '"": this is not a destination; write 10.0.0.1:80, 10.0.0.0/8, [2001:db8::/32]'),
            ("2001:db8::/32", "an IPv6 address goes in brackets; write 10.0.0.1:80, 10.0.0.0/8, ["),
            ("::1", "an IPv6 address goes in brackets"),
            ("10.0.0.1/8", "bits beyond the prefix; write 10.0.0.0/8 for the network, or leave"),
            ("[2001:db8::1/32]", "bits beyond the prefix; write [2001:db8::/32] for the network"),
            (
                "[::ffff:10.0.0.1/104]",
                "bits beyond the prefix; write [::ffff:10.0.0.0/104] for the",
            ),
            ("[::ffff:10.0.0.0/90]", "bits beyond the prefix; write [::ffc0:0:0/90] for the"),
            ("10.0.0.0/33", '"33" is not a prefix of IPv4; write a number from 0 to 32'),
            ("[::/129]", '"129" is not a prefix of IPv6; write a number from 0 to 128'),
            ("10.0.0.0/255.0.0.0", '"255.0.0.0" is not a prefix of IPv4'),
            ("10.0.0.0/", '"" is not a prefix of IPv4'),
            ("[::/8]/8", "there are two prefixes; write one"),
            ("/8:80", "a prefix needs an address; write it, or leave the prefix out"),
            ("*/8", "a prefix needs an address"),
            ("10.0.0.1:90-80", "the ports run backwards; write 80-90"),
            ("10.0.0.1:80-", '"" is not a port'),
            ("10.0.0.1:80-90-95", '"90-95" is not a port'),
            ("[fe80::%1/64]:80", "scope ids are not supported"),
            ("[]:80", '"" is not an IPv6 address'),
            ("udp:", '"udp:": this is not a destination; write 10.0.0.1:80'),
            ("udp: ", "this is not a destination"),
            ("UDP:*", '"UDP:*": "*" is not a port'),
            ("udp:tcp:*", '"udp:tcp:*": "*" is not a port'),
            ("udp:10.0.0.1/8", "bits beyond the prefix; write 10.0.0.0/8 for the network"),
            ("udp:::1", "an IPv6 address goes in brackets"),
            ("db.example.com:5432", "names are not looked up, write the address"),
        ],
    )
    def test_refuses(self, text: str, message: str) -> None:
        """What is not a destination is refused, with what is wrong and what to write."""
        with pytest.raises(RouteSyntaxError) as caught:
            parse_destination(text)
        assert message in str(caught.value)
        assert repr(text)[1:-1] in str(caught.value)

    @given(st.text() | st.text("[]:/-.*%0123456789abcdf=", max_size=30))
    def test_never_breaks(self, text: str) -> None:
        """Whatever the text, the parsers give a result or a RouteSyntaxError of one line."""
        for parse in (parse_address, parse_destination, parse_target, parse_route, parse_listen):
            try:
                parse(text)
            except RouteSyntaxError as error:
                assert str(error).isprintable()  # noqa: PT017 -- there may be none


class TestTarget:
    """What happens to connections."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("pass", Pass()),
            (" pass ", Pass()),
            ("deny", Deny(errno.ECONNREFUSED)),
            ("deny=ECONNREFUSED", Deny(errno.ECONNREFUSED)),
            ("deny=enetunreach", Deny(errno.ENETUNREACH)),
            ("deny=EHOSTUNREACH", Deny(errno.EHOSTUNREACH)),
            ("deny=ETIMEDOUT", Deny(errno.ETIMEDOUT)),
            ("deny=EACCES", Deny(errno.EACCES)),
            ("deny=EPERM", Deny(errno.EPERM)),
            ("deny=EADDRNOTAVAIL", Deny(errno.EADDRNOTAVAIL)),
        ],
    )
    def test_words(self, text: str, expected: Verdict) -> None:
        """Pass and deny are words; deny takes an errno that connect(2) can give."""
        assert parse_target(text) == expected

    def test_endpoints(self) -> None:
        """Endpoints in a list become an upstream that is named by them, in canonical form."""
        assert parse_target("127.0.0.1:8080, [::ffff:127.0.0.2]:8081,[0::1]:82") == Redirect(
            Upstream(
                name="127.0.0.1:8080,127.0.0.2:8081,[::1]:82",
                endpoints=(
                    Endpoint(address("127.0.0.1", 8080)),
                    Endpoint(address("127.0.0.2", 8081)),
                    Endpoint(address("::1", 82)),
                ),
            )
        )

    def test_unix_endpoints(self) -> None:
        """Unix sockets and addresses can be mixed."""
        assert parse_target("unix:/run/a.sock,127.0.0.1:80, unix:@b") == Redirect(
            Upstream(
                name="unix:/run/a.sock,127.0.0.1:80,unix:@b",
                endpoints=(
                    Endpoint(UnixAddress("/run/a.sock")),
                    Endpoint(address("127.0.0.1", 80)),
                    Endpoint(UnixAddress("@b")),
                ),
            )
        )

    def test_upstream(self) -> None:
        """A declared upstream is meant by upstream:NAME."""
        shop = Upstream("shop", (Endpoint(address("127.0.0.1", 80)),), balance=Balance.RANDOM)
        assert parse_target("upstream:shop", {"shop": shop}) == Redirect(shop)

    def test_ask(self) -> None:
        """The library's callers may ask; nobody answers for a command line or a file."""
        assert parse_target("ask", allow_ask=True) == Ask()
        assert parse_route(":80=ask", allow_ask=True).verdict == Ask()
        with pytest.raises(RouteSyntaxError, match='"ask" needs a program that answers'):
            parse_target("ask")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("drop", '"drop" is not a target; write ADDR:PORT[,ADDR:PORT...], unix:/PATH, upstrea'),
            ("", '"" is not a target'),
            ("pass=1", '"pass=1" is not a target'),
            (
                "deny=EINVAL",
                'fail with "EINVAL"; write deny=ECONNREFUSED, ENETUNREACH, EHOSTUNREACH',
            ),
            ("deny=", 'fail with ""; write deny=ECONNREFUSED, ENETUNREACH'),
            ("deny=111", 'fail with "111"; write deny='),
            ("127.0.0.1:80,", '"": this is not an address and a port'),
            ("127.0.0.1:0", "nothing listens on port 0"),
            ("unix:/a,unix:/a", "endpoint unix:/a is there twice; write it once"),
            ("unix:/a,unix:b", '"unix:b": write an absolute path'),
            ("127.0.0.1:1,127.0.0.1:1", "endpoint 127.0.0.1:1 is there twice; write it once"),
            ("[::ffff:127.0.0.1]:1,127.0.0.1:1", "endpoint 127.0.0.1:1 is there twice"),
            ("upstream:shp", 'there is no upstream "shp"; did you mean "shop"?'),
            ("upstream:db", 'there is no upstream "db"; write "shop"'),
            ("10.0.0.0/8:80", "a prefix has no place here"),
            ("http://127.0.0.1:80", '"http://127.0.0.1:80": this is not an address and a port'),
        ],
    )
    def test_refuses(self, text: str, message: str) -> None:
        """What is not a target is refused, with what is wrong and what there is instead."""
        shop = Upstream("shop", (Endpoint(address("127.0.0.1", 80)),))
        with pytest.raises(RouteSyntaxError) as caught:
            parse_target(text, {"shop": shop})
        assert message in str(caught.value)

    def test_no_upstreams(self) -> None:
        """Where no upstream is defined, that is said."""
        with pytest.raises(RouteSyntaxError, match="none is defined, write ADDR:PORT"):
            parse_target("upstream:shop")

    def test_every_errno_is_offered(self) -> None:
        """The errnos that deny accepts are those of connect(2) and ip(7) that refuse."""
        assert set(DENY_ERRNOS) == {
            "ECONNREFUSED",
            "ENETUNREACH",
            "EHOSTUNREACH",
            "ETIMEDOUT",
            "EACCES",
            "EPERM",
            "EADDRNOTAVAIL",
        }


class TestEndpoints:
    """What can be one upstream."""

    @staticmethod
    def _endpoints(*weights: int) -> list[Endpoint]:
        return [
            Endpoint(address(f"127.0.{n >> 8}.{n & 255}", 80), w) for n, w in enumerate(weights)
        ]

    @pytest.mark.parametrize(
        "weights",
        [(1,), (0, 1), (WEIGHT_MAX,) * ENDPOINTS_MAX, (WEIGHT_MAX, 1), (64,) * 1023 + (0,)],
    )
    def test_accepts(self, weights: tuple[int, ...]) -> None:
        """Weights count relative to each other, and one alone may be more than 0."""
        check_endpoints(self._endpoints(*weights))

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            ((), "there is no endpoint; write at least one"),
            ((0, 0), "every weight is 0, so no endpoint gets connections; raise one"),
            ((1,) * (ENDPOINTS_MAX + 1), "1025 endpoints are too many; write at most 1024"),
            ((-1, 1), "weight -1 of 127.0.0.0:80 is not from 0 to 1000"),
            ((1, 1001), "weight 1001 of 127.0.0.1:80 is not from 0 to 1000"),
            (
                (999, *((1000,) * 65)),
                f"repeat after 65999 turns, at most {SCHEDULE_MAX} can be kept",
            ),
        ],
    )
    def test_refuses(self, weights: tuple[int, ...], message: str) -> None:
        """Limits are said with what was given."""
        with pytest.raises(RouteSyntaxError) as caught:
            check_endpoints(self._endpoints(*weights))
        assert message in str(caught.value)


class TestRoute:
    """``DEST=TARGET``."""

    def test_reads(self) -> None:
        """The first "=" parts destination and target."""
        assert parse_route("10.0.0.0/8:80=deny=EPERM") == Route(
            destination("10.0.0.0/8", 80, 80), Deny(errno.EPERM)
        )
        shop = Upstream("shop", (Endpoint(address("127.0.0.1", 80)),))
        assert parse_route(":80=upstream:shop", {"shop": shop}).verdict == Redirect(shop)

    def test_refuses(self) -> None:
        """A route without a target is refused, and an example given."""
        with pytest.raises(RouteSyntaxError, match="is not a route; write DEST=TARGET, such"):
            parse_route("10.0.0.1:80")

    @pytest.mark.parametrize("target", ["unix:/run/dns.sock", "127.0.0.1:53,unix:@dns"])
    def test_udp_goes_to_no_unix_socket(self, target: str) -> None:
        """Programs' datagram sockets cannot stand for a stream."""
        with pytest.raises(
            RouteSyntaxError, match=r'"udp::53": UDP cannot go to a unix socket, .* write ADDR:PORT'
        ):
            parse_route(f"udp::53={target}")
        assert parse_route(f"tcp::53={target}").destination == destination(None, 53, 53)
        assert parse_route("udp::53=127.0.0.1:53").destination == udp(None, 53, 53)


class TestListen:
    """``[NAME=]ADDRESS``."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("127.0.0.1:80", ListeningSocket("127.0.0.1:80", address("127.0.0.1", 80))),
            ("web=127.0.0.1:80", ListeningSocket("web", address("127.0.0.1", 80))),
            ("[::1]:80", ListeningSocket("[::1]:80", address("::1", 80))),
            (":80", ListeningSocket("[::]:80", address("::", 80))),
            ("*:80", ListeningSocket("[::]:80", address("::", 80))),
            ("web=*:80", ListeningSocket("web", address("::", 80))),
            ("0.0.0.0:80", ListeningSocket("0.0.0.0:80", address("0.0.0.0", 80))),
            (
                "[::ffff:127.0.0.1]:80",
                ListeningSocket("[::ffff:127.0.0.1]:80", address("::ffff:127.0.0.1", 80)),
            ),
        ],
    )
    def test_reads(self, text: str, expected: ListeningSocket) -> None:
        """:PORT and *:PORT mean both families; a mapped address stays; the name may be left out."""
        assert parse_listen(text) == expected

    @given(st.builds(SocketAddress, ipv4s | ipv6s | near_mapped, st.integers(1, 65535)))
    def test_inverse(self, given_address: SocketAddress) -> None:
        """What str() writes, parse_listen_address reads, mapped addresses included."""
        assert parse_listen_address(str(given_address)) == given_address

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("8080", '"8080": write :8080 for this port of any address'),
            ("127.0.0.1:0", "write the port that the program binds, not 0"),
            (":0", "write the port that the program binds, not 0"),
            ("::80", "an IPv6 address goes in brackets"),
            ("=127.0.0.1:80", '"" cannot be a name'),
            ("a b=127.0.0.1:80", '"a b" cannot be a name: write 1 to 60 letters, digits'),
            ("web=", '"": this is not an address and a port'),
            ("[fe80::1%2]:80", "scope ids are not supported"),
        ],
    )
    def test_refuses(self, text: str, message: str) -> None:
        """What cannot be listened on is refused, with what to write."""
        with pytest.raises(RouteSyntaxError) as caught:
            parse_listen(text)
        assert message in str(caught.value)


@pytest.mark.parametrize("name", ["a", "_", "web-1.example", "9", "x" * 60])
def test_names(name: str) -> None:
    """Names are made of what is safe in file names and command lines."""
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "-a", "a b", "a/b", "ä", "x" * 61, "a\n"])
def test_wrong_names(name: str) -> None:
    """Names that could be a path, an option or two words are refused."""
    with pytest.raises(RouteSyntaxError, match="cannot be a name: write 1 to 60 letters"):
        check_name(name)


def second_opinion(routes: list[Route], asked: SocketAddress, protocol: Protocol) -> Route | None:
    """Which route wins, decided on bits and pairwise comparison, not on ipaddress and min()."""
    ip = int(asked.ip)
    version = asked.ip.version
    if version == 6 and ip >> 32 == 0xFFFF:
        ip, version = ip & 0xFFFFFFFF, 4
    bits = 32 if version == 4 else 128
    best: tuple[int, int, Route] | None = None
    for route in routes:
        network = route.destination.network
        prefix = 0
        if route.destination.protocol != protocol:
            continue
        if network is not None:
            prefix = network.prefixlen
            shift = bits - prefix
            if network.version != version or int(network.network_address) >> shift != ip >> shift:
                continue
        n_ports = len(range(route.destination.first_port, route.destination.last_port + 1))
        if asked.port not in range(route.destination.first_port, route.destination.last_port + 1):
            continue
        if best is None or prefix > best[0] or (prefix == best[0] and n_ports < best[1]):
            best = (prefix, n_ports, route)
    return None if best is None else best[2]


class TestMatch:
    """Which route decides."""

    @given(
        st.lists(st.builds(Route, destinations(near=True), st.builds(Deny, st.integers(1, 99)))),
        st.builds(SocketAddress, near_ipv4s | near_ipv6s | near_mapped, st.integers(0, 5)),
        st.sampled_from(Protocol),
    )
    def test_second_opinion(
        self, routes: list[Route], asked: SocketAddress, protocol: Protocol
    ) -> None:
        """An independent implementation picks the very same route."""
        assert match(routes, asked, protocol) is second_opinion(routes, asked, protocol)

    def test_protocol(self) -> None:
        """However specific a route is, it says nothing of the other protocol."""
        wide, narrow = parse_route("*=deny"), parse_route("udp:10.0.0.1:53=pass")
        asked = address("10.0.0.1", 53)
        assert match([wide, narrow], asked) is wide
        assert match([wide, narrow], asked, Protocol.UDP) is narrow
        assert match([wide], asked, Protocol.UDP) is None

    @pytest.mark.parametrize(
        ("routes", "asked", "winner"),
        [
            ([], "10.0.0.1:80", None),
            (["10.0.0.2", ":81"], "10.0.0.1:80", None),
            (["10.0.0.0/8:80", "10.0.0.1"], "10.0.0.1:80", 1),
            (["10.0.0.1", "10.0.0.1:80"], "10.0.0.1:80", 1),
            (["10.0.0.1:80-90", "10.0.0.1:80-89", "10.0.0.1:79-88"], "10.0.0.1:80", 1),
            (["10.0.0.1:80-81", "10.0.0.1:79-80"], "10.0.0.1:80", 0),
            (["*", "0.0.0.0/0"], "10.0.0.1:80", 0),
            (["0.0.0.0/0", "*"], "10.0.0.1:80", 0),
            (["0.0.0.0/0", ":80"], "10.0.0.1:80", 1),
            (["0.0.0.0/0", "*"], "[::1]:80", 1),
            (["[::/0]", "10.0.0.0/8"], "[::ffff:10.0.0.1]:80", 1),
            (["[::/0]"], "10.0.0.1:80", None),
        ],
    )
    def test_specificity(self, routes: list[str], asked: str, winner: int | None) -> None:
        """The longest prefix wins, then the fewest ports, then the first given."""
        given_routes = [parse_route(f"{text}=pass") for text in routes]
        won = match(given_routes, parse_listen_address(asked))
        assert won is (None if winner is None else given_routes[winner])

    def test_rank(self) -> None:
        """A lower rank is more specific; any address is as unspecific as /0."""
        texts = ["10.0.0.1:80", "10.0.0.1:80", "10.0.0.1", "10.0.0.0/8:80", ":80", "[::/0]"]
        ranks = [route_rank(parse_route(f"{text}=pass"), n) for n, text in enumerate(texts)]
        assert ranks == sorted(ranks)
        assert ranks[4][0] == ranks[5][0] == 0
