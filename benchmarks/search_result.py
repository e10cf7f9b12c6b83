"""What search.py is to reach, and one result of sections that were measured at different times."""

from typing import Any

__all__ = ["GOALS", "SECTIONS", "merged"]

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
    return {
        "goals": GOALS,
        "measured": sorted({each["measured"] for each in both.values()}),
        "sections": {name: both[name] for name in SECTIONS if name in both},
    }
