"""Draws the result of main_job.py. ``python benchmarks/main_job_picture.py RESULT.json`` draws one that is there again."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

__all__ = ["draw"]

BLUE, GREY = "#2a6f97", "#9aa5ab"  # told apart in print and by eyes that see no red or green
PALE_BLUE, PALE_GREY = "#a9cfe2", "#d9dee1"
INK = "#222222"
width = 0.42


def draw(result: dict[str, Any], path: Path) -> None:
    """Four panels, shorter is better in each; on every pair of bars how many times the plain one ours is."""
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "text.color": INK})
    figure, axes = plt.subplots(1, 4, figsize=(15, 5.2), gridspec_kw={"width_ratios": [1, 1, 1.5, 1.9]})
    ingest(axes[0], result["ingest"])
    cold_start(axes[1], result["cold_start"])
    query(axes[2], result["query"])
    memory(axes[3], result["memory"])
    asked = result["parameters"]
    figure.suptitle(
        f"The main job on {asked['records']:,} records: the service, and the same without any protection",
        y=0.98,
        fontsize=13,
    )
    figure.text(0.5, 0.012, footnote(result), ha="center", fontsize=8.5, color="#555555")
    figure.tight_layout(rect=(0, 0.13, 1, 0.97))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def footnote(result: dict[str, Any]) -> str:
    machine, disk, answers = result["machine"], result["disk"], result["query"]["answers"]
    ours, plain = disk["secure_embed_bytes_per_record"], disk["plain_bytes_per_record"]
    return (
        "secure_embed: TLS, HTTP, tokens, policy, budgets, durable audit log, sealed store.  "
        "plain: sentence-transformers + IndexFlatIP + SQLite at the end of a pipe.\n"
        f"On disk {ours:,.0f} bytes a record (vectors float16) against {plain:,.0f} (float32), × {ours / plain:.2f}.  "
        f"Of the exact ten hits the service gives {answers['overlap_at_10']:.1%}.  "
        "Whiskers: 10th to 90th percentile; queries: lowest and highest round.\n"
        f"{machine['processor']}, {machine['cores']} cores, all-minilm-l6-v2 in {result['parameters']['dtype']} on both sides. "
        f"Other programs took {max(result['cores_taken_by_others'].values()):.0%} of the cores meanwhile."
    )


def ingest(axis: Axes, figures: dict[str, Any]) -> None:
    """Milliseconds a record, the encoder's part apart."""
    sides = [figures["secure_embed"], figures["plain"]]
    whole = [side["ms_per_record"] for side in sides]
    rest = [min(max(0.0, side["all_but_embedding_ms"]["median"]), side["ms_per_record"]["median"]) for side in sides]
    embedding = [bar["median"] - other for bar, other in zip(whole, rest, strict=True)]
    axis.bar([0, 1], embedding, color=[PALE_BLUE, PALE_GREY], width=0.6)
    axis.bar([0, 1], rest, bottom=embedding, color=[BLUE, GREY], width=0.6)
    for at, bar in enumerate(whole):
        whisker(axis, at, bar)
        text = f"embedding\n{embedding[at]:.1f}\n\nall else\n{rest[at]:.2f}"
        axis.text(at, bar["median"] * 0.45, text, ha="center", va="center", fontsize=9)
    label(axis, 0, whole[0], f"{whole[0]['median']:.1f} ms\n× {figures['ratio_by_batch']['median']:.2f}")
    label(axis, 1, whole[1], f"{whole[1]['median']:.1f} ms")
    names(axis, [0, 1], ["secure_embed", "plain"])
    finish(axis, "Ingest", "ms per record", max(w["p90"] for w in whole))


