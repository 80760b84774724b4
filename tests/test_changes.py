"""What a reload has to do."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshfd.changes import (
    AGENT_FIELDS,
    LIVE_FIELDS,
    PROCESS_FIELDS,
    Depth,
    plan_changes,
    restrict,
)
from meshfd.errors import ControlError
from meshfd.model import (
    Backoff,
    Configuration,
    Destination,
    IoUring,
    ListeningSocket,
    OnExit,
    Pass,
    Ready,
    Restart,
    Route,
    Service,
    SocketAddress,
    Track,
    Transition,
)
from meshfd.routes import parse_route


def listening(port: int, *, name: str = "http", backlog: int = 4096) -> ListeningSocket:
    """Return a listening socket on 127.0.0.1."""
    return ListeningSocket(name, SocketAddress(ip_address("127.0.0.1"), port), backlog)


BASE = Service("web", ("server",), listen=(listening(80),))

# One other value for each field but the name, and how deep that change goes.
CHANGES: dict[str, tuple[Any, Depth]] = {
    "command": (("other",), Depth.PROCESS),
    "working_dir": (Path("/srv"), Depth.PROCESS),
    "user": ("nobody", Depth.PROCESS),
    "group": ("nogroup", Depth.PROCESS),
    "environment": ((("A", "1"),), Depth.PROCESS),
    "log": ("null", Depth.PROCESS),
    "rlimits": (((7, 10, 20),), Depth.PROCESS),
    "cgroup": ("mesh/web", Depth.AGENT),
    "cgroup_limits": ((("pids.max", ("100",)),), Depth.LIVE),
    "netns": ("new", Depth.AGENT),
    "transition": (Transition("/run/netns/egress"), Depth.AGENT),
    "strict": (True, Depth.AGENT),
    "track": (Track.CONNECT if BASE.track is Track.CREATE else Track.CREATE, Depth.AGENT),
    "transparent": (True, Depth.AGENT),
    "io_uring": (IoUring.ALLOW, Depth.AGENT),
    "depends_on": (("db",), Depth.LIVE),
    "restart": (Restart.ALWAYS, Depth.LIVE),
    "backoff": (Backoff(1, 2, 3), Depth.LIVE),
    "stop_signal": (2, Depth.LIVE),
    "stop_timeout_s": (1.0, Depth.LIVE),
    "ready": (Ready.LISTEN, Depth.LIVE),
    "on_exit": (OnExit.STOP_ALL, Depth.LIVE),
    "autostart": (False, Depth.LIVE),
    "listen": ((listening(80), listening(81, name="more")), Depth.LIVE),
    "routes": ((Route(Destination(None), Pass()),), Depth.LIVE),
}

services = st.builds(
    Service,
    st.sampled_from(["a", "b", "c", "d"]),
    st.sampled_from([("x",), ("y",)]),
    strict=st.booleans(),
    restart=st.sampled_from(Restart),
    listen=st.lists(st.sampled_from([listening(1), listening(2)]), unique=True).map(tuple),
)
configurations = st.lists(services, unique_by=lambda one: one.name).map(
    lambda some: Configuration(tuple(some))
)


def test_every_field_has_a_depth() -> None:
    """A field that is added to Service cannot be forgotten here."""
    names = {field.name for field in fields(Service)} - {"name"}
    assert set(CHANGES) == names
    assert names == LIVE_FIELDS | PROCESS_FIELDS | AGENT_FIELDS


@pytest.mark.parametrize("field", CHANGES)
def test_depth_of_each_field(field: str) -> None:
    """Each field's change goes as deep as the kernel requires, and no deeper."""
    value, depth = CHANGES[field]
    new = replace(BASE, **{field: value})
    (change,) = plan_changes(Configuration((BASE,)), Configuration((new,))).changed
    assert change.depth is depth


@pytest.mark.parametrize(
    "new",
    [listening(80, name="other"), listening(80, backlog=1)],
    ids=["renamed", "another backlog"],
)
def test_a_port_that_is_given_up_and_taken_needs_a_new_agent(new: ListeningSocket) -> None:
    """A socket cannot be opened beside the one whose port it takes."""
    plan = plan_changes(Configuration((BASE,)), Configuration((replace(BASE, listen=(new,)),)))
    assert plan.changed[0].depth is Depth.AGENT


@pytest.mark.parametrize("text", ["udp::53=127.0.0.1:53", ":80=127.0.0.1:80,unix:/run/a.sock"])
def test_routes_that_need_another_filter_need_a_new_agent(text: str) -> None:
    """A filter cannot be changed: the first such route, and the end of the last, take a new one."""
    plain = (parse_route(":80=127.0.0.1:80"),)
    more = (*plain, parse_route(text))
    for old, new, depth in (
        (plain, more, Depth.AGENT),
        (more, plain, Depth.AGENT),
        (more, (*more, parse_route(":81=pass")), Depth.LIVE),
    ):
        before, after = (Configuration((replace(BASE, routes=one),)) for one in (old, new))
        assert plan_changes(before, after).changed[0].depth is depth


def test_sockets_are_opened_and_closed_alone() -> None:
    """Sockets that stay are not touched when another comes and another goes."""
    old = replace(BASE, listen=(listening(80), listening(81)))
    new = replace(BASE, listen=(listening(80), listening(82)))
    (change,) = plan_changes(Configuration((old,)), Configuration((new,))).changed
    assert (change.depth, change.opened, change.closed) == (
        Depth.LIVE,
        (listening(82),),
        (listening(81),),
    )


@given(configurations)
def test_the_same_configuration_changes_nothing(configuration: Configuration) -> None:
    """A reload of the same files touches no service."""
    plan = plan_changes(configuration, configuration)
    assert (plan.added, plan.removed, plan.changed) == ((), (), ())
    assert plan.unchanged == tuple(service.name for service in configuration.services)


@given(configurations, configurations)
def test_every_service_is_accounted_for(old: Configuration, new: Configuration) -> None:
    """Each service is added, removed, changed or unchanged: one of these."""
    plan = plan_changes(old, new)
    before = {service.name: service for service in old.services}
    after = {service.name: service for service in new.services}
    assert {one.name for one in plan.added} == after.keys() - before.keys()
    assert {one.name for one in plan.removed} == before.keys() - after.keys()
    changed = {change.new.name for change in plan.changed}
    assert changed == {n for n in before.keys() & after.keys() if before[n] != after[n]}
    assert set(plan.unchanged) == (before.keys() & after.keys()) - changed
    assert sorted(itertools.chain(*plan.summary().values())) == sorted(before.keys() | after.keys())


@given(configurations, configurations, st.sets(st.sampled_from(["a", "b", "c", "d"])))
def test_a_reload_of_some_leaves_the_others(
    old: Configuration, new: Configuration, names: set[str]
) -> None:
    """With names given, only these services become what the new files say."""
    before = {service.name: service for service in old.services}
    after = {service.name: service for service in new.services}
    known = names & (before.keys() | after.keys())
    result = {service.name: service for service in restrict(old, new, known).services}
    for name in ["a", "b", "c", "d"]:
        assert result.get(name) == (after if name in known else before).get(name)


def test_a_reload_of_an_unknown_service_is_refused() -> None:
    """A name in neither configuration is an error, not an empty reload."""
    with pytest.raises(ControlError, match="no service is called nowhere"):
        restrict(Configuration((BASE,)), Configuration((BASE,)), ["nowhere", "web"])
