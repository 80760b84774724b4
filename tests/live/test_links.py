"""Network namespaces that meshfd makes, and the links between them.

Each test has a network of its own for meshfd's; an ordinary user's is in a user namespace.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.command import COMMAND
from tests.support.configured import refused, report_of, start_run, toml_command
from tests.support.need import require_tool
from tests.support.netns import Network, open_network
from tests.support.ordinary_user import NOBODY, as_ordinary_user
from tests.support.processes import Processes, Program, agents_of, sleeps_in_select
from tests.support.talking import alive
from tests.support.waiting import wait_until

ONLY_LOOPBACK: Final = {"lo"}

_REPORT: Final = """
pathlib.Path(sys.argv[1] + ".new").write_text(json.dumps(said))
os.rename(sys.argv[1] + ".new", sys.argv[1])
signal.pause()
"""

# Says where it is, by what no other namespace ever has (SO_NETNS_COOKIE), and stays.
RESIDENT: Final = (
    """
import json, os, pathlib, signal, socket, sys
with socket.socket() as one:
    said = {"pid": os.getpid(), "cookie": one.getsockopt(socket.SOL_SOCKET, 71, 8).hex()}
"""
    + _REPORT
)

# Greets whoever comes, at any of its addresses, by the caller's.
GREETER: Final = """
import socket
everywhere = ("", 18901)
with socket.create_server(everywhere, family=socket.AF_INET6, dualstack_ipv6=True) as listening:
    while True:
        connection, caller = listening.accept()
        with connection:
            connection.sendall(caller[0].removeprefix("::ffff:").encode())
"""

# Goes there, and says what was said, and how large a packet may be on the way (IP_MTU, IPV6_MTU).
VISITOR: Final = (
    """
import json, os, pathlib, signal, socket, sys
said = {}
for host in sys.argv[2:]:
    with socket.create_connection((host, 18901), 20) as one:
        level, name = (socket.IPPROTO_IPV6, 24) if ":" in host else (socket.IPPROTO_IP, 14)
        said[host] = [one.makefile().read(), one.getsockopt(level, name)]
"""
    + _REPORT
)

ROUTED: Final = """
[netns.shop.links.eth0]
addresses = ["fd00:66::2/64", "10.66.0.2/24"]
routes = { "::/0" = "fd00:66::1", "10.0.0.0/8" = "10.66.0.1" }
mtu = 1400
peer = { netns = "egress", name = "shop0", addresses = ["fd00:66::1/64", "10.66.0.1/24"] }

[netns.egress]
forwarding = true

[netns.egress.links.web0]
addresses = ["fd00:67::1/64", "10.67.0.1/24"]
peer.netns = "web"
peer.name = "eth0"
peer.addresses = ["fd00:67::2/64", "10.67.0.2/24"]
peer.routes = { "::/0" = "fd00:67::1", "0.0.0.0/0" = "10.67.0.1" }

[netns.web]
"""


@pytest.fixture
def network(processes: Processes) -> Network:
    """Return the network that meshfd runs in."""
    return open_network(processes)


def python(code: str, *words: str) -> str:
    """Return a service's command line that runs this."""
    return toml_command([sys.executable, "-c", code, *words])


def lonely(name: str, report: Path, more: str = "", peer: str = "") -> str:
    """Return a namespace and its one service; its link is called as it is at the outer end."""
    return (
        f"[netns.{name}]\n{more}\n[netns.{name}.links.eth0]\n"
        f'addresses = ["10.66.0.2/24"]\npeer = {{ name = "{name}", {peer} }}\n'
        f'[service.in-{name}]\nnetns = "{name}"\n{python(RESIDENT, str(report))}\n'
    )


def end(running: Program) -> None:
    """Stop meshfd by SIGTERM; it ends well."""
    running.signal(signal.SIGTERM)
    done = running.finish()
    assert done.code == 0, done.err


