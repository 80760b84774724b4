"""Put results into tables, for a terminal and as a page, and into a document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tests.bench.metrics import Summary
from tests.bench.part import Result

NOTHING = "-"
NOTE = "median [quartiles], {n} rounds; a / b: how many times worse a is than b in each round"


def tables(result: Result) -> list[list[list[str]]]:
    """Two tables, of lines of cells, the first line as headings: the figures, and the ratios."""
    figures = [["", *(f"{one.label} ({one.unit})" for one in result.part.metrics)]]
    for subject in result.subjects:
        cells = [_cell(result.value(subject, one), _digits) for one in result.part.metrics]
        figures.append([subject, *cells])
    ratios = [["", *(one.label for one in result.part.metrics)]]
    for pair in result.part.pairs:
        cells = [_cell(result.ratio(pair, one), _two_digits) for one in result.part.metrics]
        if {*cells} != {NOTHING}:
            ratios.append([str(pair), *cells])
    return [without_empty_columns(table) for table in (figures, ratios) if len(table) > 1]


def without_empty_columns(table: Sequence[Sequence[str]]) -> list[list[str]]:
    """Leave out what nobody has."""
    kept = [
        index
        for index in range(len(table[0]))
        if index == 0 or any(line[index] != NOTHING for line in table[1:])
    ]
    return [[line[index] for index in kept] for line in table]


def as_text(result: Result) -> str:
    """Lines for a terminal."""
    lines = [f"{result.part.title} ({result.part.name})"]
    for table in tables(result):
        lines += ["", *_align(table)]
    lines += [f"left out: {name}: {why}" for name, why in result.missing.items()]
    return "\n".join([*lines, NOTE.format(n=len(result.rounds)), ""])


def as_markdown(results: Sequence[Result], environment: Mapping[str, Any]) -> str:
    """The same as a page."""
    where = "Linux {kernel}, {machine}, {cpus} CPUs ({cpu}), Python {python}, {date}"
    lines = [f"# meshfd {environment['meshfd']} measured", "", where.format_map(environment), ""]
    if environment["is_quick"]:
        lines += ["A quick run: its figures say nothing.", ""]
    for result in results:
        lines += [f"## {result.part.title} (`{result.part.name}`)"]
        for heading, *rows in tables(result):
            table = [heading, ["---"] * len(heading), *rows]
            lines += ["", *(f"| {' | '.join(row)} |" for row in table)]
        lines += ["", *(f"Left out: {name}: {why}.  " for name, why in result.missing.items())]
        lines += [f"{NOTE.format(n=len(result.rounds))}.", ""]
    return "\n".join(lines)


def document(results: Sequence[Result], environment: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, for a machine: where it ran, every sample, and what the tables say."""
    return {
        **environment,
        "parts": {result.part.name: _document_of(result) for result in results},
    }


def _document_of(result: Result) -> dict[str, Any]:
    return {
        "title": result.part.title,
        "missing": dict(result.missing),
        "rounds": [{name: dict(sample) for name, sample in one.items()} for one in result.rounds],
        "metrics": {
            metric.key: {
                "label": metric.label,
                "unit": metric.unit,
                "values": {
                    subject: asdict(value)
                    for subject in result.subjects
                    if (value := result.value(subject, metric)) is not None
                },
                "times_worse": {
                    str(pair): asdict(ratio)
                    for pair in result.part.pairs
                    if (ratio := result.ratio(pair, metric)) is not None
                },
            }
            for metric in result.part.metrics
        },
    }


def _digits(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _two_digits(value: float) -> str:
    return f"{value:.2f}"


def _cell(summary: Summary | None, form: Callable[[float], str]) -> str:
    if summary is None:
        return NOTHING
    low, high = form(summary.lower_quartile), form(summary.upper_quartile)
    return f"{form(summary.median)} [{low} {high}]"


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return lines
