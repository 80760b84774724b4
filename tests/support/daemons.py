"""Real daemons: how each is started, stopped and spoken to. None of them knows of activation."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.builds import Builds
from tests.support.load import Exchange, exchange_http, exchange_line
from tests.support.need import require_tool

NGINX = """\
daemon off;
worker_processes 2;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{ listen 127.0.0.1:{port}; location / {{ {location} }} }}
}}
"""
NGINX_ANSWERS = 'return 200 "served\\n";'
NGINX_ASKS = "proxy_pass http://{host}:{to_port};"

HAPROXY = """\
global
  maxconn 500
defaults
  mode http
  timeout connect 10s
  timeout client 10s
  timeout server 10s
frontend all
  bind 127.0.0.1:{port}
  {answer}
"""
HAPROXY_ANSWERS = 'http-request return status 200 content-type text/plain string "served\\n"'
HAPROXY_ASKS = """\
default_backend all
backend all
  server one {host}:{to_port} check inter 100ms
"""


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon that is to listen on 127.0.0.1:``port``.

    ``graceful``: its stop signal makes it finish what it has accepted.
    """

    port: int
    command: list[str]
    exchange: Exchange
    stop_signal: str = "SIGTERM"
    graceful: bool = False


def nginx(
    port: int, directory: Path, builds: Builds | None, location: str = NGINX_ANSWERS
) -> Daemon:
    """Return nginx with a master and two workers."""
    configuration = directory / "nginx.conf"
    configuration.write_text(NGINX.format(port=port, directory=directory, location=location))
    errors = directory / "error.log"
    command = [require_tool("nginx"), "-e", str(errors), "-c", str(configuration)]
    return Daemon(port, command, exchange_http, "SIGQUIT", graceful=True)


def redis(port: int, directory: Path, builds: Builds | None) -> Daemon:
    """Return redis-server, which stores nothing."""
    command = [require_tool("redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--save", "", "--appendonly", "no", "--dir", str(directory)]
    return Daemon(port, command, exchange_line(b"PING", b"+PONG"))


def haproxy(
    port: int, directory: Path, builds: Builds | None, answer: str = HAPROXY_ANSWERS
) -> Daemon:
    """Return haproxy, which answers by itself."""
    configuration = directory / "haproxy.cfg"
    configuration.write_text(HAPROXY.format(port=port, answer=answer))
    command = [require_tool("haproxy"), "-db", "-f", str(configuration)]
    return Daemon(port, command, exchange_http, "SIGUSR1", graceful=True)


def nginx_proxy(port: int, directory: Path, host: str, to_port: int) -> Daemon:
    """Return nginx, which asks another server."""
    return nginx(port, directory, None, NGINX_ASKS.format(host=host, to_port=to_port))


def haproxy_proxy(port: int, directory: Path, host: str, to_port: int) -> Daemon:
    """Return haproxy, which asks another server, and looks after its health."""
    return haproxy(port, directory, None, HAPROXY_ASKS.format(host=host, to_port=to_port))


def memcached(port: int, directory: Path, builds: Builds) -> Daemon:
    """Return memcached; as root it wants to be told that it may be root."""
    command = [require_tool("memcached"), "-l", "127.0.0.1", "-p", str(port), "-U", "0"]
    if os.geteuid() == 0:
        command += ["-u", "root"]
    return Daemon(port, command, exchange_line(b"version", b"VERSION"))


def http_server(port: int, directory: Path, builds: Builds) -> Daemon:
    """Return the Python standard library's HTTP server."""
    (directory / "index.html").write_text("served\n")
    command = [sys.executable, "-m", "http.server", str(port)]
    command += ["--bind", "127.0.0.1", "--directory", str(directory)]
    return Daemon(port, command, exchange_http)


def go(port: int, directory: Path, builds: Builds) -> Daemon:
    """Return Go's HTTP server, in a program without a C library."""
    return Daemon(port, [builds.go(), "serve", f"127.0.0.1:{port}"], exchange_http)


def java(port: int, directory: Path, builds: Builds) -> Daemon:
    """Return the Java platform's HTTP server."""
    return Daemon(port, [*builds.java(), "serve", "127.0.0.1", str(port)], exchange_http)


DAEMONS: dict[str, Callable[[int, Path, Builds], Daemon]] = {
    "nginx": nginx,
    "redis": redis,
    "haproxy": haproxy,
    "memcached": memcached,
    "http.server": http_server,
    "go": go,
    "java": java,
}
