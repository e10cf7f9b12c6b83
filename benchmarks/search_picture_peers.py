"""The lower half of search.py's picture, other systems, and what both halves share."""

from collections.abc import Callable, Iterator
from typing import Any

from matplotlib.axes import Axes

__all__ = ["BLUE", "FAINT", "GREY", "INK", "PALE_BLUE", "Result", "measured_whole", "peers", "title"]

BLUE, PALE_BLUE, GREY, INK, FAINT = "#2a6f97", "#a9cfe2", "#9aa5ab", "#222222", "#666666"
Result = dict[str, Any]


def title(axis: Axes, text: str, under: str) -> None:
    axis.set_title(text, loc="left", fontsize=11, pad=22)
    axis.text(0, 1.02, under, transform=axis.transAxes, fontsize=8.5, color=FAINT, va="bottom")


def measured_whole(section: Result) -> Result:
    """The systems that were there and did everything."""
    return {name: one for name, one in section.get("peers", {}).items() if "cold_s" in one}


def peers(figure: Any, section: Result) -> None:
    """One row a system, quickest first, on logarithmic scales; ours is the median of what it did beside each."""
    measured = measured_whole(section)
    names = sorted(measured, key=lambda name: float(measured[name]["p50_ms"]["median"]))
    colours = [BLUE, *(PALE_BLUE if measured[name]["sealed"] else GREY for name in names)]
    axes = figure.subplots(1, 4, sharey=True)
    for axis, (text, under, mine, theirs, digits) in zip(axes, columns(section, measured), strict=True):
        values = [mine, *(theirs(measured[name]) for name in names)]
        axis.barh(range(len(values)), values, color=colours, height=0.66)
        axis.set_xscale("log")
        axis.axvline(mine, color=BLUE, linewidth=0.9, linestyle=(0, (3, 2)))
        for at, one in enumerate(values):
            axis.text(one * 1.08, at, f"{one:,.{digits}f}", va="center", fontsize=8.5)
        axis.set_xlim(min(values) / 2.5, max(values) * 4)
        title(axis, text, under)
    recalls = [median_of(measured, "ours_recall_at_10"), *(measured[name]["recall_at_10"] for name in names)]
    rows = [f"{name}\nrecall {recall:.3f}" for name, recall in zip(["ours", *names], recalls, strict=True)]
    axes[0].set_yticks(range(len(rows)), rows, fontsize=8.5)
    axes[0].tick_params(axis="y", length=0)
    axes[0].invert_yaxis()
    data = section["data"]
    words = (
        f"Beside other systems, {data['records']:,} x {data['dimension']:,}, noise {data['noise_a_dimension']:g}, the "
        "quickest setting of each that finds 0.99 of the exact ten, or its most thorough (pale blue: encrypts too)"
    )
    figure.suptitle(words, fontsize=12.5, y=0.985, x=0.012, ha="left", weight="bold")
    figure.subplots_adjust(left=0.095, right=0.985, top=0.82, bottom=0.15, wspace=0.1)


def columns(section: Result, measured: Result) -> Iterator[tuple[str, str, float, Callable[[Result], float], int]]:
    """Title, unit, ours, theirs, digits after the point."""
    p50, start = median_of(measured, "ours_p50_ms"), median_of(measured, "ours_cold_s")
    held, rate = median_of(measured, "ours_memory_bytes_a_record"), section["ours"]["records_per_s"]
    yield "p50 of a query", "ms, less is better", p50, lambda one: one["p50_ms"]["median"], 2
    yield "Memory", "bytes a vector, less is better", held, lambda one: one["memory_bytes_a_record"], 0
    yield "Start to first answer", "s, less is better", start, lambda one: one["cold_s"]["median"], 2
    yield "Insert rate", "records/s, more is better", rate, lambda one: one["records_per_s"], 0


def median_of(measured: Result, key: str) -> float:
    values = sorted(one[key]["median"] if isinstance(one[key], dict) else one[key] for one in measured.values())
    return float(values[len(values) // 2])
