"""Erasure over HTTP on a real deployment: its states, its receipt, and that it ends whatever cuts it off."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from secure_embed.audit import verify_note
from secure_embed.collection import holding
from tests.conftest import House
from tests.worded import complaint, erasing, worded_house


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with worded_house(tmp_path) as made:
        assert made.ingest("complaints", [complaint(n) for n in range(12)]).status_code == 201
        yield made


def erase(house: House, **asked: Any) -> Any:
    answer = house.http.post("/v1/erasures", json=asked, headers=house.privacy())
    assert answer.status_code == 201, answer.text
    return answer.json()


def shown(house: House, erasure: Any) -> Any:
    return house.http.get(f"/v1/erasures/{erasure['id']}", headers=house.privacy()).json()


def receipt(house: House, erased: Any) -> Any:
    return orjson.loads(verify_note(house.deployment.log.newest_key(), erased["note"], kind="erasure-receipt"))


def readable(house: House, number: int) -> bool:
    path = f"/v1/collections/complaints/records/{complaint(number)['id']}"
    read = house.http.get(path, headers=house.handler()).status_code == 200
    hits = house.query("complaints", complaint(number)["text"], house.handler(), k=3).json()["hits"]
    assert read == (complaint(number)["id"] in {hit["id"] for hit in hits})
    return read


def digests(house: House) -> list[str]:
    return [e["details"]["receipt_sha256"] for e in house.events() if "receipt_sha256" in e.get("details", {})]


def test_a_small_collections_erasure_is_done_at_once_and_says_what_was_destroyed(house: House) -> None:
    uuid = house.deployment.holdings.named("complaints").uuid
    erased = erase(house, subject="customer-0002", reason="gdpr-art-17")
    assert (erased["state"], erased["kind"], erased["records"]) == ("done", "subject", 2)
    assert not readable(house, 4)
    assert not readable(house, 5)
    assert readable(house, 6)
    said = receipt(house, erased)
    assert said["type"] == "secure_embed/erasure-receipt/v2"
    assert (said["erasure"], said["reason"], said["records"]) == (erased["id"], "gdpr-art-17", 2)
    assert said["record_keys"] == [f"{uuid}/1/4-5"]
    assert said["record_keys_sha256"] == hashlib.sha256(f"{uuid}/1/4-5\n".encode()).hexdigest()
    assert said["destroyed"] == [
        {
            "collection": "complaints",
            "collection_uuid": str(uuid),
            "records": 2,
            "whole_collection": False,
            "key_version_destroyed": 1,
        }
    ]
    assert said["keys_backups_until"].startswith("unknown")
    assert said["keys_deleted"] <= said["versions_destroyed"]
    entry = house.deployment.log.entries(said["log_index"], 1)[0]
    assert hashlib.sha256(b"\x00" + entry).hexdigest() == said["log_leaf_hash"]
    assert orjson.loads(entry)["details"]["erasure"] == erased["id"]
    assert shown(house, erased)["note"] == erased["note"]


def test_the_receipts_digest_stands_in_the_log_once(house: House) -> None:
    erased = erase(house, subject="customer-0000")
    digest = hashlib.sha256(erased["note"].encode()).hexdigest()
    outcome = house.events()[erased["receipt"]["index"]]
    assert (outcome["phase"], outcome["details"]["receipt_sha256"]) == ("OUTCOME", digest)
    assert erasing(house).complete() == 0
    house.reopen()
    assert digests(house) == [digest]


def test_the_receipt_says_until_when_copies_of_the_keys_are_kept(tmp_path: Path) -> None:
    with worded_house(tmp_path, settings="\n[keys]\nbackup_retention_days = 30\n") as house:
        house.ingest("complaints", [complaint(0)])
        said = receipt(house, erase(house, subject="customer-0000"))
        destroyed = datetime.fromisoformat(said["versions_destroyed"])
        assert said["keys_backups_until"] == (destroyed + timedelta(days=30)).date().isoformat()
        assert abs(destroyed - datetime.now(UTC)) < timedelta(minutes=5)


def test_one_record_is_erased_as_finally_as_a_subject(house: House) -> None:
    path = f"/v1/collections/complaints/records/{complaint(3)['id']}"
    erased = house.http.delete(path, params={"reason": "mistake"}, headers=house.privacy()).json()
    assert (erased["state"], erased["kind"], erased["records"]) == ("done", "record", 1)
    assert (receipt(house, erased)["reason"], receipt(house, erased)["records"]) == ("mistake", 1)
    assert not readable(house, 3)
    assert readable(house, 2)
    again = house.http.delete(path, headers=house.privacy())
    assert (again.status_code, again.json()["code"]) == (404, "record_not_found")


def test_nobody_to_erase_is_an_erasure_too(house: House) -> None:
    erased = erase(house, subject="nobody")
    assert (erased["state"], erased["records"]) == ("done", 0)
    assert receipt(house, erased)["record_keys"] == []


class TestLargeCollections:
    """Where keys are re-wrapped at night."""

    @pytest.fixture(autouse=True)
    def large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(holding, "rotate_at_once_max", 1)

    def test_an_erasure_waits_for_the_night_and_its_receipt_with_it(self, house: House) -> None:
        stored = house.deployment.holdings.named("complaints")
        erased = [erase(house, subject=f"customer-000{n}") for n in range(2)]
        assert [(e["state"], e["note"]) for e in erased] == [("shredded", None)] * 2
        assert not any(readable(house, n) for n in range(4))
        house.reopen()  # a start does not rotate large collections
        stored = house.deployment.holdings.named("complaints")
        assert (stored.key_version, [shown(house, e)["state"] for e in erased]) == (1, ["shredded"] * 2)
        assert digests(house) == []

        assert erasing(house).complete() == 0
        ended = [shown(house, e) for e in erased]
        assert [e["state"] for e in ended] == ["done"] * 2
        assert stored.key_version == 2  # once for both
        said = receipt(house, ended[0])
        assert said["destroyed"][0]["key_version_destroyed"] == 1
        assert sorted(digests(house)) == sorted(hashlib.sha256(e["note"].encode()).hexdigest() for e in ended)
        done = [e for e in house.events() if e["action"] == "erasure.done"]
        assert {(e["phase"], e["details"]["erasure"]) for e in done} == {("SYSTEM", e["id"]) for e in ended}

        size = house.deployment.log.head().size
        assert erasing(house).complete() == 0
        assert (stored.key_version, house.deployment.log.head().size) == (2, size)

    def test_a_rotation_by_hand_ends_it_as_well(self, house: House) -> None:
        erased = erase(house, subject="customer-0000")
        house.rotate("collection", collection="complaints")
        assert erasing(house).complete() == 0
        assert shown(house, erased)["state"] == "done"
        assert house.deployment.holdings.named("complaints").key_version == 2

    def test_the_end_of_the_whole_collection_ends_it_as_well(self, house: House) -> None:
        erased = erase(house, subject="customer-0000")
        whole = house.http.delete("/v1/collections/complaints", headers=house.privacy()).json()
        assert (whole["state"], whole["records"]) == ("done", 10)
        assert erasing(house).complete() == 0
        assert shown(house, erased)["state"] == "done"

    def test_one_night_replaces_the_keys_of_a_bounded_number_of_collections(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("secure_embed.erasure.erasing.rotations_max", 1)
        house.ingest("clinical-notes", [complaint(n) for n in range(4)])
        erased = [erase(house, subject="customer-0001", collections=[n]) for n in ("complaints", "clinical-notes")]
        assert erasing(house).complete() == 1
        assert sorted(shown(house, e)["state"] for e in erased) == ["done", "shredded"]
        assert erasing(house).complete() == 0
        assert [shown(house, e)["state"] for e in erased] == ["done", "done"]


class TestWholeCollections:
    def test_it_is_gone_and_its_name_is_free(self, house: House) -> None:
        uuid = house.deployment.holdings.named("complaints").uuid
        erased = house.http.delete("/v1/collections/complaints", headers=house.privacy()).json()
        assert (erased["state"], erased["kind"], erased["records"]) == ("done", "collection", 12)
        said = receipt(house, erased)
        assert said["record_keys"] == [f"{uuid}/1/0-11"]
        assert said["destroyed"][0]["whole_collection"] is True
        reader = house.handler()
        for answer in (
            house.http.get("/v1/collections/complaints/records/complaint-0001", headers=reader),
            house.query("complaints", "card", reader),
            house.http.delete("/v1/collections/complaints", headers=house.privacy()),
        ):
            assert (answer.status_code, answer.json()["code"]) == (404, "collection_not_found")
        house.reopen()
        assert house.deployment.holdings.names() == ["clinical-notes"]
        assert shown(house, erased)["state"] == "done"
        house.create_collection("complaints")
        assert house.ingest("complaints", [complaint(1)]).status_code == 201
        assert readable(house, 1)

    def test_its_erasure_can_be_shown_when_no_collection_is_left(self, house: House) -> None:
        erased = [
            house.http.delete(f"/v1/collections/{name}", headers=house.privacy()).json()
            for name in ("complaints", "clinical-notes")
        ]
        assert [shown(house, e)["state"] for e in erased] == ["done", "done"]

    def test_only_who_may_erase_collections_does(self, house: House) -> None:
        for headers, code in (
            (house.handler(), "insufficient_scope"),
            (house.token("other", ["records:erase"], department="cards", purpose="erasure"), "policy_denied"),
        ):
            refused = house.http.delete("/v1/collections/complaints", headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (403, code)
        assert readable(house, 1)


def test_a_collection_that_comes_to_its_end_meanwhile_holds_up_no_erasure_of_a_subject(open_house, monkeypatch) -> None:
    for name in ("clinical-notes", "complaints"):
        records = [{"id": f"{name}-{n}", "text": f"Note {n}.", "subject": "anna"} for n in range(3)]
        assert open_house.ingest(name, records).status_code == 201
    erasing = open_house.deployment.vault.erasures._erasing
    run, ended = erasing.run, []

    def run_after_the_other(*args, **more):
        if more["kind"] == "subject" and not ended:  # between the look at both collections and the erasure
            ended.append(open_house.http.delete("/v1/collections/complaints", headers=open_house.privacy()).status_code)
        return run(*args, **more)

    monkeypatch.setattr(erasing, "run", run_after_the_other)
    answer = open_house.http.post(
        "/v1/erasures", json={"subject": "anna", "reason": "request"}, headers=open_house.privacy()
    )
    assert ended
    assert ended[0] < 300
    assert answer.status_code < 300, answer.text
    assert answer.json()["records"] == 3
