"""Counters of packets in a network namespace, set by nft(8) and iptables(8)."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.support.need import require, require_tool
from tests.support.netns import within

# The packets that a connection begins with, and datagrams; others may come once more or less.
NFT_PACKETS: Final = {
    "SYN": "tcp flags & (syn | ack) == syn",
    "SYN_ACK": "tcp flags & (syn | ack) == syn | ack",
    "datagrams": "meta l4proto udp",
}
IPTABLES_PACKETS: Final = {
    "SYN": "-p tcp --tcp-flags SYN,ACK SYN",
    "SYN_ACK": "-p tcp --tcp-flags SYN,ACK SYN,ACK",
    "datagrams": "-p udp",
}
_NFT_CGROUPS: Final = Path("/sys/fs/cgroup")  # nft(8) looks for paths here alone
_COUNTED: Final = re.compile(r"^\[(\d+):\d+\] -A \w+ .*--comment (\w+)")


def nft_cgroup(directory: Path, path: str) -> str:
    """Return what matches sockets of a cgroup (version 2); ``path``: from the root."""
    require(directory.is_relative_to(_NFT_CGROUPS), f"cgroup v2 is not below {_NFT_CGROUPS}")
    level = len([part for part in path.split("/") if part])
    return f'socket cgroupv2 level {level} "{directory.relative_to(_NFT_CGROUPS)}"'


def _run(netns: str, command: list[str], text: str = "") -> str:
    """Run a tool there; what it has said."""
    command = [*within(netns), require_tool(command[0]), *command[1:]]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def set_nft(netns: str, matches: Mapping[str, str]) -> None:
    """Count each kind of packets that is sent and matches, by the names of both, from 0 on."""
    counters = {
        f"{name}_{kind}": f"{packets} {match}"
        for name, match in matches.items()
        for kind, packets in NFT_PACKETS.items()
    }
    declared = "\n".join(f"counter {name} {{ }}" for name in counters)
    rules = "\n".join(f"{rule} counter name {name}" for name, rule in counters.items())
    chain = f"chain sent {{ type filter hook output priority 0;\n{rules}\n}}"
    table = "table inet belonging"
    _run(
        netns, ["nft", "-f", "-"], f"{table}\ndelete {table}\n{table} {{\n{declared}\n{chain}\n}}\n"
    )


def nft_counts(netns: str) -> dict[str, int]:
    """Return what was counted."""
    listed = json.loads(_run(netns, ["nft", "-j", "list", "counters"]))["nftables"]
    return {one["counter"]["name"]: one["counter"]["packets"] for one in listed if "counter" in one}


def set_iptables(netns: str, matches: Mapping[str, str]) -> None:
    """Count likewise, by iptables' matches."""
    rules = [
        f"-A OUTPUT {packets} {match} -m comment --comment {name}_{kind}"
        for name, match in matches.items()
        for kind, packets in IPTABLES_PACKETS.items()
    ]
    _run(netns, ["iptables-restore"], "\n".join(["*filter", *rules, "COMMIT"]) + "\n")


def iptables_counts(netns: str) -> dict[str, int]:
    """Return what was counted."""
    lines = _run(netns, ["iptables-save", "-c"]).splitlines()
    return {found[2]: int(found[1]) for line in lines if (found := _COUNTED.match(line))}
