"""Records that end by their date: refused when it is past, not answered from then on, erased by the next sweep."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from secure_embed.audit import verify_note
from secure_embed.collection import rows
from tests.conftest import House
from tests.worded import complaint, erasing, worded_house

end, end_unix = "2096-10-02T07:06:40Z", 4_000_000_000


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with worded_house(tmp_path) as made:
        yield made


@pytest.fixture
def filled(house: House) -> House:
    records = [complaint(n, **({"expires_at": end} if n % 2 else {})) for n in range(12)]
    assert house.ingest("complaints", records).status_code == 201
    return house


def fetch(house: House, number: int) -> Any:
    return house.http.get(f"/v1/collections/complaints/records/{complaint(number)['id']}", headers=house.handler())


def found(house: House, number: int) -> set[str]:
    hits = house.query("complaints", complaint(number)["text"], house.handler(), k=10).json()["hits"]
    return {hit["id"] for hit in hits}


def test_a_date_is_taken_in_any_offset_and_shown_in_utc(house: House) -> None:
    written = {0: end, 1: "2096-10-02T09:06:40+02:00", 2: "2096-10-02t07:06:40.999z", 3: "2096-10-01T23:06:40-08:00"}
    assert house.ingest("complaints", [complaint(n, expires_at=at) for n, at in written.items()]).status_code == 201
    assert {fetch(house, n).json()["expires_at"] for n in written} == {end}
    house.ingest("complaints", [complaint(9)])
    assert fetch(house, 9).json()["expires_at"] is None


def test_a_date_that_is_past_or_none_is_refused_with_the_whole_batch(house: House) -> None:
    past = datetime.fromtimestamp(time.time() - 1, UTC).isoformat()
    for wrong in (
        *(past, "1969-12-31T23:59:59Z", "2096-10-02", "2096-10-02T07:06:40", "2096-10-02 07:06:40Z"),
        *("2096-02-30T00:00:00Z", "2096-10-02T07:06:60Z", "tomorrow", "", "20961002T070640Z"),
        *("9999-12-31T23:59:59-01:00", "２０９６-10-02T07:06:40Z"),
    ):
        refused = house.ingest("complaints", [complaint(0), complaint(1, expires_at=wrong)])
        assert (refused.status_code, refused.json()["code"]) == (422, "expires_at_invalid"), wrong
    assert house.ingest("complaints", [complaint(1, expires_at=4_000_000_000)]).json()["code"] == "invalid_request"
    assert house.deployment.holdings.named("complaints").records == 0


def test_the_date_is_part_of_what_an_idempotency_key_stands_for(house: House) -> None:
    key = {"Idempotency-Key": "one"}
    assert house.ingest("complaints", [complaint(0, expires_at=end)], **key).status_code == 201
    assert house.ingest("complaints", [complaint(0)], **key).json()["code"] == "request_mismatch"


def test_nothing_is_answered_of_a_record_whose_end_has_come(filled: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any sweep has run; a second earlier it was answered. It can still be erased."""
    monkeypatch.setattr(rows, "time", SimpleNamespace(time=lambda: end_unix - 1))
    assert fetch(filled, 1).status_code == 200
    assert complaint(1)["id"] in found(filled, 1)
    monkeypatch.setattr(rows, "time", SimpleNamespace(time=lambda: end_unix))
    assert (fetch(filled, 1).status_code, fetch(filled, 2).status_code) == (404, 200)
    assert found(filled, 1) <= {complaint(n)["id"] for n in range(0, 12, 2)}
    path = f"/v1/collections/complaints/records/{complaint(1)['id']}"
    assert filled.http.delete(path, headers=filled.privacy()).json()["state"] == "done"


def test_a_sweep_erases_what_has_ended_with_a_receipt_and_nothing_else(filled: House) -> None:
    size = filled.deployment.log.head().size
    assert erasing(filled).sweep(end_unix - 1) == 0
    assert filled.deployment.log.head().size == size  # nothing to do: nothing logged
    assert erasing(filled).sweep(end_unix) == 6
    assert [fetch(filled, n).status_code for n in range(4)] == [200, 404, 200, 404]
    intent, outcome = [e for e in filled.events() if e["action"] == "retention.sweep"]
    assert (intent["phase"], outcome["phase"], outcome["decision"]) == ("INTENT", "OUTCOME", "allowed")
    assert (outcome["results"], outcome["details"]["held"]) == (6, 0)
    assert "principal" not in intent
    identifier = outcome["details"]["erasure"]
    shown = filled.http.get(f"/v1/erasures/{identifier}", headers=filled.privacy()).json()
    assert (shown["state"], shown["kind"], shown["records"]) == ("done", "retention", 6)
    said = orjson.loads(verify_note(filled.deployment.log.newest_key(), shown["note"], kind="erasure-receipt"))
    assert (said["reason"], said["kind"], len(said["record_keys"])) == ("expired", "retention", 6)
    assert erasing(filled).sweep(end_unix) == 0


def test_a_sweep_takes_a_bounded_number(filled: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secure_embed.erasure.erasing.sweep_records_max", 4)
    assert [erasing(filled).sweep(end_unix) for _ in range(3)] == [4, 2, 0]


def test_a_date_survives_a_restart_and_a_resealing(filled: House) -> None:
    filled.rotate("collection", collection="complaints", reseal=True)
    filled.reopen()
    assert fetch(filled, 1).json()["expires_at"] == end
    assert erasing(filled).sweep(end_unix) == 6
