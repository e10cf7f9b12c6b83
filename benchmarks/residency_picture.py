"""Draws the result of residency.py. ``python benchmarks/residency_picture.py RESULT.json`` draws one that is there."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt

__all__ = ["draw"]

BLUE, PALE_BLUE, GREEN, GREY = "#2a6f97", "#a9cfe2", "#52796f", "#9aa5ab"
KINDS = {"float32": BLUE, "float32 of float16": PALE_BLUE, "float16": GREY, "text": GREEN}
goal = 0.01
lowest = 1e-4  # what the logarithmic axis draws for none


def draw(result: dict[str, Any], path: Path) -> None:
    """A group of bars for each moment; the axis is logarithmic, and none is drawn as a stub."""
    moments = result["moments"]
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, axis = plt.subplots(figsize=(13, 5.2))
    width = 0.8 / len(KINDS)
    for shift, (kind, colour) in enumerate(KINDS.items()):
        shares = [found["share"][kind] for found in moments.values()]
        at = [group + (shift - (len(KINDS) - 1) / 2) * width for group in range(len(moments))]
        axis.bar(at, [max(share, lowest) for share in shares], width=width * 0.92, color=colour, label=kind)
        for place, share in zip(at, shares, strict=True):
            text = "0" if share == 0 else f"{share:.2%}" if share < 0.1 else f"{share:.0%}"
            axis.text(place, max(share, lowest) * 1.1, text, ha="center", va="bottom", fontsize=8)
    axis.axhline(goal, color="#8c1c13", linewidth=0.9, linestyle="--")
    axis.text(len(moments) - 0.45, goal, "goal 1 %", color="#8c1c13", va="bottom", ha="right", fontsize=8.5)
    axis.set_yscale("log")
    axis.set_ylim(lowest, 3)
    axis.set_ylabel("share found in the process's memory")
    axis.set_xticks(range(len(moments)), [moment.replace(", ", ",\n") for moment in moments])
    axis.tick_params(axis="x", length=0)
    asked = result["parameters"]
    axis.set_title(
        f"Originals of {asked['records']:,} stored records in the service's memory, sample of {asked['sample']:,}",
        loc="left",
        weight="bold",
    )
    axis.legend(frameon=False, ncols=len(KINDS), fontsize=9, loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    source = Path(sys.argv[1])
    draw(json.loads(source.read_text(encoding="utf-8")), source.with_suffix(".png"))
