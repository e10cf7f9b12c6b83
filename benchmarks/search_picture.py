"""Draws the result of search.py. ``python benchmarks/search_picture.py RESULT.json`` draws one that is there again."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import patheffects
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from search_picture_peers import BLUE, FAINT, GREY, INK, PALE_BLUE, Result, measured_whole, peers, title

__all__ = ["draw"]

beside = {"easy": "noise 0.6", "hard": "noise 1.0", "million": "noise 0.6"}


def draw(result: Result, path: Path) -> None:
    """Above: beside exact search, each with its goal. Below: beside other systems, on logarithmic scales."""
    plt.rcParams.update({"font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False, "text.color": INK})
    sections, goals = result["sections"], result["goals"]
    has_peers = bool(measured_whole(sections.get("peers", {})))
    figure = plt.figure(figsize=(16, 11 if has_peers else 5.6))
    above, *below = figure.subfigures(2, 1, height_ratios=[1, 1.12]) if has_peers else [figure.subfigures(1, 1)]
    panels: dict[str, Callable[[Axes, Result, Result], None]] = {
        "easy": ratios,
        "memory": memory,
        "cold": cold,
        "filtered": filtered,
        "concurrent": concurrent,
    }
    axes = above.subplots(1, len(panels), gridspec_kw={"width_ratios": [1.35, 0.75, 1.1, 1.25, 0.85]})
    for axis, (name, panel) in zip(axes, panels.items(), strict=True):
        if name in sections:
            panel(axis, sections, goals)
        else:
            axis.set_axis_off()
            axis.text(0.5, 0.5, f"{name}: not measured", ha="center", color=FAINT)
    above.suptitle(heading(sections), fontsize=12.5, y=0.995, x=0.012, ha="left", weight="bold")
    above.subplots_adjust(left=0.05, right=0.985, top=0.8, bottom=0.13 if has_peers else 0.22, wspace=0.36)
    for part in below:
        peers(part, sections["peers"])
    figure.text(0.012, 0.012, footnote(sections), ha="left", va="bottom", fontsize=8.5, color=FAINT)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def heading(sections: Result) -> str:
    size = next((s["data"] for s in sections.values() if "data" in s), None)
    if size is None:
        return "Searching sealed vectors"
    return f"Searching sealed vectors, {size['records']:,} x {size['dimension']:,}: codes scanned, the best opened and scored exactly (blue)"


def whisker(axis: Axes, at: float, figures: Result) -> None:
    axis.plot([at, at], [figures["min"], figures["max"]], color=INK, linewidth=1.1)


def goal_mark(axis: Axes, at: float, goal: float, width: float, text: str) -> None:
    halo = [patheffects.withStroke(linewidth=3, foreground="white")]
    ends = [at - width / 2, at + width / 2]
    axis.plot(ends, [goal, goal], color=INK, linewidth=1.4, linestyle=(0, (3, 2)), path_effects=halo)
    where: Any = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center", "va": "bottom"}
    axis.annotate(text, (at, goal), fontsize=8, path_effects=halo, **where)


def ratios(axis: Axes, sections: Result, goals: Result) -> None:
    """p50 over exact search's, which is 1."""
    shown = [name for name in beside if name in sections]
    for at, name in enumerate(shown):
        ours = sections[name]["by_turns"]["ours"]
        over = ours["over_base"]
        axis.bar([at], [over["median"]], color=BLUE, width=0.6)
        whisker(axis, at, over)
        goal_mark(axis, at, goals[name], 0.86, f"goal {goals[name]:g}")
        top = max(over["max"], goals[name])
        recall = sections[name]["recall_at_10"]
        flat = sections[name]["by_turns"]["flat"]["p50_ms"]["median"]
        words = f"{over['median']:.4f}\n{ours['p50_ms']['median']:.2f} of {flat:.1f} ms\nrecall {recall:.3f}"
        axis.text(
            at,
            top * (1.9 if goals[name] > over["max"] / 2 else 1.25),
            words,
            ha="center",
            va="bottom",
            fontsize=8.5,
            linespacing=1.25,
        )
    axis.set_yscale("log")
    axis.set_ylim(0.001, 2.5 * max(1, *(sections[name]["by_turns"]["ours"]["over_base"]["max"] * 4 for name in shown)))
    axis.axhline(1, color=GREY, linewidth=1.2, zorder=0)
    axis.text(-0.45, 1.05, "exact search, float32 in memory", fontsize=8, color=FAINT, va="bottom")
    sizes = [sections[name]["data"]["records"] for name in shown]
    axis.set_xticks(range(len(shown)), [f"{n:,}\n{beside[name]}" for n, name in zip(sizes, shown, strict=True)])
    axis.tick_params(axis="x", length=0)
    title(axis, "A query's p50, over exact search", "in process, one thread; less is better")


def memory(axis: Axes, sections: Result, goals: Result) -> None:
    figures = sections["memory"]
    fp32, ours = figures["fp32_bytes_a_record"], figures["codes"]["bytes_a_record_with_codebook"]
    axis.bar([0, 1], [ours, fp32], color=[BLUE, GREY], width=0.6)
    goal_mark(axis, 0, goals["memory"] * fp32, 0.86, f"goal {goals['memory']:.0%}")
    top = max(ours, goals["memory"] * fp32)
    axis.text(0, top * 1.6, f"{ours:.0f}\n{figures['codes']['over_fp32']:.1%}", ha="center", va="bottom", weight="bold")
    axis.text(1, fp32 * 1.08, f"{fp32:,}", ha="center", va="bottom", weight="bold")
    axis.set_yscale("log")
    axis.set_ylim(10, fp32 * 3)
    axis.set_xticks([0, 1], ["ours", "float32"])
    axis.tick_params(axis="x", length=0)
    title(axis, "Plaintext in memory", "derived bytes a vector")


