"""Which namespaces and links a change of the configuration makes and removes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network

from meshfd.changes import Depth, plan_changes, restrict
from meshfd.model import Configuration, Link, LinkEnd, Namespace, Service
from meshfd.netns_plan import NamespacePlan, link_order, plan_namespaces, used_namespaces

NOTHING = NamespacePlan((), (), (), ())


def link(netns: str, peer: str | None, *, name: str = "eth0", peer_name: str = "") -> Link:
    """Return a link; the peer's interface is called as the namespace, unless said."""
    return Link(LinkEnd(netns, name), LinkEnd(peer, peer_name or netns))


def service(netns: str | None, name: str = "") -> Service:
    """Return a service that lives there."""
    return Service(name or f"in-{netns}", ("run",), netns=netns)


SHOP = Namespace("shop", (link("shop", "egress"),))
EGRESS = Namespace("egress", (link("egress", None),), forwarding=True)
ALONE = Namespace("alone", (link("alone", None),))
OUTSIDE = Namespace("outside", (link("outside", "/run/netns/x"),))


def changed(namespace: Namespace) -> Namespace:
    """Return it with another description."""
    return replace(namespace, forwarding=not namespace.forwarding)


def test_used_with_what_links_lead_to() -> None:
    """A link makes both sides used, whichever declares it; our own network joins nothing."""
    every = (SHOP, EGRESS, ALONE)
    assert used_namespaces(every, [service("shop")]) == (SHOP, EGRESS)
    assert used_namespaces(every, [service("egress")]) == (SHOP, EGRESS)
    assert used_namespaces(every, [service("alone"), service("/run/netns/shop")]) == (ALONE,)
    assert used_namespaces(every, [service(None), service("new")]) == ()


def test_nothing_changes() -> None:
    """What is the same stays, in whatever order it is declared."""
    assert plan_namespaces((SHOP, EGRESS), (EGRESS, SHOP)) == NOTHING


def test_first_time() -> None:
    """Everything is made, and every link laid."""
    plan = plan_namespaces((), (SHOP, EGRESS))
    assert plan == NamespacePlan((SHOP, EGRESS), SHOP.links + EGRESS.links, (), ())


def test_one_is_made_anew() -> None:
    """Its links move to the new one: the old ones go first, for their names at the other ends."""
    new = changed(SHOP)
    plan = plan_namespaces((SHOP, EGRESS), (new, EGRESS))
    assert plan == NamespacePlan((new,), SHOP.links, SHOP.links, ())


def test_links_of_others_follow() -> None:
    """A link from one that is kept to one that is made anew is laid again."""
    new = changed(EGRESS)
    plan = plan_namespaces((SHOP, EGRESS), (SHOP, new))
    assert plan == NamespacePlan((new,), SHOP.links + EGRESS.links, SHOP.links + EGRESS.links, ())


def test_one_goes() -> None:
    """Links that are in nobody's way are dropped last."""
    assert plan_namespaces((ALONE, OUTSIDE), (ALONE,)) == NamespacePlan((), (), (), OUTSIDE.links)


def test_one_goes_where_another_comes() -> None:
    """A link goes first when another is laid at the same place: it may have the same address."""
    other = replace(ALONE, name="other", links=(link("other", None),))
    plan = plan_namespaces((ALONE,), (other,))
    assert plan == NamespacePlan((other,), other.links, ALONE.links, ())


def test_outside_is_another_now() -> None:
    """When somebody replaced the namespace at a path, our link to it is laid in the new one.

    The old one goes first, because its name is taken in the namespace that has the link.
    """
    plan = plan_namespaces((OUTSIDE,), (OUTSIDE,), moved={"/run/netns/x"})
    assert plan == NamespacePlan((), OUTSIDE.links, OUTSIDE.links, ())


def test_services_in_what_is_made_anew() -> None:
    """They get a new agent; the others are not touched."""
    services = (service("shop"), service("egress"))
    old = Configuration(services, namespaces=(SHOP, EGRESS))
    plan = plan_changes(old, replace(old, namespaces=(changed(SHOP), EGRESS)))
    ((change,), unchanged) = (plan.changed, plan.unchanged)
    assert (change.new.name, change.depth, unchanged) == ("in-shop", Depth.AGENT, ("in-egress",))


def test_a_reload_of_some_services_keeps_what_others_use() -> None:
    """What services that are not named live in stays as it was, links included."""
    old = Configuration((service("shop"), service("alone")), namespaces=(SHOP, EGRESS, ALONE))
    new = replace(old, namespaces=(changed(SHOP), changed(EGRESS), changed(ALONE)))
    assert restrict(old, new, ["in-shop"]).namespaces == (*new.namespaces[:2], ALONE)
    assert restrict(old, new, ["in-alone"]).namespaces == (SHOP, EGRESS, changed(ALONE))
    gone = replace(new, namespaces=(changed(ALONE),))
    assert restrict(old, gone, ["in-alone"]).namespaces == (changed(ALONE), SHOP, EGRESS)


def test_orders() -> None:
    """A link in words names both ends' keys, and numbers their namespaces."""
    end = LinkEnd(
        "shop",
        "eth0",
        (ip_interface("10.0.0.2/24"),),
        ((ip_network("::/0"), ip_interface("fd00::1").ip),),
    )
    order = link_order(Link(end, LinkEnd(None, "up"), 1400), {None: 0, "shop": 3})
    assert (order.end.key, order.peer.key) == (
        "netns.shop.links.eth0",
        "netns.shop.links.eth0.peer",
    )
    assert (order.end.room, order.peer.room, order.mtu) == (3, 0, 1400)
    assert (order.end.addresses, order.end.routes) == (("10.0.0.2/24",), (("::/0", "fd00::1"),))
