"""Put the samples of all rounds into a table, and into a document.

Modes of different kinds measure different things: what none of the modes has is no row, and what
one has not is "-" there.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tests.bench.metrics import LIFE_METRICS, METRICS, Metric, Sample, Summary
from tests.bench.rounds import RATIOS

Rounds = Sequence[Mapping[str, Sample]]


def slowdowns(rounds: Rounds, modes: Sequence[str], metric: Metric) -> dict[str, Summary]:
    """The modes' `RATIOS`, taken round by round; keys are like "meshfd/bare"."""
    return {
        f"{of}/{over}": Summary.of(
            [metric.slowdown(samples[of], samples[over]) for samples in rounds]
        )
        for of, over in RATIOS
        if {of, over} <= {*modes_with(rounds, modes, metric)}
    }


def modes_with(rounds: Rounds, modes: Sequence[str], metric: Metric) -> list[str]:
    """The modes that measure this."""
    return [mode for mode in modes if metric.key in rounds[0][mode]]


def metrics_of(rounds: Rounds, modes: Sequence[str]) -> list[Metric]:
    """What these modes measure."""
    return [one for one in (*METRICS, *LIFE_METRICS) if modes_with(rounds, modes, one)]


def values(rounds: Rounds, mode: str, metric: Metric) -> Summary:
    """The mode's own figures, in the metric's unit."""
    return Summary.of([samples[mode][metric.key] / metric.divisor for samples in rounds])


def table(rounds: Rounds, modes: Sequence[str]) -> str:
    """Lines of text: one row a metric, absolute figures first, then slowdowns."""
    pairs = [f"{of}/{over}" for of, over in RATIOS if of in modes and over in modes]
    rows = [["", *(f"{mode}" for mode in modes), *pairs]]
    for metric in metrics_of(rounds, modes):
        ratios = slowdowns(rounds, modes, metric)
        known = modes_with(rounds, modes, metric)
        rows.append(
            [
                f"{metric.label} ({metric.unit})",
                *(
                    _cell(values(rounds, mode, metric), ".1f") if mode in known else "-"
                    for mode in modes
                ),
                *(_cell(ratios[pair], ".2f") if pair in ratios else "-" for pair in pairs),
            ]
        )
    note = f"{len(rounds)} rounds; median [quartiles]; a/b: how many times slower a is than b"
    return "\n".join([*_align(rows), note])


def document(rounds: Rounds, modes: Sequence[str]) -> dict[str, Any]:
    """Everything, for a machine: where it ran, every sample, and what the table says."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "modes": list(modes),
        "rounds": [{mode: dict(samples[mode]) for mode in modes} for samples in rounds],
        "metrics": {
            metric.key: {
                "label": metric.label,
                "unit": metric.unit,
                "values": {
                    mode: asdict(values(rounds, mode, metric))
                    for mode in modes_with(rounds, modes, metric)
                },
                "slowdowns": {
                    pair: asdict(summary)
                    for pair, summary in slowdowns(rounds, modes, metric).items()
                },
            }
            for metric in metrics_of(rounds, modes)
        },
    }


def _cell(summary: Summary, form: str) -> str:
    low, high = summary.lower_quartile, summary.upper_quartile
    return f"{summary.median:{form}} [{low:{form}} {high:{form}}]"


def _align(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *cells])
