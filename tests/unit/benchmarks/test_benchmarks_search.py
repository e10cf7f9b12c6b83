"""What search.py's figures rest on: its vectors, its exact answers, and results that are measured again in part."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def part():
    """Benchmarks are programs in one folder, not a package."""
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def data(part):
    return part("search_data").Clustered(records=12_000, dimension=16, clusters=200, noise=0.3)


def test_vectors_are_of_unit_length_and_the_same_in_every_process(data):
    first, second = (np.concatenate(list(data.blocks())) for _ in range(2))
    assert first.shape == (12_000, 16)
    assert first.dtype == np.float32
    assert np.abs(np.linalg.norm(first, axis=1) - 1).max() < 1e-5
    assert (first == second).all()


def test_blocks_differ(data):
    first, second = data.blocks()
    assert not (first[: len(second)] == second).all(axis=1).any()


def test_a_query_is_near_a_cluster_and_is_no_stored_vector(data):
    vectors, queries = np.concatenate(list(data.blocks())), data.queries(50)
    nearest = (queries @ vectors.T).max(axis=1)
    assert (nearest > 0.7).all()
    assert (nearest < 0.9999).all()


def test_filters_leave_the_share_that_they_name(part, data):
    slices = data.slices()
    assert len(slices) == data.records
    assert np.mean(slices < 0.1 * part("search_data").SLICES) == pytest.approx(0.1, abs=0.01)


def test_exact_answers_are_those_of_a_whole_sort_behind_any_mask(part, data):
    vectors, queries = np.concatenate(list(data.blocks())), data.queries(5)
    masks = {"all": np.ones(data.records, np.bool_), "few": data.slices() < 5}
    right = part("search_data").exact(data.blocks(), queries, 10, masks)
    for name, mask in masks.items():
        scores = np.where(mask, queries @ vectors.T, -np.inf)
        expected = np.sort(scores, axis=1)[:, :-11:-1]
        assert np.take_along_axis(scores, right[name], 1) == pytest.approx(expected, abs=1e-6)


def test_overlap_counts_what_was_found_and_expects_nothing_where_there_is_nothing(part):
    overlap = part("search_data").overlap
    assert overlap([[1, 2, 9], [4]], np.array([[1, 2, 3, 4], [4, -1, -1, -1]])) == pytest.approx(0.75)


def beside_flat(ratio, recall=1.0, measured="1"):
    return {"measured": measured, "recall_at_10": recall, "by_turns": {"ours": {"over_base": {"median": ratio}}}}


def test_a_section_that_is_measured_again_takes_the_place_of_its_old_figures_alone(part):
    merged = part("search_result").merged
    before = merged({}, {"hard": beside_flat(1), "easy": beside_flat(1)})
    after = merged(before, {"hard": beside_flat(2, measured="2")})
    assert list(after["sections"]) == ["easy", "hard"]
    assert after["sections"]["easy"] == before["sections"]["easy"]
    assert after["sections"]["hard"] == beside_flat(2, measured="2")
    assert after["measured"] == ["1", "2"]


def test_a_goal_is_met_or_missed_on_its_own_side(part):
    said = part("search_result").against_goals(
        {
            "easy": beside_flat(0.019, recall=0.98),
            "hard": beside_flat(0.041),
            "concurrent": {"over_one_caller": {"8": {"median": 1.6}}},
            "quality": {"ndcg_at_10_furthest_from_exact": -0.002},
        }
    )
    assert {name: one["met"] for name, one in said.items()} == {
        "easy": True,
        "easy recall_at_10": False,
        "hard": False,
        "hard recall_at_10": True,
        "quality": False,
        "concurrent": True,
    }


def test_vectors_are_cut_into_batches_without_loss(part, data):
    batches = list(part("search_ours")._regrouped(data.blocks(), 3_500))
    assert [len(batch) for batch in batches] == [3_500, 3_500, 3_500, 1_500]
    assert (np.concatenate(batches) == np.concatenate(list(data.blocks()))).all()


def test_the_page_on_sizing_keeps_what_stands_around_its_figures(part):
    sizing = part("search_sizing")
    before = sizing.page.read_text(encoding="utf-8")
    after = sizing.filled(before, "| new |\n")
    head, _, rest = after.partition(sizing.begin)
    assert before.startswith(head)
    assert rest.startswith("| new |\n" + sizing.end)
    assert before.endswith(rest.partition(sizing.end)[2])


def test_sizing_is_the_sum_that_the_page_explains(part):
    sizing = part("search_sizing")
    measured = sizing.Measured(
        dimension=1_024,
        code_bytes=162,
        disk_bytes=3_000,
        ingest_records_per_s=10_000,
        start=sizing.Start(records=200_000, keys_s=0.1, store_s=0.1, codes_s=0.2, first_answer_s=0.01),
        p50_ms=((200_000, 1.0), (1_000_000, 1.8)),
    )
    row = sizing.row(measured, 10_000_000)
    assert row["memory"] == row["codes"] + row["keys"] + row["rows"] + row["codebook"]
    assert row["codes"] == 1_620_000_000
    assert row["keys"] == 410_000_000
    assert row["p50_ms"] == pytest.approx(10.8)
    assert row["start_s"] == pytest.approx(20.01)
    assert sizing.row(measured, 10_000)["p50_ms"] == 1.0
