"""What operations may name, and how often: kinds of sockets, targets, options and the like.

The only such place.
A seed means another sequence when this file changes.
"""

from __future__ import annotations

from collections.abc import Mapping

KINDS: Mapping[str, int] = {
    "inet stream 0": 40,
    "inet stream 6": 6,
    "inet6 stream 0": 24,
    "inet6 stream 6": 4,
    "inet dgram 0": 16,
    "inet6 dgram 0": 9,
    "inet stream 262": 2,
    "inet6 stream 262": 2,
    "unix stream 0": 4,
    "unix seqpacket 0": 2,
    "inet stream 17": 1,
    "inet dgram 6": 1,
    "inet seqpacket 0": 1,
    "inet6 stream 999": 1,
    "99 stream 0": 1,
    "inet 77 0": 1,
}
TARGETS_4: Mapping[str, int] = {
    "echo4": 30,
    "greet4": 20,
    "reset4": 10,
    "refuse4": 14,
    "hole4": 10,
    "any4:echo4": 3,
    "port0:echo4": 1,
    "broadcast": 2,
    "hostunreach": 3,
    "netunreach": 3,
    "prohibited": 2,
    "own": 10,
}
TARGETS_6: Mapping[str, int] = {
    "echo6": 24,
    "refuse6": 10,
    "hole6": 8,
    "any6:echo6": 3,
    "any6:echo4": 2,
    "port0:echo6": 1,
    "mapped:echo4": 12,
    "mapped:greet4": 8,
    "mapped:reset4": 4,
    "mapped:refuse4": 6,
    "mapped:hole4": 5,
    "mapped:netunreach": 2,
    "own": 8,
}
TARGETS_UNIX: Mapping[str, int] = {"unix": 5, "nounix": 2}
# Of datagrams no broadcast: it could leave the loopback device.
TARGETS_UDP_4: Mapping[str, int] = {
    "udp-echo4": 30,
    "udp-refuse4": 14,
    "any4:udp-echo4": 3,
    "port0:udp-echo4": 1,
    "hostunreach": 2,
    "netunreach": 2,
    "prohibited": 1,
    "echo4": 1,
    "own": 10,
}
TARGETS_UDP_6: Mapping[str, int] = {
    "udp-echo6": 24,
    "udp-refuse6": 8,
    "mapped:udp-echo4": 20,
    "mapped:udp-refuse4": 6,
    "any6:udp-echo6": 3,
    "port0:udp-echo6": 1,
    "mapped:netunreach": 1,
    "own": 8,
}
# What MPTCP is told of an end comes by a worker, sooner or later: so nobody ends these connections.
TARGETS_MPTCP_4: Mapping[str, int] = {"echo4": 30, "refuse4": 10, "hole4": 6, "hostunreach": 2}
TARGETS_MPTCP_6: Mapping[str, int] = {"echo6": 20, "mapped:echo4": 10, "refuse6": 10, "hole6": 6}
TARGETS: Mapping[str, Mapping[str, int]] = {
    "inet stream": TARGETS_4,
    "inet6 stream": TARGETS_6,
    "inet dgram": TARGETS_UDP_4,
    "inet6 dgram": TARGETS_UDP_6,
    "unix stream": TARGETS_UNIX,
    "inet mptcp": TARGETS_MPTCP_4,
    "inet6 mptcp": TARGETS_MPTCP_6,
}
MISTAKES = (
    *("0", "1", "2", "8", "15", "16", "24", "27", "28", "64", "110", "128", "129", "4096", "-1"),
    *("null", "unmapped", "family", "other"),
)
HOSTS_4 = ("0.0.0.0", "127.0.0.1", "127.0.0.5", "192.0.2.1", "taken:echo4", "taken:refuse4")
HOSTS_6 = ("::", "::1", "2001:db8::1", "::ffff:127.0.0.1", "taken:echo6", "127.0.0.1")
HOSTS_UDP_4 = ("0.0.0.0", "127.0.0.1", "127.0.0.5", "192.0.2.1", "taken:udp-echo4")
HOSTS_UDP_6 = ("::", "::1", "2001:db8::1", "::ffff:127.0.0.1", "taken:udp-echo6")
HOSTS_UNIX = ("127.0.0.1",)
HOSTS: Mapping[str, tuple[str, ...]] = {
    "inet stream": HOSTS_4,
    "inet6 stream": HOSTS_6,
    "inet dgram": HOSTS_UDP_4,
    "inet6 dgram": HOSTS_UDP_6,
    "unix stream": HOSTS_UNIX,
    "inet mptcp": HOSTS_4,
    "inet6 mptcp": HOSTS_6,
}
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "reuseaddr": ("0", "1"),
    "reuseport": ("0", "1"),
    "keepalive": ("0", "1", "7"),
    "broadcast": ("0", "1"),
    "oobinline": ("0", "1"),
    "dontroute": ("0", "1"),
    "priority": ("0", "5", "7", "-1"),
    "mark": ("0", "77"),
    "rcvlowat": ("1", "4", "0", "-1"),
    "sndbuf": ("1", "8192", "100000"),
    "rcvbuf": ("1", "8192", "100000"),
    "linger": ("0 on", "0 off", "1 on"),
    "sndtimeo": ("5", "5", "8", "0", "-5"),
    "rcvtimeo": ("3", "0", "-3"),
    "device": ("lo", "nosuch"),
    "timestamp": ("0", "1"),
    "zerocopy": ("0", "1"),
    "passcred": ("0", "1"),
    "nodelay": ("0", "1"),
    "keepidle": ("60", "0", "40000"),
    "keepintvl": ("30", "0"),
    "keepcnt": ("3", "0", "200"),
    "syncnt": ("3", "0", "200"),
    "linger2": ("10", "0"),  # a negative one resets or not, as the last acknowledgement comes
    "maxseg": ("536", "1400", "1"),
    "usertimeout": ("10000", "0", "-1"),
    "notsentlowat": ("16384", "0"),
    "fastopenconnect": ("1", "0", "2"),
    "fastopennocookie": ("1", "0"),
    "congestion": ("reno", "cubic", "nosuch"),
    "tos": ("16", "255", "0"),
    "ttl": ("64", "7", "0", "256"),
    "recverr": ("0", "1"),
    "mtudiscover": ("0", "2", "9"),
    "freebind": ("0", "1"),
    "transparent": ("0", "1"),
    "noport": ("0", "1"),
    "recvttl": ("0", "1"),
    "recvtos": ("0", "1"),
    "pktinfo": ("0", "1"),
    "recvorigdstaddr": ("0", "1"),
    "v6only": ("0", "1"),
    "recverr6": ("0", "1"),
    "recvpktinfo6": ("0", "1"),
    "recvhoplimit": ("0", "1"),
    "tclass": ("32", "0", "256"),
    "hops": ("9", "-1", "0", "256"),
    "addrform": ("2", "10"),
}
OFTEN_SET = ("sndtimeo", "rcvtimeo", "linger", "v6only", "fastopenconnect", "recverr", "pktinfo")
QUESTIONS = (
    *OPTIONS,
    "error",
    "error",
    "error",
    "type",
    "domain",
    "protocol",
    "acceptconn",
    "netns",
)
NAME_LENGTHS = ("0", "1", "2", "8", "16", "28", "27", "128", "-1", "null")
EVENTS = ("io", "ior", "iort", "iot", "io1", "i", "o", "iorp", "iort1", "h", "p")
FLAGS_OF_RECEIVING = ("", "", "", " peek", " trunc", " peek trunc", " errqueue", " oob")
FLAGS_OF_SENDING = ("", "", "", " confirm", " dontroute", " oob")
WAITS = ("recv", "recvfrom", "recvmsg", "recvmmsg", "accept")
