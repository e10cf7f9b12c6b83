"""Pure rules: how much in all, and what is never answered."""

from pathlib import Path

import pytest

from secure_embed.errors import Forbidden, InvalidRequest
from secure_embed.risk import allowance, check_query, load_profiles

profiles = load_profiles(Path(__file__).parents[3] / "policies" / "risk", development=True)
standard, strict, unprotected = profiles["standard"], profiles["strict"], profiles["open"]


@pytest.mark.parametrize(
    ("records", "day", "month"),
    [
        (0, 100, 400),
        (1200, 100, 400),
        (4000, 100, 400),
        (4040, 101, 404),
        (18_000, 450, 1800),
        (20_000, 500, 2000),
        (10**9, 500, 2000),
    ],
)
def test_standard_shows_a_share_of_the_collection_between_two_bounds(records: int, day: int, month: int) -> None:
    limits = allowance(standard, collection_records=records, holds_write=False)
    assert (limits.distinct_records_day, limits.distinct_records_30_days) == (day, month)
    assert (limits.exposures_scored, limits.exposures_total) == (10, 30)
    assert (limits.queries_day, limits.client_factor) == (1000, 10)


def test_who_may_write_is_shown_a_record_less_often() -> None:
    limits = allowance(standard, collection_records=18_000, holds_write=True)
    assert (limits.exposures_scored, limits.exposures_total) == (5, 5)
    assert limits.distinct_records_day == 450


def test_strict_has_the_smaller_share() -> None:
    limits = allowance(strict, collection_records=18_000, holds_write=False)
    assert (limits.distinct_records_day, limits.distinct_records_30_days, limits.exposures_total) == (270, 1080, 10)


def test_open_limits_nothing() -> None:
    limits = allowance(unprotected, collection_records=18_000, holds_write=True)
    assert {limits.queries_day, limits.distinct_records_day, limits.distinct_records_30_days} == {None}
    assert {limits.exposures_scored, limits.exposures_total} == {None}


@pytest.mark.parametrize("k", [1, 10])
def test_a_query_within_the_profile_passes(k: int) -> None:
    check_query(standard, k=k, has_vector=False, collection_records=1000, reads_all=False)
    check_query(standard, k=k, has_vector=False, collection_records=1, reads_all=True)
    check_query(unprotected, k=100, has_vector=True, collection_records=1, reads_all=False)


refusals = [
    (0, False, 5000, False, InvalidRequest, "k_invalid"),
    (-1, False, 5000, False, InvalidRequest, "k_invalid"),
    (11, False, 5000, True, InvalidRequest, "k_too_large"),
    (10, True, 5000, True, Forbidden, "query_by_vector_refused"),
    (11, True, 5, False, Forbidden, "query_by_vector_refused"),
    (10, False, 999, False, Forbidden, "collection_too_small"),
]


@pytest.mark.parametrize(("k", "has_vector", "records", "reads_all", "error", "code"), refusals)
def test_what_the_profile_never_answers(
    k: int, has_vector: bool, records: int, reads_all: bool, error: type[Exception], code: str
) -> None:
    with pytest.raises(error) as refused:
        check_query(standard, k=k, has_vector=has_vector, collection_records=records, reads_all=reads_all)
    assert getattr(refused.value, "code", None) == code
