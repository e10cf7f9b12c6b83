"""The steps of one query's release control, in the order in which the vault takes them.

Joins a profile's pure rules with the ledger, so that what is counted as scored and what is shown with a score cannot
differ. Holds no counter and no text of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from secure_embed.errors import ConfigurationError
from secure_embed.risk.profile import Profile
from secure_embed.risk.protocol import Admission, Charged, Ledger, LedgerKey, Showing
from secure_embed.risk.release import Released, release, shows_scores
from secure_embed.risk.rules import allowance
from secure_embed.types import Position

__all__ = ["Answer", "RiskControl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What may leave: ``hits`` in order, and whether a budget took something away (never from which record)."""

    hits: tuple[Released, ...]
    limited: bool
    charged: Charged


class RiskControl:
    """check_query (rules.py) -> :meth:`admit` -> search -> :meth:`release`."""

    def __init__(self, profiles: Mapping[str, Profile], ledger: Ledger) -> None:
        self._profiles = profiles
        self._ledger = ledger

    def profile(self, name: str) -> Profile:
        """Raises ``ConfigurationError`` (``risk_profile_unknown``): a collection without its profile answers nothing."""
        try:
            return self._profiles[name]
        except KeyError:
            raise ConfigurationError(
                "the collection's risk profile is not there, or is for development only", code="risk_profile_unknown"
            ) from None

    def admit(
        self,
        profile: Profile,
        key: LedgerKey,
        *,
        request: UUID,
        query_tag: bytes,
        collection_records: int,
        holds_write: bool,
    ) -> Admission:
        """Count the query. Raises ``Exhausted`` (``budget_exhausted``) with nothing counted."""
        limits = allowance(profile, collection_records=collection_records, holds_write=holds_write)
        return self._ledger.admit(key, request=request, query_tag=query_tag, allowance=limits)

    def release(
        self,
        profile: Profile,
        admission: Admission,
        hits: Sequence[tuple[Position, float]],
        record_tags: Sequence[bytes],
        *,
        matching: int,
    ) -> Answer:
        """Charge what would be shown, then let out what the verdicts leave.

        ``hits``: (position, exact score), best first, at most ``k_max``; ``record_tags``: one for each hit, 32 bytes;
        ``matching``: records that the row filter and the caller's own filter leave together (``Selection.count``).
        """
        scored = shows_scores(profile, matching)
        charged = self._ledger.charge(admission, [Showing(record_tag=tag, scored=scored) for tag in record_tags])
        return Answer(
            hits=tuple(release(profile, hits, charged.verdicts, matching)), limited=charged.limited, charged=charged
        )

    def forget(self, collection: UUID, record_tags: Sequence[bytes]) -> None:
        """Drop what is stored of erased records; see :meth:`Ledger.forget`."""
        self._ledger.forget(collection, record_tags)

    def forget_collection(self, collection: UUID) -> None:
        """Drop all that is stored of an erased collection; see :meth:`Ledger.forget_collection`."""
        self._ledger.forget_collection(collection)
