"""What leaves of an answer that is already found and counted. Pure: no IO, no counters, no randomness.

No noise is ever added: fresh noise averages out over repeated queries, and it would change the order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from secure_embed.risk.profile import Profile
from secure_embed.risk.protocol import Verdict
from secure_embed.types import Position

__all__ = ["Released", "release", "shows_scores"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    position: Position
    rank: int  # 1, 2, 3, ... without a gap, so that it does not tell where a record was left out
    score: float | None


def shows_scores(profile: Profile, matching: int) -> bool:
    """Whether an answer over ``matching`` records may carry scores at all.

    ``matching``: records that the row filter and the caller's own filter leave together (``Selection.count``). A
    filter that leaves few forces its records into the answer, and each answer is then a reading of their vectors.
    """
    return profile.score_release != "none" and matching >= profile.score_records_min


def release(
    profile: Profile, hits: Sequence[tuple[Position, float]], verdicts: Sequence[Verdict], matching: int
) -> list[Released]:
    """The hits that may leave, best first by (-score, position) of the exact scores, then rounded and capped.

    ``hits``: exact scores, at most ``k_max`` of them; ``verdicts``: the ledger's, one for each hit in the same order.
    """
    scores_shown = shows_scores(profile, matching)
    kept = [(hit, v) for hit, v in zip(hits, verdicts, strict=True) if v != "withheld"]
    kept.sort(key=lambda pair: (-pair[0][1], pair[0][0]))
    return [
        Released(
            position=position,
            rank=rank,
            score=_shown(profile, score) if scores_shown and verdict == "scored" else None,
        )
        for rank, ((position, score), verdict) in enumerate(kept, start=1)
    ]


def _shown(profile: Profile, score: float) -> float:
    if profile.score_decimals is None or profile.score_cap is None:
        return float(score)
    rounded = round(float(score), profile.score_decimals)
    return min(rounded, profile.score_cap) + 0.0  # -0.0 + 0.0 is 0.0: the sign of a zero would be a bit more
