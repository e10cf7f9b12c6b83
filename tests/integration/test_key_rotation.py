"""Keys replaced in a running service, and in one that was cut off in the middle of it."""

import threading

import pytest

from secure_embed.custody.rotating import Rotating
from secure_embed.custody.succession import Successions
from secure_embed.errors import Unavailable
from secure_embed.keys import Successor

pytestmark = pytest.mark.model

records = 30
CARDS = {"department": "cards", "sensitivity": 0}


def complaint(number):
    return {
        "id": f"c-{number}",
        "text": f"The card of customer {number} was {['lost', 'charged twice', 'never sent'][number % 3]}.",
        "subject": f"person-{number}",
        "attributes": CARDS,
    }


@pytest.fixture
def filled(open_house):
    assert open_house.ingest("complaints", [complaint(n) for n in range(records)]).status_code == 201
    return open_house


def answers(house):
    """What a handler finds and reads."""
    found = house.query("complaints", "a card that was charged two times", house.handler(), k=5, include_text=True)
    assert found.status_code == 200, found.text
    return found.json()["hits"]


def test_every_key_is_rotated_while_the_same_is_answered(filled):
    """Root, collection, log and databases, twice over; answers stay, and so they do behind a restart."""
    house = filled
    before = answers(house)
    first = house.http.get("/v1/keys", headers=house.security()).json()
    for kind, more in (
        ("root", {}),
        ("collection", {"collection": "complaints"}),
        ("log", {}),
        ("store", {}),
        ("collection", {"collection": "complaints", "reseal": True}),
        ("root", {}),
    ):
        assert house.rotate(kind, **more)["state"] == "done"
        assert answers(house) == before
    assert house.ingest("complaints", [complaint(records)]).status_code == 201
    house.reopen()
    assert answers(house) == before
    assert house.ingest("complaints", [complaint(records + 1)]).status_code == 201
    after = house.http.get("/v1/keys", headers=house.security()).json()
    assert after["key_id"] != first["key_id"]
    versions = {c["collection"]: c["version"] for c in after["collections"]}
    assert versions == {"clinical-notes": 1, "complaints": 3}
    assert [r["state"] for r in after["rotations"]] == ["done"] * 6
    actions = [event["action"] for event in house.events()]
    assert (actions.count("keys.rotated"), actions.count("keys.resealed"), actions.count("log.key")) == (6, 1, 1)


def test_resealed_values_are_new_and_the_old_ones_are_in_no_file(filled):
    """Every sealed value differs behind a re-sealing, and what it replaced lies nowhere any more."""
    house = filled
    segments = house.root / "data" / "segments"
    before = b"".join(path.read_bytes() for path in segments.rglob("*") if path.is_file())
    house.rotate("collection", collection="complaints", reseal=True)
    house.close()
    slots = [before[at : at + 801] for at in range(0, len(before) - 800, 801)]
    old = {slot[60:100] for slot in slots if any(slot)}
    assert len(old) == records
    for path in house.root.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(piece in content for piece in old), path.name
    house.open()


def test_queries_beside_a_resealing_are_never_wrong(filled):
    """Readers go on: each answer is the answer from before, whatever lies under which key at that moment."""
    house = filled
    before, wrong, stop = answers(house), [], threading.Event()

    def ask():
        while not stop.is_set():
            if (now := answers(house)) != before:
                wrong.append(now)

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(5):
        assert house.rotate("collection", collection="complaints", reseal=True)["state"] == "done"
    stop.set()
    asking.join()
    assert wrong == []


@pytest.mark.parametrize("kind", ["root", "log", "store"])
@pytest.mark.parametrize("when", ["before the keyring is replaced", "after it was written"])
def test_a_rotation_that_was_cut_off_is_settled_at_the_next_start(filled, monkeypatch, kind, when):
    """The next start decides by what had happened, and goes on with the one keyring that opens everything."""
    house = filled
    before = answers(house)

    def cut_off(*_, **__):
        raise Unavailable("the power went", code="storage_unavailable")

    with monkeypatch.context() as broken:
        if when == "before the keyring is replaced":
            broken.setattr(Successor, "commit", cut_off)
        else:
            broken.setattr(Successor, "abandon", lambda _: None)
            target = {"root": "_rewrapped", "log": "_log", "store": "_databases"}[kind]
            if kind == "root":
                broken.setattr(Successions, target, lambda *_: cut_off)
            elif kind == "log":
                broken.setattr(house.deployment.log, "rotate", cut_off)
            else:
                broken.setattr("secure_embed.keys.SealedDatabase.rekey", cut_off)
        failed = house.rotate(kind)
        assert (failed["state"], failed["error"]) == ("failed", "storage_unavailable")
        assert (house.root / "keys" / "keyring.next.json").exists()
        house.close()
    house.open()
    assert not (house.root / "keys" / "keyring.next.json").exists()
    assert not (house.root / "keys" / "root.next.json").exists()
    assert answers(house) == before
    assert house.rotate(kind)["state"] == "done"
    house.reopen()
    assert answers(house) == before


