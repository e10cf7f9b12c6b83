"""What a tuning found, as it is kept, and as the log has it: numbers, and no text of a query."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from secure_embed.collection.tuned import Measured, Tuning
from secure_embed.index import Codebook, every_list
from secure_embed.types import bits_max

__all__ = ["Detail", "Found", "asked_details", "done", "found_details"]

Detail = Mapping[str, str | int | bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a tuning measured, and the codes' codebook that it was measured with."""

    codebook: Codebook
    before: Measured
    chosen: Measured | None
    measured: tuple[Measured, ...]
    sample: int
    opened: int


def done(tuning: Tuning, found: Found) -> Tuning:
    more = tuning.bits + 1 if found.chosen is None and tuning.bits < bits_max else None
    return replace(
        tuning,
        state="done",
        lists=found.codebook.lists,
        sample=found.sample,
        measured=found.measured,
        before=found.before,
        chosen=found.chosen,
        bits_recommended=more,
        ended_unix=int(time.time()),
    )


def asked_details(tuning: Tuning) -> Detail:
    """For the log: numbers, and no text of a query. Its fractions are thousandths, since it has no others."""
    asked = tuning.asked
    return {
        "tuning": tuning.id,
        "target_permille": round(1_000 * asked.target),
        "k": asked.k,
        "texts": tuning.texts,
        "bits": tuning.bits,
        "filtered": asked.filtered,
        "apply": asked.apply,
    }


def found_details(ended: Tuning, found: Found) -> Detail:
    details: dict[str, str | int | bool] = {
        "opened": found.opened,
        "sample": found.sample,
        "met": found.chosen is not None,
        "applied": ended.applied,
    }
    if found.chosen is not None:
        effort = found.chosen.effort
        details |= {
            "recall_permille": int(1_000 * found.chosen.recall),
            "candidates": effort.candidates,
            "margin_percent": round(100 * effort.margin),
            "lists": min(effort.lists or every_list, found.codebook.lists),
        }
    return details
