"""Legal holds: what is held is erased by nobody, not in part and not by its date; and in which order the two come."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from secure_embed.collection.holding import Holding
from tests.conftest import House
from tests.worded import complaint, erasing, everything, worded_house

end, end_unix = "2096-10-02T07:06:40Z", 4_000_000_000
why = "litigation 12 O 34/26, ask Ms Ömer"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with worded_house(tmp_path) as made:
        records = [complaint(n, **({"expires_at": end} if n >= 8 else {})) for n in range(12)]
        assert made.ingest("complaints", records).status_code == 201
        assert made.ingest("clinical-notes", [complaint(0), complaint(2)]).status_code == 201
        yield made


def place(house: House, **what: Any) -> Any:
    answer = house.http.post("/v1/holds", json={"reason": why} | what, headers=house.legal())
    assert answer.status_code == 201, answer.text
    return answer.json()


def release(house: House, hold: Any) -> Any:
    return house.http.delete(f"/v1/holds/{hold['id']}", headers=house.legal())


def erase(house: House, **asked: Any) -> Any:
    return house.http.post("/v1/erasures", json=asked, headers=house.privacy())


def erase_record(house: House, number: int) -> Any:
    path = f"/v1/collections/complaints/records/{complaint(number)['id']}"
    return house.http.delete(path, headers=house.privacy())


def records(house: House) -> tuple[int, int]:
    return tuple(house.deployment.holdings.named(n).records for n in ("complaints", "clinical-notes"))  # type: ignore[return-value]


def states(house: House) -> int:
    return len(house.deployment.holdings._store.states(1))  # type: ignore[arg-type]  # StateKind.ERASURE


HELD = {
    "subject": {"subject": "customer-0000"},
    "record": {"collection": "complaints", "record": "complaint-0001"},
}


@pytest.mark.parametrize("hold", HELD)
@pytest.mark.parametrize("way", ["subject", "record", "collection"])
def test_an_erasure_that_touches_what_is_held_is_refused_whole_and_says_why(house: House, hold: str, way: str) -> None:
    placed = place(house, **HELD[hold])
    before = records(house)
    tried = {
        "subject": lambda: erase(house, subject="customer-0000"),
        "record": lambda: erase_record(house, 1),
        "collection": lambda: house.http.delete("/v1/collections/complaints", headers=house.privacy()),
    }[way]
    for _ in range(2):
        refused = tried()
        problem = refused.json()
        assert (refused.status_code, problem["code"]) == (409, "legal_hold")
        assert (problem["hold"], problem["reason"]) == (placed["id"], why)
        assert (records(house), states(house)) == (before, 0)
        house.reopen()  # holds outlive a restart
    assert release(house, placed).status_code == 200
    assert tried().json()["state"] == "done"


def test_what_is_not_held_can_be_erased(house: House) -> None:
    place(house, **HELD["record"])
    place(house, subject="customer-0001")
    assert erase_record(house, 0).json()["state"] == "done"
    assert erase(house, subject="customer-0000", collections=["clinical-notes"]).json()["records"] == 1
    assert erase(house, subject="customer-0002").json()["records"] == 2


def test_a_subject_is_held_in_collections_and_records_that_come_later(house: House) -> None:
    placed = place(house, subject="somebody new")
    assert placed["records"] == 0
    house.ingest("complaints", [complaint(50, subject="somebody new")])
    assert erase(house, subject="somebody new").json()["code"] == "legal_hold"
    assert erase_record(house, 50).json()["code"] == "legal_hold"


def test_two_holds_on_one_record_are_released_one_by_one(house: House) -> None:
    holds = [place(house, **HELD["subject"]), place(house, **HELD["record"])]
    for hold in holds:
        assert erase_record(house, 1).json()["code"] == "legal_hold"
        assert release(house, hold).status_code == 200
    assert erase_record(house, 1).json()["state"] == "done"


def test_a_sweep_leaves_what_is_held_and_says_how_many(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where more is held than one sweep takes."""
    monkeypatch.setattr("secure_embed.erasure.erasing.sweep_records_max", 1)
    held = [place(house, subject="customer-0004"), place(house, collection="complaints", record="complaint-0010")]
    assert [erasing(house).sweep(end_unix) for _ in range(2)] == [1, 0]
    (outcome,) = [e for e in house.events() if e["action"] == "retention.sweep" and e["phase"] == "OUTCOME"]
    assert (outcome["results"], outcome["details"]["held"]) == (1, 3)
    assert records(house) == (11, 2)
    for hold in held:
        release(house, hold)
    assert [erasing(house).sweep(end_unix) for _ in range(4)] == [1, 1, 1, 0]


