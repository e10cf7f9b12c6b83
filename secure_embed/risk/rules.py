"""What may be asked, and how much in all: pure rules over a profile and numbers. No IO, no clock, no counters."""

from secure_embed.errors import Forbidden, InvalidRequest
from secure_embed.risk.profile import Profile
from secure_embed.risk.protocol import Allowance

__all__ = ["allowance", "check_query"]


def allowance(profile: Profile, *, collection_records: int, holds_write: bool) -> Allowance:
    """The limits for one principal on a collection of ``collection_records`` records, now."""
    distinct = profile.distinct
    day = None
    if distinct is not None:
        share = collection_records * distinct.share_day_per_mille // 1000
        day = min(max(share, distinct.day_min), distinct.day_max)
    exposures = profile.exposures_with_write if holds_write else profile.exposures
    return Allowance(
        queries_day=profile.queries_day,
        distinct_records_day=day,
        distinct_records_30_days=day * distinct.days_in_30 if distinct is not None and day is not None else None,
        client_factor=profile.client_factor,
        exposures_scored=exposures.scored if exposures else None,
        exposures_total=exposures.total if exposures else None,
    )


def check_query(profile: Profile, *, k: int, has_vector: bool, collection_records: int, reads_all: bool) -> None:
    """Refuse what the profile never answers, before anything is counted, encoded or searched.

    ``reads_all``: the principal may read the text of every record of the collection, so an answer tells it nothing.
    Raises ``Forbidden`` (``query_by_vector_refused``, ``collection_too_small``) and ``InvalidRequest``
    (``k_invalid``, ``k_too_large``). There is no paging: what lies past ``k_max`` is not reachable.
    """
    if has_vector and not profile.query_by_vector:
        raise Forbidden("this collection is queried with text, not with vectors", code="query_by_vector_refused")
    if k < 1:
        raise InvalidRequest("k is at least 1", code="k_invalid")
    if k > profile.k_max:
        raise InvalidRequest(f"k is at most {profile.k_max} here", code="k_too_large", members={"k_max": profile.k_max})
    # Among few records a query's answer is nearly a lookup: each record is a hit of most queries.
    if collection_records < profile.collection_records_min and not reads_all:
        raise Forbidden(
            "the collection is too small to be queried by those who may not read all of it",
            code="collection_too_small",
        )