def cold(axis: Axes, sections: Result, goals: Result) -> None:
    figures = sections["cold"]
    highest = 0.0
    for at, cache in enumerate(("warm", "cold")):
        one = figures[cache]
        for shift, side, colour in ((-0.21, "ours_s", BLUE), (0.21, "plain_s", GREY)):
            axis.bar([at + shift], [one[side]["median"]], color=colour, width=0.4)
            whisker(axis, at + shift, one[side])
            words, top = f"{one[side]['median']:.2f} s", one[side]["max"]
            if side == "ours_s":
                words += f"\n× {one['ratio']['median']:.2f}"
                top = max(top, 1.5 * goals["cold"] * one["plain_s"]["median"])  # above the goal and its name
            axis.text(at + shift, top, words, ha="center", va="bottom", fontsize=8.5, weight="bold")
            highest = max(highest, one[side]["max"])
        goal_mark(axis, at - 0.21, goals["cold"] * one["plain_s"]["median"], 0.42, f"goal × {goals['cold']:g}")
    axis.set_xticks([0, 1], ["files in the\npage cache", "files not\nin memory"])
    axis.tick_params(axis="x", length=0)
    axis.set_ylim(0, highest * 1.2)
    title(axis, "Start to first answer", "s; grey: NumPy and IndexFlatIP")


def filtered(axis: Axes, sections: Result, goals: Result) -> None:
    turns = sections["filtered"]["by_turns"]
    names = list(turns)
    for at, name in enumerate(names):
        one = turns[name]["over_base"]
        axis.bar([at], [one["median"]], color=PALE_BLUE if name == "all" else BLUE, width=0.6)
        whisker(axis, at, one)
        ms, recall = turns[name]["p50_ms"]["median"], turns[name]["recall_at_10"]
        axis.text(at, one["max"] * 1.02, f"{ms:.2f} ms\nrecall\n{recall:.3f}", ha="center", va="bottom", fontsize=8.5)
    axis.axhline(goals["filtered"], color=INK, linewidth=1.2, linestyle=(0, (3, 2)))
    axis.set_ylim(0, max(turns[name]["over_base"]["max"] for name in names) * 1.3)
    axis.set_xticks(range(len(names)), ["all", *(f"{float(name.rstrip('%')):g} %" for name in names[1:])])
    axis.tick_params(axis="x", length=0)
    title(axis, "p50 behind a row filter, over none", "by share of records allowed; goal: 1 at 1 %")


def concurrent(axis: Axes, sections: Result, goals: Result) -> None:
    rates = sections["concurrent"]["queries_per_s"]
    one = rates["1"]["median"]
    for at, (threads, rate) in enumerate(rates.items()):
        axis.bar([at], [rate["median"]], color=PALE_BLUE if threads == "1" else BLUE, width=0.6)
        whisker(axis, at, rate)
        times = "" if threads == "1" else f"\n× {sections['concurrent']['over_one_caller'][threads]['median']:.2f}"
        near_goal = (
            at == len(rates) - 1 and 0.75 * goals["concurrent"] * one < rate["max"] < 1.2 * goals["concurrent"] * one
        )
        top = max(rate["max"], 1.1 * goals["concurrent"] * one) if near_goal else rate["max"]
        words = f"{rate['median']:,.0f}/s{times}"
        axis.text(at, top * 1.01, words, ha="center", va="bottom", fontsize=8.5, weight="bold")
    goal_mark(axis, len(rates) - 1, goals["concurrent"] * one, 0.8, f"goal × {goals['concurrent']:g}")
    axis.set_ylim(0, max(goals["concurrent"] * one, *(rate["max"] for rate in rates.values())) * 1.25)
    axis.set_xticks(range(len(rates)), list(rates))
    axis.tick_params(axis="x", length=0)
    axis.set_xlabel("callers, on 2 cores")
    title(axis, "Queries a second", "threads of one process")


def footnote(sections: Result) -> str:
    machine = next(iter(sections.values()))["machine"]
    others = ", ".join(f"{name} {one['cores_taken_by_others']:.0%}" for name, one in sections.items())
    words = "Whiskers: slowest and fastest turn. "
    if "quality" in sections:
        one = sections["quality"]
        text = one["paragraphs"]
        recalls = ", ".join(f"{recall:.3f} with {depth}" for depth, recall in text["of_the_exact_ten"].items())
        furthest = one["ndcg_at_10_furthest_from_exact"]
        words += (
            f"Real text: nDCG@10 at most {abs(furthest):.4f} from exact search on {len(one['judged'])} judged sets; "
            f"of the exact ten among {text['records']:,} paragraphs {recalls} candidates."
        )
    return f"{words}\n{machine['processor']}, {machine['cores']} cores, one thread a side. Other programs had of the cores: {others}."


if __name__ == "__main__":
    source = Path(sys.argv[1])
    draw(json.loads(source.read_text(encoding="utf-8")), source.with_suffix(".png"))