def test_two_meet_by_a_router(processes: Processes, tmp_path: Path, network: Network) -> None:
    """A service reaches another over a third namespace, which forwards, with both families."""
    report = tmp_path / "report"
    hosts = ["10.66.0.2", "fd00:66::2"]
    running = start_run(
        processes,
        tmp_path,
        f'{ROUTED}[service.greeter]\nnetns = "shop"\nready = "listen"\n{python(GREETER)}'
        f'[service.visitor]\nnetns = "web"\ndepends_on = ["greeter"]\n'
        f"{python(VISITOR, str(report), *hosts)}",
        prefix=network.prefix,
    )
    said = report_of(running, report)
    assert {host: caller for host, (caller, _) in said.items()} == {
        "10.66.0.2": "10.67.0.2",
        "fd00:66::2": "fd00:67::2",
    }
    end(running)
    assert network.interfaces() == ONLY_LOOPBACK


def test_a_link_to_the_outside(processes: Processes, tmp_path: Path, network: Network) -> None:
    """The other end is in meshfd's own network, with addresses, routes and the same MTU."""
    report = tmp_path / "report"
    host = "fd00:66::2"
    running = start_run(
        processes,
        tmp_path,
        f'[netns.shop.links.eth0]\naddresses = ["{host}/128", "fd00:67::2/64"]\nmtu = 1300\n'
        'peer = { name = "shop0", addresses = ["fd00:67::1/64"], '
        f'routes = {{ "{host}" = "fd00:67::2" }} }}\n'
        f'[service.greeter]\nnetns = "shop"\nready = "listen"\n{python(GREETER)}'
        f'[service.visitor]\ndepends_on = ["greeter"]\n{python(VISITOR, str(report), host)}',
        prefix=network.prefix,
    )
    assert report_of(running, report) == {host: ["fd00:67::1", 1300]}
    assert network.interfaces() == {"lo", "shop0"}
    end(running)
    assert network.interfaces() == ONLY_LOOPBACK


def test_a_link_to_one_of_others(processes: Processes, tmp_path: Path, named: str) -> None:
    """A peer can be in a namespace of `ip netns`, of which nothing else is touched."""
    ip = require_tool("ip")
    report = tmp_path / "report"
    running = start_run(processes, tmp_path, lonely("shop", report, peer=f'netns = "{named}"'))
    report_of(running, report)
    links = [ip, "-n", named, "-o", "link"]
    assert "shop@" in processes.run(links).out
    end(running)
    (line,) = processes.run(links).lines
    assert " lo: " in line


def test_after_sigkill(processes: Processes, tmp_path: Path, network: Network) -> None:
    """When meshfd is killed nothing is left; the next takes the names as soon as they are free."""
    report = tmp_path / "report"
    text = lonely("shop", report)
    running = start_run(processes, tmp_path, text, prefix=network.prefix)
    first = report_of(running, report)
    report.unlink()
    running.signal(signal.SIGKILL)
    running.wait()
    again = start_run(processes, tmp_path, text, prefix=network.prefix)
    second = report_of(again, report)
    assert first["cookie"] != second["cookie"]
    assert not alive(first["pid"])
    assert network.interfaces() == {"lo", "shop"}
    end(again)
    assert network.interfaces() == ONLY_LOOPBACK
    assert processes.running() == [network.keeper]


def test_failure_on_the_way(processes: Processes, tmp_path: Path, network: Network) -> None:
    """When the last thing is refused, what was made before it is gone, and nothing was started."""
    report = tmp_path / "report"
    text = lonely("shop", report) + (
        '[netns.shop.links.eth1]\naddresses = ["10.67.0.2/24"]\npeer.name = "other"\n'
        'routes = { "10.68.0.0/16" = "10.67.0.1", "10.67.0.0/24" = "10.67.0.1" }\n'
    )
    running = start_run(processes, tmp_path, text, prefix=network.prefix)
    assert refused(running) == (
        "meshfd: netns.shop.links.eth1.routes: route 10.67.0.0/24 over 10.67.0.1 of eth1: "
        "File exists"
    )
    assert network.interfaces() == ONLY_LOOPBACK
    assert processes.running() == [network.keeper]
    assert not report.exists()


