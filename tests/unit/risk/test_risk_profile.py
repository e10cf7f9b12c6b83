"""Profiles as data: the shipped files say what docs/inversion-risk.md says, and nothing lax or misspelt loads."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from secure_embed.errors import ConfigurationError
from secure_embed.risk import DistinctLimits, ExposureLimits, Profile, load_profiles, parse_profile

shipped = Path(__file__).parents[3] / "policies" / "risk"
standard_text = (shipped / "standard.toml").read_text(encoding="utf-8")
open_text = (shipped / "open.toml").read_text(encoding="utf-8")


def test_standard_is_what_the_document_says() -> None:
    assert load_profiles(shipped, development=False)["standard"] == Profile(
        name="standard",
        development_only=False,
        query_by_vector=False,
        k_max=10,
        collection_records_min=1000,
        score_release="rounded",
        score_decimals=2,
        score_cap=0.90,
        score_records_min=100,
        queries_day=1000,
        distinct=DistinctLimits(share_day_per_mille=25, day_min=100, day_max=500, days_in_30=4),
        exposures=ExposureLimits(scored=10, total=30),
        exposures_with_write=ExposureLimits(scored=5, total=5),
        client_factor=10,
    )


def test_strict_shows_no_score_and_no_more_than_standard() -> None:
    profiles = load_profiles(shipped, development=False)
    strict, standard = profiles["strict"], profiles["standard"]
    assert strict.score_release == "none"
    assert strict.distinct == DistinctLimits(share_day_per_mille=15, day_min=100, day_max=300, days_in_30=4)
    assert strict.exposures == ExposureLimits(scored=10, total=10)
    assert strict.queries_day is not None
    assert standard.queries_day is not None
    assert strict.queries_day < standard.queries_day


def test_open_exists_in_development_only() -> None:
    assert set(load_profiles(shipped, development=False)) == {"standard", "strict"}
    assert set(load_profiles(shipped, development=True)) == {"open", "standard", "strict"}


def test_a_profile_is_frozen() -> None:
    profile = parse_profile("standard", standard_text)
    with pytest.raises(FrozenInstanceError):
        profile.k_max = 100  # type: ignore[misc]  # what must not be possible


mistakes = {
    "unknown key": ("k_max = 10", "k_max = 10\nk_maximum = 1000"),
    "unknown key in a table": ("day = 1000", "day = 1000\nhour = 10"),
    "unknown table": ("[client]", "[clients]\nfactor = 1\n[client]"),
    "misspelt table leaves no limit": ("[exposures]", "[exposure]"),
    "missing key": ("k_max = 10", ""),
    "missing filter floor": ("records_min = 100 #", "#"),
    "whole number for a truth value": ("query_by_vector = false", "query_by_vector = 0"),
    "truth value for a number": ("k_max = 10", "k_max = true"),
    "text for a number": ("day = 1000", 'day = "1000"'),
    "fraction for a count": ("day = 1000", "day = 1000.5"),
    "unknown release": ('release = "rounded"', 'release = "rough"'),
    "full scores with a cap": ('release = "rounded"', 'release = "full"'),
    "cap above 1": ("cap = 0.90", "cap = 1.5"),
    "cap is not a number": ("cap = 0.90", "cap = nan"),
    "too many decimals": ("decimals = 2", "decimals = 12"),
    "no query a day": ("day = 1000", "day = 0"),
    "factor 0": ("factor = 10", "factor = 0"),
    "bounds crossed": ("day_min = 100", "day_min = 501"),
    "share above all": ("share_day_per_mille = 25", "share_day_per_mille = 1001"),
    "more than 30 days in 30": ("days_in_30 = 4", "days_in_30 = 31"),
    "more scored than shown": ("total = 30", "total = 9"),
    "writers are shown more": ("scored = 5\ntotal = 5", "scored = 5\ntotal = 31"),
    "writers unlimited": (
        "[exposures_with_write] # who may plant records can calibrate ranks\nscored = 5\ntotal = 5",
        "",
    ),
    "vectors outside development": ("query_by_vector = false", "query_by_vector = true"),
    "k above 10 outside development": ("k_max = 10", "k_max = 11"),
    "no query limit outside development": ("[queries]\nday = 1000", ""),
    "not TOML": ("k_max = 10", "k_max = "),
}


@pytest.mark.parametrize(("was", "becomes"), mistakes.values(), ids=mistakes.keys())
def test_a_mistake_in_the_file_is_refused(was: str, becomes: str) -> None:
    assert was in standard_text
    with pytest.raises(ConfigurationError) as refused:
        parse_profile("standard", standard_text.replace(was, becomes))
    assert refused.value.code == "risk_profile_invalid"


def test_open_loses_its_mark_only_with_its_openness() -> None:
    with pytest.raises(ConfigurationError, match="development_only"):
        parse_profile(
            "open", open_text.replace("development_only = true", "development_only = false").replace("100", "10")
        )


def test_one_wrong_file_stops_all(tmp_path: Path) -> None:
    (tmp_path / "standard.toml").write_text(standard_text, encoding="utf-8")
    (tmp_path / "broken.toml").write_text("k_max = 10", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="broken"):
        load_profiles(tmp_path, development=False)


def test_no_file_at_all_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ConfigurationError) as refused:
            load_profiles(folder, development=False)
        assert refused.value.code == "risk_profiles_missing"


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "standard.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError):
        load_profiles(tmp_path, development=False)
