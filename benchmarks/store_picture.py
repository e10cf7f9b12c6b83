"""Draws the result of store.py. ``python benchmarks/store_picture.py RESULT.json`` draws one that is there again."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt

__all__ = ["draw"]

BLUE, PALE_BLUE, GREY, INK = "#2a6f97", "#a9cfe2", "#9aa5ab", "#222222"
bars = {
    "plain": (GREY, "plain SQLite"),
    "store": (PALE_BLUE, "sealed before;\nthe store alone"),
    "sealed": (BLUE, "seal, put keys,\nappend"),
}


def draw(result: dict[str, Any], path: Path) -> None:
    """Records a second, more is better; on our bars how many times as long as plain SQLite they take."""
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "text.color": INK})
    figure, axis = plt.subplots(figsize=(7.5, 5))
    asked, goals = result["parameters"], result["goals"]
    for at, (name, (colour, _)) in enumerate(bars.items()):
        rate = result[name]["records_per_s"]
        axis.bar([at], [rate["median"]], color=colour, width=0.6)
        axis.plot([at, at], [rate["min"], rate["max"]], color=INK, linewidth=1.1)
        times = "" if name == "plain" else f"\n{result[name]['times_plain']['median']:.2f} × the time of plain"
        work = result[name]["processor_ms_per_1000_records"]["median"]
        words = f"{work:.0f} ms of processor\ntime for 1,000"
        axis.text(at, 400, words, ha="center", fontsize=8.5, color="white" if colour == BLUE else INK)
        axis.annotate(
            f"{rate['median']:,.0f}/s{times}",
            (at, rate["max"]),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            weight="bold",
        )
    axis.axhline(goals["records_per_s"], color=INK, linewidth=0.9, linestyle="--")
    axis.text(0.5, goals["records_per_s"], f"goal\n{goals['records_per_s']:,}/s", va="bottom", ha="center", fontsize=9)
    axis.set_xticks(range(len(bars)), [words for _, words in bars.values()])
    axis.tick_params(axis="x", length=0)
    axis.set_ylim(0, max(result[name]["records_per_s"]["max"] for name in bars) * 1.2)
    axis.set_ylabel("records per second, each batch durable")
    axis.set_title(
        f"Ingest without embedding: {asked['dimension']}-d fp16 vectors, {asked['text_bytes']}-character texts,\n"
        f"batches of {asked['batch_records']:,}, {asked['records_of_each_side']:,} records",
        loc="left",
        fontsize=11,
    )
    figure.text(
        0.5,
        0.015,
        f"Median of {asked['rounds']} rounds, whiskers: slowest and fastest. The sides take turns in one process.\n"
        f"{result['machine']['processor']}, {result['machine']['cores']} cores; other programs took "
        f"{result['cores_taken_by_others']:.0%} of them meanwhile.",
        ha="center",
        fontsize=8.5,
        color="#555555",
    )
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    source = Path(sys.argv[1])
    draw(json.loads(source.read_text(encoding="utf-8")), source.with_suffix(".png"))