def test_holds_are_listed_for_who_may_see_them_and_stand_nowhere_in_plain(house: House) -> None:
    first, second = place(house, **HELD["subject"]), place(house, **HELD["record"])
    assert (first["records"], second["records"]) == (3, 1)
    for headers in (house.legal(), house.privacy()):
        listed = house.http.get("/v1/holds", headers=headers).json()["holds"]
        assert {each["id"] for each in listed} == {first["id"], second["id"]}
        assert {each["reason"] for each in listed} == {why}
        assert {(each["subject"], each["collection"], each["record"]) for each in listed} == {
            ("customer-0000", None, None),
            (None, "complaints", "complaint-0001"),
        }
        assert all("counsel" in each["placed_by"] for each in listed)
    files = everything(house)
    assert not any(word in files for word in (b"litigation", b"customer-0000", b"complaint-0001"))
    release(house, first)
    release(house, second)
    assert house.http.get("/v1/holds", headers=house.legal()).json()["holds"] == []
    actions = [(e["action"], e["phase"]) for e in house.events() if e["action"].startswith("hold.")]
    assert actions.count(("hold.place", "OUTCOME")) == actions.count(("hold.release", "OUTCOME")) == 2


def test_only_the_legal_department_places_and_releases(house: House) -> None:
    placed = place(house, **HELD["subject"])
    for headers in (house.privacy(), house.handler(), house.writer(), house.auditor()):
        body = {"reason": "none", "subject": "customer-0001"}
        assert house.http.post("/v1/holds", json=body, headers=headers).status_code == 403
        assert house.http.delete(f"/v1/holds/{placed['id']}", headers=headers).status_code == 403
    assert house.http.get("/v1/holds", headers=house.handler()).status_code == 403
    assert erase(house, subject="customer-0000").json()["code"] == "legal_hold"


MALFORMED = [
    ({}, "hold_invalid"),
    ({"subject": "a", "collection": "complaints", "record": "complaint-0001"}, "hold_invalid"),
    ({"subject": "a", "record": "complaint-0001"}, "hold_invalid"),
    ({"collection": "complaints"}, "hold_invalid"),
    ({"record": "complaint-0001"}, "hold_invalid"),
    ({"collection": "complaints", "record": "not there"}, "record_not_found"),
    ({"collection": "not-there", "record": "complaint-0001"}, "collection_not_found"),
    ({"subject": "a", "reason": "  "}, "hold_invalid"),
    ({"subject": "a", "reason": "a\x1b[31m"}, "hold_invalid"),
    ({"subject": "a", "reason": "a\nb"}, "hold_invalid"),
    ({"subject": "a", "reason": "x" * 501}, "invalid_request"),
    ({"subject": ""}, "subject_invalid"),
    ({"subject": "x" * 513}, "subject_invalid"),
]


def test_a_malformed_hold_is_refused(house: House) -> None:
    for what, code in MALFORMED:
        refused = house.http.post("/v1/holds", json={"reason": why} | what, headers=house.legal())
        assert refused.json()["code"] == code, what
    assert house.http.get("/v1/holds", headers=house.legal()).json()["holds"] == []


def test_a_hold_that_comes_while_an_erasure_runs_comes_after_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits, and says then that it holds nothing: nobody is told that something is held which goes all the same."""
    reached, go_on = Event(), Event()
    original = Holding.erase

    def slow(self: Holding, *given: Any, **more: Any) -> Any:
        reached.set()
        assert go_on.wait(30)
        return original(self, *given, **more)

    monkeypatch.setattr(Holding, "erase", slow)
    answers: dict[str, Any] = {}
    eraser = Thread(target=lambda: answers.update(erased=erase(house, subject="customer-0000").json()))
    eraser.start()
    assert reached.wait(30)
    holder = Thread(target=lambda: answers.update(held=place(house, subject="customer-0000")))
    holder.start()
    holder.join(0.5)
    assert holder.is_alive()
    go_on.set()
    for thread in (eraser, holder):
        thread.join(30)
    assert (answers["erased"]["records"], answers["held"]["records"]) == (3, 0)


def test_a_hold_before_an_erasure_that_was_cut_off_goes_on_keeps_what_is_left(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The erasure failed before its first key went; a hold was placed; the erasure goes on without what is held."""
    from secure_embed.errors import Unavailable

    def full(*_: Any, **__: Any) -> None:
        raise Unavailable("there is no space left to write", code="storage_full", http_status=507)

    with monkeypatch.context() as broken:
        broken.setattr(Holding, "erase", full)
        assert erase(house, subject="customer-0000").status_code == 507
    place(house, **HELD["record"])
    assert erasing(house).complete() == 0
    assert records(house) == (11, 1)
    assert house.deployment.holdings.named("complaints").locate("complaint-0001") is not None