@pytest.mark.parametrize("cut_off", [False, True], ids=["and ends", "and is cut off"])
def test_nobody_is_refused_while_a_new_root_takes_over(filled, monkeypatch, cut_off):
    """Between the store's commit and the keyring's, collections are made and keys replaced under the new root."""
    house, commit, reached, go_on = filled, Successor.commit, threading.Event(), threading.Event()
    before = answers(house)

    def held(successor):
        reached.set()
        assert go_on.wait(60)
        if cut_off:
            raise Unavailable("the power went", code="storage_unavailable")
        commit(successor)

    monkeypatch.setattr(Successor, "commit", held)
    rotating = threading.Thread(target=house.rotate, args=["root"])
    rotating.start()
    assert reached.wait(60)
    try:
        house.create_collection("claims")
        erased = house.http.delete("/v1/collections/complaints/records/c-2", headers=house.privacy())
        assert erased.status_code == 200, erased.text
        versions = house.deployment.holdings.key_versions()
        assert answers(house) == before
    finally:
        go_on.set()
        rotating.join()
    assert versions["complaints"] == 2  # the end of what was erased, at once
    if cut_off:
        house.close()
        monkeypatch.undo()
        house.open()
    assert answers(house) == before
    assert house.deployment.holdings.records("claims") == 0
    with house.deployment.holdings.using("claims") as holding:
        assert holding.key_version == 1


def test_a_new_root_that_the_store_has_taken_is_never_taken_back(filled, monkeypatch):
    """The disk fails behind the store's commit, twice: the old keyring names a root that opens nothing any more."""
    house = filled
    before = answers(house)

    def fails(*_):
        raise Unavailable("the disk fails", code="storage_unavailable")

    with monkeypatch.context() as broken:
        broken.setattr("secure_embed.keys.SealedDatabase.empty_write_ahead_log", fails)
        assert house.rotate("root")["state"] == "failed"
    assert answers(house) == before
    assert house.ingest("complaints", [complaint(records)]).status_code == 201
    house.reopen()
    assert answers(house) == before
    assert house.rotate("root")["state"] == "done"


def test_a_resealing_goes_on_behind_a_restart(filled, monkeypatch):
    """Stopped between two segments, it is running again after the start, and ends."""
    house = filled
    before = answers(house)
    monkeypatch.setattr(Rotating, "_end", lambda *_, **__: None)  # as if the process were gone by then
    begun = house.http.post(
        "/v1/keys/rotations",
        json={"kind": "collection", "collection": "complaints", "reseal": True, "records_per_second": 1},
        headers=house.security(),
    ).json()
    house.close()
    monkeypatch.undo()
    house.open()
    shown = begun
    for _ in range(500):
        shown = house.http.get(f"/v1/keys/rotations/{begun['id']}", headers=house.security()).json()
        if shown["state"] != "running":
            break
        threading.Event().wait(0.02)
    assert (shown["state"], shown["done"]) == ("done", records)
    assert answers(house) == before


def test_one_rotation_at_a_time_and_no_other_kind(filled, monkeypatch):
    house = filled
    ask = lambda body: house.http.post("/v1/keys/rotations", json=body, headers=house.security())  # noqa: E731
    for body in ({"kind": "collection"}, {"kind": "root", "collection": "complaints"}, {"kind": "log", "reseal": True}):
        assert (ask(body).status_code, ask(body).json()["code"]) == (422, "rotation_invalid")
    slow = {"kind": "collection", "collection": "complaints", "reseal": True, "records_per_second": 1}
    assert ask(slow).status_code == 202
    refused = ask({"kind": "root"})
    assert (refused.status_code, refused.json()["code"]) == (409, "rotation_running")
    unknown = house.http.get("/v1/keys/rotations/00000000-0000-4000-8000-000000000000", headers=house.security())
    assert (unknown.status_code, unknown.json()["code"]) == (404, "rotation_not_found")


def test_keys_are_for_the_security_officer(filled):
    """The scope alone is not enough, and neither is another's task."""
    house = filled
    clerk = house.token("clerk", ["keys:admin"], department="cards", purpose="key-management")
    for headers, code in ((clerk, "policy_denied"), (house.writer(), "insufficient_scope")):
        answer = house.http.post("/v1/keys/rotations", json={"kind": "root"}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, code)
