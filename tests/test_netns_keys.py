"""Network namespaces that a configuration declares: every key, and every fault with its line."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from meshfd.model import Link, LinkEnd, Namespace
from meshfd.netns_plan import netns_of
from tests.support.configured import Faults, Load

SERVICE = '[service.a]\ncommand = ["a"]\nnetns = "shop"\n'

FULL = """\
[netns.shop.links.eth0]
addresses = ["fd00:66::2/64", "10.66.0.2/24"]
routes = { "10.0.0.0/8" = "10.66.0.1", "::/0" = "fd00:66::1", "192.0.2.1" = "10.66.0.1" }
mtu = 1400
peer = { netns = "egress", name = "shop0", addresses = ["fd00:66::1/64", "10.66.0.1/24"] }

[netns.shop.links.own]
peer = { name = "shop1", routes = { "fd01::/16" = "fe80::1" } }

[netns.shop.links.named]
peer = { netns = "blue", name = "shop0" }

[netns.shop.links.path]
peer = { netns = "/proc/1/ns/net", name = "shop0" }

[netns.egress]
forwarding = true
"""


def test_every_key(load: Load) -> None:
    """Each key reaches its field, and names mean what is declared before they mean ip-netns(8)."""
    loaded = load(
        SERVICE + FULL,
        '[service.b]\ncommand = ["b"]\nnetns = "egress"\n'
        '[service.c]\ncommand = ["c"]\nnetns = "blue"\n'
        '[service.d]\ncommand = ["d"]\nnetns = "/run/netns/shop"\n',
    )
    eth0 = Link(
        LinkEnd(
            "shop",
            "eth0",
            (ip_interface("fd00:66::2/64"), ip_interface("10.66.0.2/24")),
            (
                (ip_network("10.0.0.0/8"), ip_address("10.66.0.1")),
                (ip_network("192.0.2.1/32"), ip_address("10.66.0.1")),
                (ip_network("::/0"), ip_address("fd00:66::1")),
            ),
        ),
        LinkEnd("egress", "shop0", (ip_interface("fd00:66::1/64"), ip_interface("10.66.0.1/24"))),
        1400,
    )
    own = LinkEnd(None, "shop1", (), ((ip_network("fd01::/16"), ip_address("fe80::1")),))
    shop = Namespace(
        "shop",
        (
            eth0,
            Link(LinkEnd("shop", "own"), own),
            Link(LinkEnd("shop", "named"), LinkEnd("/run/netns/blue", "shop0")),
            Link(LinkEnd("shop", "path"), LinkEnd("/proc/1/ns/net", "shop0")),
        ),
    )
    assert loaded.namespaces == (shop, Namespace("egress", forwarding=True))
    assert [service.netns for service in loaded.services] == [
        "shop",
        "egress",
        "/run/netns/blue",
        "/run/netns/shop",
    ]


def test_names_have_their_meaning_everywhere(load: Load) -> None:
    """Listening sockets, upstreams and a transition name, and use, declared ones as services do."""
    loaded = load(
        '[service.a]\ncommand = ["a"]\ntransition = { ipv4_netns = "old" }\n'
        'listen = [{ address = ":80", netns = "front" }]\n',
        '[upstream.u]\naddresses = ["10.0.0.1:80"]\nendpoints = ["10.0.0.2:80"]\nnetns = "back"\n'
        "[netns.old]\n[netns.front]\n[netns.back]\n"
        '[netns.back.links.e]\npeer = { name = "p", netns = "host" }\n',
    )
    (service,) = loaded.services
    assert netns_of(service) == {"old", "front", "back"}
    assert loaded.namespaces[2].links == (Link(LinkEnd("back", "e"), LinkEnd(None, "p")),)


def test_the_order_of_routes_means_nothing(load: Load) -> None:
    """A reload compares what is meant."""
    text = '[netns.shop.links.e]\naddresses = ["10.0.0.2/24"]\npeer.name = "p"\nroutes = {{ {} }}\n'
    routes = ['"10.1.0.0/16" = "10.0.0.1"', '"10.2.0.0/16" = "10.0.0.3"']
    there, back = (", ".join(some) for some in (routes, routes[::-1]))
    assert load(SERVICE + text.format(there)) == load(SERVICE + text.format(back))


# A link's text, which begins in line 5; what is expected follows "a.toml:".
LINK_FAULTS = [
    (
        'peer.name = "p"\naddresses = ["10.0.0.2"]',
        '6: netns.shop.links.e.addresses[0]: "10.0.0.2" is not an address with its prefix, such as',
    ),
    (
        'peer.name = "p"\naddresses = ["10.0.0.2/33"]',
        '6: netns.shop.links.e.addresses[0]: "10.0.0.2/33" is not an address with its prefix',
    ),
    (
        'peer.name = "p"\naddresses = ["fe80::1%x/64"]',
        '6: netns.shop.links.e.addresses[0]: "fe80::1%x/64" is not an address with its prefix',
    ),
    (
        'peer = { name = "p", addresses = ["ff02::1/64"] }',
        '5: netns.shop.links.e.peer.addresses[0]: "ff02::1/64" is an address that no interface can',
    ),
    (
        'peer.name = "p"\naddresses = ["10.0.0.2/24",\n"10.0.0.2/24"]',
        "7: netns.shop.links.e.addresses[1]: 10.0.0.2/24 is there twice; drop one",
    ),
    (
        'peer.name = "p"\naddresses = ["10.0.0.2/24"]\nroutes = { "::/0" = "10.0.0.1" }',
        (
            '7: netns.shop.links.e.routes."::/0": the gateway 10.0.0.1 is of another family; '
            "write an IPv6 address"
        ),
    ),
    (
        'peer.name = "p"\naddresses = ["10.0.0.2/24"]\nroutes = { "10.1.0.0/8" = "10.0.0.1" }',
        (
            '7: netns.shop.links.e.routes."10.1.0.0/8": "10.1.0.0/8": the address has bits beyond '
            "the prefix; write 10.0.0.0/8"
        ),
    ),
    (
        'mtu = 1000\nroutes = { "::/0" = "fe80::1" }\npeer.name = "p"',
        "5: netns.shop.links.e.mtu: IPv6 needs 1280 at least; write that, or more",
    ),
    (
        'peer.name = "p"\nroutes = { default = "10.0.0.1" }',
        (
            '6: netns.shop.links.e.routes.default: "default" is not a network such as 10.0.0.0/8; '
            'for all destinations write "0.0.0.0/0" or "::/0"'
        ),
    ),
    (
        'peer.name = "p"\nroutes = { "::/0" = "fe80::1%eth0" }',
        '6: netns.shop.links.e.routes."::/0": "fe80::1%eth0" is not a gateway\'s address, such as',
    ),
    (
        'peer.name = "p"\naddresses = ["10.0.0.2/24"]\nroutes = { "0.0.0.0/0" = "10.0.1.1" }',
        (
            "7: netns.shop.links.e.routes: no address of e is in a network with 10.0.1.1, the "
            "gateway to 0.0.0.0/0; give it one, or name another gateway"
        ),
    ),
    (
        (
            'peer.name = "p"\naddresses = ["10.0.0.2/24"]\n'
            'routes = { "10.1.0.1" = "10.0.0.1",\n"10.1.0.1/32" = "10.0.0.1" }'
        ),
        (
            '8: netns.shop.links.e.routes."10.1.0.1/32": this destination is there already, '
            'netns.shop.links.e.routes."10.1.0.1" (a.toml:7); drop one'
        ),
    ),
    ('peer.name = "p"\nmtu = 67', "6: netns.shop.links.e.mtu: expected a whole number from 68 to "),
    (
        'peer = { name = "p", addresses = ["fd00::1/64"] }\nmtu = 1279',
        "6: netns.shop.links.e.mtu: IPv6 needs 1280 at least; write that, or more",
    ),
    ("", "4: netns.shop.links.e.peer: this key is missing; write a table such as { name ="),
    (
        "peer = {}",
        "5: netns.shop.links.e.peer.name: this key is missing; write an interface's name",
    ),
    (
        'peer = { name = "p", netns = "new" }',
        "5: netns.shop.links.e.peer.netns: a new one has nothing but its loopback device; ",
    ),
    (
        'peer = { name = "e", netns = "shop" }',
        '4: netns.shop.links.e: netns.shop.links.e.peer (a.toml:5) is "e" in the same namespace; ',
    ),
    (
        'peer.name = "p"\n[netns.shop.links.f]\npeer.name = "p"',
        (
            "7: netns.shop.links.f.peer: netns.shop.links.e.peer (a.toml:5) is "
            '"p" in the same namespace; choose another name'
        ),
    ),
    (
        'peer = { name = "f", netns = "shop" }\n[netns.shop.links.f]\npeer.name = "p"',
        "6: netns.shop.links.f: netns.shop.links.e.peer (a.toml:5) is ",
    ),
    (
        (
            'peer.name = "p"\naddresses = ["10.0.0.2/24"]\n'
            'routes = { "10.1.0.0/16" = "10.0.0.1" }\n'
            '[netns.shop.links.f]\naddresses = ["10.9.0.2/24"]\npeer.name = "q"\n'
            'routes = { "10.1.0.0/16" = "10.9.0.1" }'
        ),
        (
            "11: netns.shop.links.f.routes: netns.shop.links.e.routes (a.toml:7) leads to "
            "10.1.0.0/16 from the same namespace; drop one"
        ),
    ),
    ('peer.nam = "p"\npeer.name = "p"', "5: netns.shop.links.e.peer.nam: this key is not known; "),
]


@pytest.mark.parametrize(("text", "expected"), LINK_FAULTS)
def test_link_faults(faults: Faults, text: str, expected: str) -> None:
    """Whatever is wrong with a link is one fault at its key and line."""
    (fault,) = faults(f"{SERVICE}[netns.shop.links.e]\n{text}\n")
    assert fault.startswith(f"a.toml:{expected}")


@pytest.mark.parametrize(
    "name", ["", "a" * 16, "ü" * 8, "a/b", "a b", "a\tb", "a:b", "a%d", ".", "..", "all", "default"]
)
def test_interface_names(faults: Faults, name: str) -> None:
    """What the kernel takes for no name is refused, at either end."""
    written = name.replace("\t", "\\t")
    (here,) = faults(f'{SERVICE}[netns.shop.links."{written}"]\npeer.name = "p"\n')
    assert "is no name of an interface; write 1 to 15 bytes" in here
    (there,) = faults(f'{SERVICE}[netns.shop.links.e]\npeer.name = "{written}"\n')
    assert there.startswith("a.toml:5: netns.shop.links.e.peer.name: ")


def test_loopback_is_taken(faults: Faults) -> None:
    """Every namespace has its own."""
    (fault,) = faults(f'{SERVICE}[netns.shop.links.lo]\npeer.name = "p"\n')
    assert fault.startswith('a.toml:4: netns.shop.links.lo: "lo" is in every namespace, and is up')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[netns.shop]\nforwarding = 1", "5: netns.shop.forwarding: expected true or false, fou"),
        ("[netns.shop]\nlink = {}", '5: netns.shop.link: this key is not known; did you mean "li'),
        ("[netns]\nshop = 1", "5: netns.shop: expected a table, found 1"),
        (
            "[netns.shop]\n[netns.blue]",
            '5: netns.blue: no service uses it; drop it, or give a service netns = "blue"',
        ),
        (
            '[netns.shop]\n[netns.blue.links.e]\npeer.name = "p"',
            '5: netns.blue: no service uses it; drop it, or give a service netns = "blue"',
        ),
        (
            '[netns.shop]\n[netns.new]\nlinks.e.peer = { name = "p", netns = "shop" }',
            '5: netns.new: "new" has a meaning of its own in netns = "new"; rename this',
        ),
        (
            '[netns.shop]\n[netns.host]\nlinks.e.peer = { name = "p", netns = "shop" }',
            '5: netns.host: "host" has a meaning of its own in netns = "host"; rename this',
        ),
    ],
)
def test_namespace_faults(faults: Faults, text: str, expected: str) -> None:
    """Whatever is wrong with a namespace is one fault at its key and line."""
    (fault,) = faults(f"{SERVICE}{text}\n")
    assert fault.startswith(f"a.toml:{expected}")


def test_too_many(faults: Faults) -> None:
    """There is a limit, and the first above it is named."""
    names = [f"n{number}" for number in range(129)]
    text = "".join(
        f'[netns.{name}]\n[service.{name}]\ncommand = ["a"]\nnetns = "{name}"\n' for name in names
    )
    (fault,) = faults(text)
    assert fault.startswith("a.toml:513: netns.n128: 128 namespaces are the most; drop some")


def test_used_by_what_could_not_be_read(faults: Faults) -> None:
    """While a file cannot be parsed, nothing is said to be unused."""
    (fault,) = faults("[netns.shop]", '[service.a]\nnetns = "shop')
    assert "this is not TOML" in fault
