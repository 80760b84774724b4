"""What clients and `meshfd run` say to each other over the control socket.

Theory of operation: a connection carries one request, a line of JSON, and one answer, a line of
JSON; then the supervisor closes it. Both carry the version ``v``, and a stranger's is refused with
both numbers named.

    {"v": 1, "do": "restart", "names": ["web"]}
    {"v": 1, "ok": true, "result": {...}}
    {"v": 1, "ok": false, "error": "no service is called web"}

Limits: a request has at most REQUEST_BYTES, an answer at most ANSWER_BYTES.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Final

from meshfd.errors import ControlError

VERSION: Final = 1
REQUEST_BYTES: Final = 64 * 1024
ANSWER_BYTES: Final = 16 * 1024 * 1024
UCRED: Final = struct.Struct("iII")  # SO_PEERCRED: pid, uid, gid (unix(7))
COMMANDS: Final = frozenset({"status", "connections", "start", "stop", "restart", "reload"})

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """``command`` is one of COMMANDS; no ``names`` means every service."""

    command: str
    names: tuple[str, ...] = ()


def format_request(request: Request) -> bytes:
    """The request as one line."""
    return _line({"v": VERSION, "do": request.command, "names": list(request.names)})


def parse_request(line: bytes) -> Request:
    """Read a client's line.

    Raises:
        ControlError: it is not a request of this version.

    """
    message = _parse(line)
    command, names = message.get("do"), message.get("names", [])
    if not isinstance(command, str) or command not in COMMANDS:
        text = f"there is no command {command!r}; there are {', '.join(sorted(COMMANDS))}"
        raise ControlError(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        text = "names is not a list of strings"
        raise ControlError(text)
    return Request(command, tuple(names))


def format_result(result: Result) -> bytes:
    """An answer that says yes, as one line."""
    return _line({"v": VERSION, "ok": True, "result": result})


def format_refusal(text: str) -> bytes:
    """An answer that says no, as one line."""
    return _line({"v": VERSION, "ok": False, "error": text})


def parse_answer(line: bytes) -> Result:
    """Read the supervisor's line.

    Raises:
        ControlError: the supervisor refused, with its text, or this is not an answer.

    """
    message = _parse(line)
    result = message.get("result")
    if message.get("ok") is True and isinstance(result, dict):
        return result
    raise ControlError(str(message.get("error", "the answer makes no sense")))


def _line(message: dict[str, object]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _parse(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        text = "this is not a line of JSON"
        raise ControlError(text) from None
    if not isinstance(message, dict):
        text = "this is not a JSON object"
        raise ControlError(text)
    if message.get("v") != VERSION:
        text = f"the other side speaks version {message.get('v')!r}, this one {VERSION}"
        raise ControlError(text)
    return message