def cold_start(axis: Axes, figures: dict[str, Any]) -> None:
    sides = [figures["secure_embed_s"], figures["plain_s"]]
    axis.bar([0, 1], [side["median"] for side in sides], color=[BLUE, GREY], width=0.6)
    for at, side in enumerate(sides):
        whisker(axis, at, side)
    label(axis, 0, sides[0], f"{sides[0]['median']:.1f} s\n× {figures['ratio']['median']:.2f}")
    label(axis, 1, sides[1], f"{sides[1]['median']:.1f} s")
    names(axis, [0, 1], ["secure_embed", "plain"])
    finish(axis, "Cold start", "s from start to first answer", max(side["p90"] for side in sides))


def query(axis: Axes, figures: dict[str, Any]) -> None:
    highest = 0.0
    for at, part in enumerate(("p50", "p95")):
        for shift, side, colour in ((-width / 2, "secure_embed", BLUE), (width / 2, "plain", GREY)):
            rounds = [one[side][f"{part}_ms"] for one in figures["by_round"]]
            bar = {"median": figures[side][f"{part}_ms"], "p10": min(rounds), "p90": max(rounds)}
            axis.bar([at + shift], [bar["median"]], color=colour, width=width)
            whisker(axis, at + shift, bar)
            times = f"\n× {figures[f'ratio_{part}']:.2f}" if side == "secure_embed" else ""
            label(axis, at + shift, bar, f"{bar['median']:.1f} ms{times}")
            highest = max(highest, bar["p90"])
    names(axis, [0, 1], ["p50", "p95"])
    finish(axis, "Query, 10 hits", "ms", highest)


def memory(axis: Axes, figures: dict[str, Any]) -> None:
    moments = [
        ("after\nload", {s: f["rss_mib"] for s, f in figures["after_load"].items()}),
        ("after\nqueries", {s: f["rss_mib"] for s, f in figures["after_queries"].items()}),
        ("peak of\ningest", {s: single(f["peak_mib"]) for s, f in figures["after_ingest"].items()}),
    ]
    for at, (_, sides) in enumerate(moments):
        ratio = sides["secure_embed"]["median"] / sides["plain"]["median"]
        for shift, side, colour in ((-width / 2, "secure_embed", BLUE), (width / 2, "plain", GREY)):
            axis.bar([at + shift], [sides[side]["median"]], color=colour, width=width, label=side if at == 0 else None)
            whisker(axis, at + shift, sides[side])
            times = f"\n× {ratio:.2f}" if side == "secure_embed" else ""
            label(axis, at + shift, sides[side], f"{sides[side]['median']:.0f}{times}")
    names(axis, list(range(len(moments))), [moment for moment, _ in moments])
    finish(axis, "Resident memory", "MiB, whole process", max(s["p90"] for _, m in moments for s in m.values()))
    axis.legend(frameon=False, loc="upper right", ncols=2, fontsize=9)


def single(value: float) -> dict[str, float]:
    return {"median": value, "p10": value, "p90": value}


def whisker(axis: Axes, at: float, bar: dict[str, float]) -> None:
    if bar["p90"] > bar["p10"]:
        axis.plot([at, at], [bar["p10"], bar["p90"]], color=INK, linewidth=1.1)


def label(axis: Axes, at: float, bar: dict[str, float], text: str) -> None:
    place = (at, max(bar["p90"], bar["median"]))
    axis.annotate(text, place, xytext=(0, 4), textcoords="offset points", ha="center", fontsize=9.5, weight="bold")


def names(axis: Axes, at: Sequence[float], texts: Sequence[str]) -> None:
    axis.set_xticks(list(at), list(texts))
    axis.tick_params(axis="x", length=0)


def finish(axis: Axes, title: str, unit: str, highest: float) -> None:
    axis.set_title(title, loc="left", fontsize=11.5, weight="bold")
    axis.set_ylabel(unit)
    axis.set_ylim(0, highest * 1.25)  # room for the words above the bars


if __name__ == "__main__":
    source = Path(sys.argv[1])
    draw(json.loads(source.read_text(encoding="utf-8")), source.with_suffix(".png"))