def test_name_about_to_be_free(processes: Processes, tmp_path: Path, network: Network) -> None:
    """A mark says that it may be one of a meshfd that was killed: it is waited for."""
    report = tmp_path / "report"
    ip = add_link(processes, network, "shop", "alias", "meshfd")
    running = start_run(processes, tmp_path, lonely("shop", report), prefix=network.prefix)
    wait_until(lambda: sleeps_in_select(running.pid, "python"), "the helper's waiting")
    assert processes.run([*ip, "link", "delete", "shop"]).code == 0
    report_of(running, report)
    end(running)


def add_link(processes: Processes, network: Network, name: str, *more: str) -> list[str]:
    """Lay a link by hand; returns the command ip(8) for this network."""
    ip = [*network.prefix, require_tool("ip")]
    added = processes.run([*ip, "link", "add", name, "type", "veth", "peer", "far"])
    assert added.code == 0, added.err
    if more:
        assert processes.run([*ip, "link", "set", name, *more]).code == 0
    return ip


def test_peer_that_is_not_there(processes: Processes, tmp_path: Path, network: Network) -> None:
    """A peer's namespace that is not there is named with its key."""
    text = lonely("shop", tmp_path / "report", peer='netns = "meshfd-none"')
    assert refused(start_run(processes, tmp_path, text, prefix=network.prefix)) == (
        "meshfd: netns.shop.links.eth0.peer.netns: network namespace /run/netns/meshfd-none: "
        "No such file or directory; make it (ip netns add meshfd-none)"
    )


def test_without_privilege(processes: Processes, tmp_path: Path) -> None:
    """An ordinary user is told which privilege is needed, and how to do without."""
    if os.geteuid() == 0:
        os.chown(tmp_path, NOBODY, NOBODY)
    text = lonely("shop", tmp_path / "report")
    line = refused(start_run(processes, tmp_path, text, prefix=as_ordinary_user([])))
    assert line == (
        "meshfd: netns.shop: no network namespace can be made: Operation not permitted; this needs "
        "CAP_SYS_ADMIN: run meshfd as root, or in a user namespace (unshare -Urn)"
    )


@pytest.mark.parametrize("network", ["", "--net"], ids=["here", "new"])
def test_without_privilege_at_the_other_end(
    network: str, processes: Processes, tmp_path: Path, named: str
) -> None:
    """What rights in a user namespace are not enough for is told by the key of that end."""
    words = [require_tool("unshare"), "--user", "--map-root-user", *network.split()]
    text = lonely("shop", tmp_path / "report", peer=f'netns = "{named}"' if network else "")
    line = refused(start_run(processes, tmp_path, text, prefix=words))
    link = "meshfd: netns.shop.links.eth0"
    assert line == (
        f"{link}.peer: network namespace /run/netns/{named}: Operation not permitted; this needs "
        "CAP_SYS_ADMIN: run meshfd as root"
        if network
        else f"{link}: interface eth0: Operation not permitted; this needs CAP_NET_ADMIN in "
        "meshfd's own network namespace: run meshfd as root, or in a user namespace (unshare -Urn)"
    )


def test_a_new_agent_is_in_the_same_one(
    processes: Processes, tmp_path: Path, network: Network
) -> None:
    """A namespace is meshfd's: it outlives everybody in it."""
    report = tmp_path / "report"
    text = lonely("shop", report) + 'restart = "always"\nbackoff = "10ms"\n'
    running = start_run(processes, tmp_path, text, prefix=network.prefix)
    first = report_of(running, report)
    report.unlink()
    (agent,) = agents_of(running.pid)
    os.kill(agent, signal.SIGKILL)
    second = report_of(running, report)
    assert first["pid"] != second["pid"]
    assert first["cookie"] == second["cookie"]
    end(running)


# --- reload ---------------------------------------------------------------------------------------


