"""Templates: every slot is filled, numbers stay in their range, and what nobody knows is refused."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_embed.cli.demo import _phrases
from secure_embed.cli.demo._generator import plans

BANKS = [(name, language) for name in plans for language in ("en", "de", "es")]


def fill(template, seed=0, decimal="."):
    return _phrases.fill(template, Random(seed), {"name": "Nerys Wexenwold"}, decimal=decimal)


def test_a_named_slot_and_a_choice():
    assert fill("{name} is {well|well}") == "Nerys Wexenwold is well"


def test_a_choice_may_hold_slots():
    assert {fill("{stopped {3-3} years ago|never}", seed) for seed in range(30)} == {"stopped 3 years ago", "never"}


def test_an_unknown_slot_is_refused():
    with pytest.raises(KeyError):
        fill("{nmae}")


@given(st.integers(), st.integers(0, 500), st.integers(0, 500))
def test_integers_stay_in_their_range(seed, low, more):
    assert low <= int(fill(f"{{{low}-{low + more}}}", seed)) <= low + more


@given(st.integers())
def test_decimals_stay_in_their_range_with_their_places(seed):
    drawn = fill("{0.05-1.20}", seed, ",")
    assert 0.05 <= float(drawn.replace(",", ".")) <= 1.2
    assert len(drawn.split(",")[1]) == 2


@pytest.mark.parametrize(("collection", "language"), BANKS)
def test_banks_are_complete(collection, language):
    bank = _phrases.load_bank(collection, language)
    assert set(bank.opening) == set(bank.closing)
    for kind, phrases in bank.opening.items():
        assert all("{name}" in phrase and "{condition}" in phrase for phrase in phrases), kind
    keys = [(topic.name, facet.key) for topic in bank.topics for facet in topic.facets]
    assert len(keys) == len(set(keys))
    for topic in bank.topics:
        assert set(topic.sensitivity) <= {0, 1, 2, 3}
        for facet in topic.facets:
            assert len(set(facet.says)) >= 3
            assert facet.setting is None or (facet.query and facet.setting in bank.opening)


@pytest.mark.parametrize("collection", list(plans))
def test_each_collection_has_forty_topics_with_near_misses(collection):
    topics = [t for name, language in BANKS if name == collection for t in _phrases.load_bank(name, language).topics]
    assert 40 <= len({t.name for t in topics}) == len(topics) <= 60
    assert all(len(t.facets) >= 3 for t in topics)
