"""`meshfd status` for people: the report as aligned columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# Seconds of a unit and its letter, largest first, and those of the next smaller.
_UNITS: Final = ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))
_MILLISECOND_NS: Final = 1e6


def format_status(status: dict[str, Any]) -> str:
    """The answer to a status request, as `meshfd.report` describes it, as text.

    A section that has nothing to say is left out.
    """
    services: list[dict[str, Any]] = status["services"]
    if not services:
        return "no services"
    header = ["SERVICE", "STATE", "FOR", "PID", "RESTARTS", "REDIRECTED", "PASSED", "DENIED", "P50"]
    parts = [format_table([header, *(_service_row(one) for one in services)])]
    listening = [
        [one["name"], entry["name"], entry["address"], str(entry["handed"])]
        for one in services
        for entry in one["listening"]
    ]
    if listening:
        parts.append(format_table([["SERVICE", "LISTENING", "ADDRESS", "HANDED"], *listening]))
    redirects = [row for one in services for row in _redirect_rows(one)]
    if redirects:
        parts.append(format_table([["SERVICE", "ASKED", "GIVEN", "COUNT"], *redirects]))
    unseen = [
        f"{one['name']}: io_uring is allowed: what goes through it goes unseen"
        for one in services
        if one.get("io_uring") == "allow"
    ]
    if unseen:
        parts.append("\n".join(unseen))
    reasons = [f"{one['name']}: {one['reason']}" for one in services if one["reason"]]
    if reasons:
        parts.append("\n".join(reasons))
    return "\n\n".join(parts)


def format_connections(answer: dict[str, Any]) -> str:
    """The answer to a request for connections (`meshfd.connections`) as text."""
    columns = ("service", "protocol", "local", "remote", "state", "netns", "pid", "cookie")
    header = [name.upper() for name in columns]
    rows = [[str(one[name]) or "-" for name in columns] for one in answer["connections"]]
    text = format_table([header, *rows]) if rows else "no connections"
    return f"{text}\n({answer['left_out']} more)" if answer["left_out"] else text


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines, their columns aligned; numbers to the right, all else to the left."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(_is_number(cell) for cell in column[1:]) for column in columns]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    )


def format_duration(seconds: float) -> str:
    """A length of time, to two of its units: 3s, 4m10s, 2h05m, 3d02h."""
    whole = int(seconds)
    for size, unit, below, below_unit in _UNITS:
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // below:02d}{below_unit}"
    return f"{whole}s"


def format_nanoseconds(time_ns: float | None) -> str:
    """A short time with its unit, to two digits or so."""
    if time_ns is None:
        return "-"
    if time_ns < _MILLISECOND_NS:
        return f"{time_ns / 1e3:.1f}us"
    return f"{time_ns / _MILLISECOND_NS:.1f}ms"


def _service_row(service: dict[str, Any]) -> list[str]:
    connections = service["connections"]
    state = service["state"]
    if state == "starting" and service["pid"] is not None:
        state = "starting (not ready)"
    return [
        service["name"],
        state,
        format_duration(service["state_s"]),
        "-" if service["pid"] is None else str(service["pid"]),
        str(service["restarts"]),
        str(connections["redirected"]),
        str(connections["passed"]),
        str(connections["denied"]),
        format_nanoseconds(connections["connect_p50_ns"]),
    ]


def _redirect_rows(service: dict[str, Any]) -> list[list[str]]:
    return [
        [service["name"], row["asked"], row["given"] or "denied", str(row["count"])]
        for row in service["connections"]["redirects"]
    ]


def _is_number(cell: str) -> bool:
    """Also with a unit behind it; an address is none."""
    return cell == "-" or (cell[:1].isdigit() and ":" not in cell)
