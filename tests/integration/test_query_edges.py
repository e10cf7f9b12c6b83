"""Queries at the edges of what a collection holds: nothing, less than was asked for, nothing that the filter leaves."""

import pytest

pytestmark = pytest.mark.model

COLLECTION = "clinical-notes"


def notes(count: int) -> list[dict]:
    attributes = {"department": "cardiology", "sensitivity": 0, "country": "DE"}
    return [{"id": f"n-{n}", "text": f"Note {n} on the knee.", "attributes": attributes} for n in range(count)]


def test_an_empty_collection_is_as_small_as_one_of_few_records(open_house) -> None:
    answer = open_house.query(COLLECTION, "knee", open_house.clinician())
    assert (answer.status_code, answer.json()["code"]) == (403, "collection_too_small")


def test_k_over_the_number_of_records_gives_them_all(open_house) -> None:
    assert open_house.ingest(COLLECTION, notes(3)).status_code == 201
    hits = open_house.query(COLLECTION, "knee", open_house.clinician(), k=10).json()["hits"]
    assert sorted(hit["id"] for hit in hits) == ["n-0", "n-1", "n-2"]


def test_a_filter_that_leaves_nothing_answers_with_nothing(open_house) -> None:
    assert open_house.ingest(COLLECTION, notes(3)).status_code == 201
    own = {"attribute": "country", "equals": "FR"}
    answer = open_house.query(COLLECTION, "knee", open_house.clinician(), filter=own)
    assert (answer.status_code, answer.json().get("hits")) == (200, []), answer.text
