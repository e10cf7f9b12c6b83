"""What search.py is to reach, and one result of sections that were measured at different times."""

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["GOALS", "SECTIONS", "against_goals", "merged"]

# Ours over the other side, at most; recall, its own difference and several callers' queries over one's as they say.
GOALS = {
    "easy": 0.02,
    "hard": 0.04,
    "million": 0.008,
    "recall_at_10": 0.99,
    "quality": 0.001,
    "memory": 0.05,
    "cold": 0.25,
    "filtered": 1.0,
    "concurrent": 1.5,
    "peers": 1.0,
}
SECTIONS = ("easy", "hard", "million", "quality", "memory", "cold", "filtered", "concurrent", "peers")


def merged(before: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The result with the sections that were measured now; those of before stay, in the order of ``SECTIONS``."""
    both = {**before.get("sections", {}), **new}
    sections = {name: both[name] for name in SECTIONS if name in both}
    return {
        "goals": GOALS,
        "against_goals": against_goals(sections),
        "measured": sorted({each["measured"] for each in both.values()}),
        "sections": sections,
    }


def against_goals(sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each figure that has a goal, and whether it was reached; only of the sections that are there."""
    found = {}
    for name, figure, goal in _figures(sections):
        at_least = name.endswith("recall_at_10") or name == "concurrent"
        found[name] = {"figure": figure, "goal": goal, "met": figure >= goal if at_least else figure <= goal}
    return found


def _figures(sections: dict[str, Any]) -> Iterator[tuple[str, float, float]]:
    for name in ("easy", "hard", "million"):
        if name in sections:
            yield name, sections[name]["by_turns"]["ours"]["over_base"]["median"], GOALS[name]
            yield f"{name} recall_at_10", sections[name]["recall_at_10"], GOALS["recall_at_10"]
    single: dict[str, Callable[[dict[str, Any]], float]] = {
        "quality": lambda one: abs(one["ndcg_at_10_furthest_from_exact"]),
        "memory": lambda one: one["codes"]["over_fp32"],
        "cold": lambda one: one["warm"]["ratio"]["median"],
        "filtered": lambda one: one["by_turns"]["1.0%"]["over_base"]["median"],
        "concurrent": lambda one: one["over_one_caller"]["8"]["median"],
    }
    for name, figure in single.items():
        if name in sections:
            yield name, figure(sections[name]), GOALS[name]
    if "cold" in sections:
        yield "cold, files not in memory", sections["cold"]["cold"]["ratio"]["median"], GOALS["cold"]
    yield from _beside_peers(sections.get("peers", {}).get("peers", {}))


def _beside_peers(peers: dict[str, Any]) -> Iterator[tuple[str, float, float]]:
    for name, one in peers.items():
        if "ours_cold_over_it" in one:
            yield f"{name}, p50", one["ours_over_it"]["median"], GOALS["peers"]
            yield f"{name}, memory", one["ours_memory_over_it"], GOALS["peers"]
            yield f"{name}, start", one["ours_cold_over_it"]["median"], GOALS["peers"]
