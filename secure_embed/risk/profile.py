"""What a risk profile is and how its file is read. An unknown or missing key is refused: a typo must not open a limit.

No rule is applied here (rules.py, release.py); the only IO is reading the files that the deployment names.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NoReturn, TypeVar, cast, get_args

from secure_embed.errors import ConfigurationError

__all__ = ["DistinctLimits", "ExposureLimits", "Profile", "load_profiles", "parse_profile"]

k_ceiling = 10  # outside development; at k = 100 the same 1,000 queries show about three times as much
k_ceiling_development = 1_000
decimals_max = 6

ScoreRelease = Literal["full", "rounded", "none"]
T = TypeVar("T")


def refuse(name: str, what: str) -> NoReturn:
    raise ConfigurationError(f"risk profile {name}: {what}", code="risk_profile_invalid")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistinctLimits:
    """Distinct records a principal may be shown: a share of the collection a day, between two bounds."""

    share_day_per_mille: int
    day_min: int
    day_max: int
    days_in_30: int  # 30 days give this many days' worth


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureLimits:
    """Distinct queries that may show one record to one principal, 30 days rolling."""

    scored: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A risk profile. One that exists is consistent, and safe by construction unless ``development_only``.

    Raises ``ConfigurationError`` (``risk_profile_invalid``) otherwise.
    """

    name: str
    development_only: bool
    query_by_vector: bool
    k_max: int
    collection_records_min: int
    score_release: ScoreRelease
    score_decimals: int | None  # set when scores are rounded
    score_cap: float | None  # set when scores are rounded
    score_records_min: int  # records that the filters must leave for scores to be shown
    queries_day: int | None
    distinct: DistinctLimits | None
    exposures: ExposureLimits | None
    exposures_with_write: ExposureLimits | None
    client_factor: int

    def __post_init__(self) -> None:
        ceiling = k_ceiling_development if self.development_only else k_ceiling
        if not 1 <= self.k_max <= ceiling:
            refuse(self.name, f"k_max is 1 to {ceiling}")
        counts = [self.collection_records_min, self.score_records_min, self.client_factor]
        if self.queries_day is not None:
            counts.append(self.queries_day)
        if min(counts) < 1:
            refuse(self.name, "a count is at least 1")
        self._check_scores()
        self._check_budgets()
        if not self.development_only:
            self._check_safe()

    def _check_scores(self) -> None:
        rounded = self.score_release == "rounded"
        if (self.score_decimals is not None) != rounded or (self.score_cap is not None) != rounded:
            refuse(self.name, "decimals and cap go with rounded scores, and only with them")
        if self.score_decimals is not None and not 0 <= self.score_decimals <= decimals_max:
            refuse(self.name, f"decimals is 0 to {decimals_max}")
        if self.score_cap is not None and not 0 < self.score_cap <= 1:
            refuse(self.name, "cap is above 0 and at most 1")

    def _check_budgets(self) -> None:
        d = self.distinct
        if d is not None and not (1 <= d.share_day_per_mille <= 1000 and 1 <= d.day_min <= d.day_max):
            refuse(self.name, "distinct records: a share of 1 to 1000 per mille, and 1 <= day_min <= day_max")
        if d is not None and not 1 <= d.days_in_30 <= 30:
            refuse(self.name, "distinct records: days_in_30 is 1 to 30")
        usual, write = self.exposures, self.exposures_with_write
        if (usual is None) != (write is None):
            refuse(self.name, "exposures are limited with and without write, or not at all")
        for limits in (usual, write):
            if limits is not None and not 1 <= limits.scored <= limits.total:
                refuse(self.name, "exposures: 1 <= scored <= total")
        if usual is not None and write is not None and (write.scored > usual.scored or write.total > usual.total):
            refuse(self.name, "who may write is shown no more than who may not")

    def _check_safe(self) -> None:
        if self.query_by_vector:
            refuse(self.name, "query by vector needs development_only")
        if self.score_release == "full":
            refuse(self.name, "full scores need development_only")
        if self.queries_day is None or self.distinct is None or self.exposures is None:
            refuse(self.name, "no limit on queries, distinct records or exposures needs development_only")


class _Table:
    """One TOML table: each key is taken once with its type, and what is left over is refused."""

    def __init__(self, profile: str, values: Mapping[str, object]) -> None:
        self._profile = profile
        self._left = dict(values)

    def take(self, key: str, kind: type[T]) -> T:
        value = self._left.pop(key, None)
        if type(value) is not kind:  # exact: in Python True is an int too
            refuse(self._profile, f"{key} is missing or not of type {kind.__name__}")
        return value

    def take_optional(self, key: str, kind: type[T]) -> T | None:
        return self.take(key, kind) if key in self._left else None

    def table(self, key: str) -> "_Table":
        return _Table(self._profile, self.take(key, dict))

    def table_optional(self, key: str) -> "_Table | None":
        return self.table(key) if key in self._left else None

    def end(self) -> None:
        if self._left:
            refuse(self._profile, "unknown key " + ", ".join(sorted(self._left)))


def parse_profile(name: str, text: str) -> Profile:
    """The profile that a TOML file says. Raises ``ConfigurationError`` (``risk_profile_invalid``)."""
    try:
        top = _Table(name, tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        refuse(name, "not TOML")
    scores, client = top.table("scores"), top.table("client")
    queries = top.table_optional("queries")
    release = scores.take("release", str)
    if release not in get_args(ScoreRelease):
        refuse(name, "release is full, rounded or none")
    profile = Profile(
        name=name,
        development_only=top.take("development_only", bool),
        query_by_vector=top.take("query_by_vector", bool),
        k_max=top.take("k_max", int),
        collection_records_min=top.take("collection_records_min", int),
        score_release=cast("ScoreRelease", release),
        score_decimals=scores.take_optional("decimals", int),
        score_cap=scores.take_optional("cap", float),
        score_records_min=scores.take("records_min", int) if release == "rounded" else 1,
        queries_day=queries.take("day", int) if queries else None,
        distinct=_distinct(top.table_optional("distinct_records")),
        exposures=_exposures(top.table_optional("exposures")),
        exposures_with_write=_exposures(top.table_optional("exposures_with_write")),
        client_factor=client.take("factor", int),
    )
    for table in (top, scores, client, queries):
        if table is not None:
            table.end()
    return profile


def _distinct(table: _Table | None) -> DistinctLimits | None:
    if table is None:
        return None
    limits = DistinctLimits(
        share_day_per_mille=table.take("share_day_per_mille", int),
        day_min=table.take("day_min", int),
        day_max=table.take("day_max", int),
        days_in_30=table.take("days_in_30", int),
    )
    table.end()
    return limits


def _exposures(table: _Table | None) -> ExposureLimits | None:
    if table is None:
        return None
    limits = ExposureLimits(scored=table.take("scored", int), total=table.take("total", int))
    table.end()
    return limits


def load_profiles(folder: Path, *, development: bool) -> Mapping[str, Profile]:
    """Every ``*.toml`` of the folder by its stem; those for development only are left out unless ``development``.

    Raises ``ConfigurationError``: ``risk_profile_invalid`` for a file that is not right (no profile is skipped),
    ``risk_profiles_missing`` when the folder holds none.
    """
    try:
        texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.toml"))}
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError("the risk profiles cannot be read", code="risk_profiles_missing") from None
    parsed = {name: parse_profile(name, text) for name, text in texts.items()}
    if not parsed:
        raise ConfigurationError("there are no risk profiles", code="risk_profiles_missing")
    return MappingProxyType({n: p for n, p in parsed.items() if development or not p.development_only})
