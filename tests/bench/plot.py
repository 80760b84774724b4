"""Draw what was measured: a panel of bars for each metric that a part wants to be shown and has.

Bars are medians, whiskers quartiles. Where the largest is many times the smallest the scale is
logarithmic. Subjects that are meshfd have a colour of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench.errors import MissingError
from tests.bench.metrics import Metric, Summary
from tests.bench.part import Result
from tests.bench.ways import MESHFD

COLUMNS: Final = 2
PANEL_WIDTH_IN: Final = 6.5
BAR_HEIGHT_IN: Final = 0.24
FRAME_HEIGHT_IN: Final = 0.9  # title and axis of a panel
DPI: Final = 110
OURS: Final = "#2a6f97"
OTHERS: Final = "#b8bfc6"
LOGARITHMIC_FROM: Final = 30.0


def plot(results: Sequence[Result], directory: Path) -> None:
    """Write bench.png and bench.svg.

    Raises:
        MissingError: matplotlib is not installed.

    """
    try:
        import matplotlib.figure  # noqa: PLC0415 -- an extra
    except ImportError:
        raise MissingError("matplotlib is not installed (pip: the extra bench)") from None
    panels = [
        (result, metric)
        for result in results
        for metric in result.part.metrics
        if metric.key in result.part.plotted and _bars(result, metric)
    ]
    if not panels:
        return
    rows = [panels[i : i + COLUMNS] for i in range(0, len(panels), COLUMNS)]
    heights = [max(_height(*panel) for panel in row) for row in rows]
    figure = matplotlib.figure.Figure(
        figsize=(COLUMNS * PANEL_WIDTH_IN, sum(heights)), layout="constrained"
    )
    grid = figure.add_gridspec(len(rows), COLUMNS, height_ratios=heights)
    for index, row in enumerate(rows):
        for column, (result, metric) in enumerate(row):
            _draw(figure.add_subplot(grid[index, column]), result, metric)
    for name in ("bench.png", "bench.svg"):
        figure.savefig(directory / name, dpi=DPI, metadata={"Date": None} if "svg" in name else {})


def _bars(result: Result, metric: Metric) -> dict[str, Summary]:
    values = {name: result.value(name, metric) for name in result.subjects}
    return {name: value for name, value in values.items() if value is not None}


def _height(result: Result, metric: Metric) -> float:
    return FRAME_HEIGHT_IN + BAR_HEIGHT_IN * len(_bars(result, metric))


def _draw(axes: Any, result: Result, metric: Metric) -> None:
    bars = _bars(result, metric)
    medians = [value.median for value in bars.values()]
    whiskers = [
        [value.median - value.lower_quartile for value in bars.values()],
        [value.upper_quartile - value.median for value in bars.values()],
    ]
    colours = [OURS if name.startswith(MESHFD) else OTHERS for name in bars]
    axes.barh(list(bars), medians, xerr=whiskers, color=colours, ecolor="#444444", capsize=2)
    axes.invert_yaxis()
    if min(medians) > 0 and max(medians) / min(medians) > LOGARITHMIC_FROM:
        axes.set_xscale("log")
        axes.tick_params(axis="x", which="minor", labelbottom=False)
    better = "more is better" if metric.is_rate else "less is better"
    axes.set_title(f"{result.part.title}: {metric.label}", loc="left", fontsize=10)
    axes.set_xlabel(f"{metric.unit}; {better}", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