class Reloads:
    """A run of two services, "shop" and "web", each in a namespace with a link to the outside."""

    def __init__(self, processes: Processes, directory: Path, network: Network) -> None:
        """Start it."""
        self._processes = processes
        self._directory = directory
        self._reports = {name: directory / name for name in ("shop", "web")}
        text = "".join(lonely(name, report) for name, report in self._reports.items())
        self.running = start_run(processes, directory, text, prefix=network.prefix)

    def seen(self, name: str) -> dict[str, Any]:
        """Return what a service says of itself."""
        return report_of(self.running, self._reports[name])

    def reload(self, tail: str = "", **more: str) -> tuple[int, str, str]:
        """Have only these services, and this in their namespaces; code and outputs."""
        text = "".join(lonely(name, self._reports[name], some) for name, some in more.items())
        (self._directory / "meshfd.toml").write_text(text + tail)
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(self._directory)}
        done = self._processes.run([*COMMAND, "reload"], env=environment)
        return done.code, done.out, done.err


def test_reload(processes: Processes, tmp_path: Path, network: Network) -> None:
    """What did not change is untouched; what did is made anew; what goes leaves no link."""
    run = Reloads(processes, tmp_path, network)
    shop, web = run.seen("shop"), run.seen("web")
    assert run.reload(shop="", web="") == (0, "unchanged: in-shop, in-web\n", "")

    (tmp_path / "shop").unlink()
    answer = run.reload(shop="forwarding = true", web="")
    assert answer == (0, "restarted: in-shop\nunchanged: in-web\n", "")
    assert run.seen("shop")["cookie"] not in {shop["cookie"], web["cookie"]}
    assert alive(web["pid"])
    assert network.interfaces() == {"lo", "shop", "web"}
    assert not alive(shop["pid"])

    answer = run.reload(web="")
    assert answer == (0, "removed: in-shop\nunchanged: in-web\n", "")
    assert network.interfaces() == {"lo", "web"}
    end(run.running)
    assert network.interfaces() == ONLY_LOOPBACK


def test_refused_reload(processes: Processes, tmp_path: Path, network: Network) -> None:
    """An interface of somebody else's is left alone, and links that had to go are there again."""
    run = Reloads(processes, tmp_path, network)
    shop = run.seen("shop")
    add_link(processes, network, "taken")
    extra = '[netns.shop.links.eth1]\npeer.name = "taken"\n'
    code, _, error = run.reload(shop=extra, web="forwarding = true")
    assert (code, error) == (
        1,
        (
            "meshfd: netns.shop.links.eth1.peer: interface taken exists already in meshfd's own "
            "network namespace; choose another name, or remove it (ip link delete taken)\n"
        ),
    )
    assert alive(shop["pid"])
    assert network.interfaces() == {"lo", "shop", "web", "taken", "far"}
    assert "10.66.0.2" in addresses_seen_by(shop["pid"])
    end(run.running)
    assert network.interfaces() == {"lo", "taken", "far"}


def test_reload_refused_afterwards(processes: Processes, tmp_path: Path, network: Network) -> None:
    """When namespaces are made anew, and a socket then cannot be opened, all is as it was."""
    run = Reloads(processes, tmp_path, network)
    shop, web = run.seen("shop"), run.seen("web")
    nobodys = '[[service.in-web.listen]]\naddress = "192.0.2.1:80"\n'
    code, _, error = run.reload(nobodys, shop="", web="forwarding = true")
    assert (code, error) == (
        1,
        "meshfd: cannot listen on 192.0.2.1:80: Cannot assign requested address\n",
    )
    assert network.interfaces() == {"lo", "shop", "web"}
    for one in (shop, web):
        assert "10.66.0.2" in addresses_seen_by(one["pid"])
    end(run.running)
    assert network.interfaces() == ONLY_LOOPBACK


def addresses_seen_by(pid: int) -> str:
    """Return the IPv4 addresses of the namespace that a process is in, in some text (proc(5))."""
    return Path("/proc", str(pid), "net/fib_trie").read_text()
