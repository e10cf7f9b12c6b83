"""The main job over HTTP in one process: ingest, search, read, erase, and what the log says of it."""

import pytest

pytestmark = pytest.mark.model


def note(number: int, **more):
    return {
        "id": f"note-{number}",
        "text": f"Patient {number} was seen for {['chest pain', 'a headache', 'a broken wrist'][number % 3]}.",
        "subject": f"person-{number // 2}",
        "attributes": {"department": "cardiology", "sensitivity": 1, "country": "DE"},
    } | more


def test_an_ingested_record_is_found_read_and_erased(empty_house):
    """What goes in comes out for who may see it, and no longer after its erasure."""
    house = empty_house
    assert house.ingest("clinical-notes", [note(n) for n in range(6)]).json()["records"] == 6
    reader = house.clinician(clearance=3)
    read = house.http.get("/v1/collections/clinical-notes/records/note-3", headers=reader).json()
    assert (read["text"], read["subject"]) == (note(3)["text"], "person-1")

    erased = house.http.post("/v1/erasures", json={"subject": "person-1"}, headers=house.privacy())
    assert erased.status_code == 201
    assert erased.json()["records"] == 2
    assert erased.json()["state"] == "done"
    for gone in ("note-2", "note-3"):
        answer = house.http.get(f"/v1/collections/clinical-notes/records/{gone}", headers=reader)
        assert (answer.status_code, answer.json()["code"]) == (404, "record_not_found")
    again = house.http.get(f"/v1/erasures/{erased.json()['id']}", headers=house.privacy()).json()
    assert again["note"] == erased.json()["note"]


def test_everything_survives_a_restart(empty_house):
    """Records, their order in search, erasures and the log are the same behind a restart."""
    house = empty_house
    house.ingest("complaints", [note(n, attributes={"department": "cards", "sensitivity": 0}) for n in range(40)])
    house.http.post("/v1/erasures", json={"subject": "person-7"}, headers=house.privacy())
    before = house.http.get("/v1/collections/complaints/records/note-5", headers=house.handler()).json()["text"]
    size = len(house.events())
    house.reopen()
    assert house.http.get("/v1/collections/complaints/records/note-5", headers=house.handler()).json()["text"] == before
    assert house.http.get("/v1/collections/complaints/records/note-14", headers=house.handler()).status_code == 404
    assert len(house.events()) > size


def test_a_batch_is_all_or_nothing(empty_house):
    """One record that cannot be taken keeps the whole batch out."""
    house = empty_house
    assert house.ingest("complaints", [note(1)]).status_code == 201
    answer = house.ingest("complaints", [note(2), note(1)])
    assert (answer.status_code, answer.json()["code"]) == (409, "record_exists")
    assert house.http.get("/v1/collections/complaints/records/note-2", headers=house.handler()).status_code == 404


def test_a_retried_batch_is_written_once(empty_house):
    """The same Idempotency-Key answers the same and writes nothing; another body under it is refused."""
    house = empty_house
    batch = [note(n) for n in range(5)]
    first = house.ingest("complaints", batch, **{"Idempotency-Key": "batch-1"})
    second = house.ingest("complaints", batch, **{"Idempotency-Key": "batch-1"})
    assert (first.json()["replayed"], second.json()["replayed"]) == (False, True)
    assert second.json()["records"] == 5
    other = house.ingest("complaints", [note(9)], **{"Idempotency-Key": "batch-1"})
    assert (other.status_code, other.json()["code"]) == (409, "request_mismatch")
    house.reopen()
    assert house.ingest("complaints", batch, **{"Idempotency-Key": "batch-1"}).json()["replayed"] is True


def test_ndjson_is_taken_as_well(empty_house):
    house = empty_house
    import orjson

    lines = b"\n".join(orjson.dumps(note(n)) for n in range(3)) + b"\n"
    headers = house.writer() | {"Content-Type": "application/x-ndjson"}
    answer = house.http.post("/v1/collections/complaints/records", content=lines, headers=headers)
    assert (answer.status_code, answer.json()["records"]) == (201, 3)


def test_each_answer_carries_its_receipt(empty_house):
    """The receipt's leaf hash is that of the entry at its index, and the entry is this call's OUTCOME."""
    import hashlib

    house = empty_house
    receipt = house.ingest("complaints", [note(1)]).json()["receipt"]
    entry = house.deployment.log.entries(receipt["index"], 1)[0]
    assert hashlib.sha256(b"\x00" + entry).hexdigest() == receipt["leaf_hash"]
    event = house.events()[receipt["index"]]
    assert (event["phase"], event["action"], event["decision"]) == ("OUTCOME", "record.ingest", "allowed")


def test_an_erasure_cut_off_by_a_crash_is_finished_at_the_next_start(empty_house, monkeypatch):
    """The process dies after the keys are gone and before the rows are: the start goes on where it stood."""
    house = empty_house
    house.ingest("complaints", [note(n) for n in range(6)])
    store = house.deployment.holdings.named("complaints")._store
    with monkeypatch.context() as broken:
        broken.setattr(store, "erase", lambda *_, **__: (_ for _ in ()).throw(OSError("gone")))
        answer = house.http.post("/v1/erasures", json={"subject": "person-1"}, headers=house.privacy())
        assert answer.status_code == 500
    (identifier,) = [
        e["details"]["erasure"] for e in house.events() if e["phase"] == "INTENT" and "erasure" in e.get("details", {})
    ]
    house.reopen()
    state = house.http.get(f"/v1/erasures/{identifier}", headers=house.privacy()).json()
    assert (state["state"], state["records"]) == ("done", 2)
    assert house.deployment.holdings.named("complaints").records == 4


def test_search_agrees_with_exact_search(house, encoder):
    """Order and recall of the sealed search against plain fp32 vectors, on both demo collections."""
    import numpy as np

    from secure_embed.cli.demo import corpus, evaluation

    found_same = total = 0
    for name in ("clinical-notes", "complaints"):
        loaded = corpus.load(name)
        vectors = encoder.encode_documents([r.text for r in loaded.records])
        ids = [r.id for r in loaded.records]
        for number, text in enumerate(list(loaded.queries.values())[:8]):
            answer = house.query(name, text, house.analyst(f"exact-{name}-{number}")).json()
            exact = [ids[i] for i in evaluation.exact_search(vectors, encoder.encode_query(text)[0], 10)]
            found_same += len({hit["id"] for hit in answer["hits"]} & set(exact))
            total += len(exact)
            scores = [hit["score"] for hit in answer["hits"]]
            assert scores == sorted(scores, reverse=True)
            assert np.all(np.array(scores) <= 0.90)
    assert found_same / total >= 0.99


def test_the_callers_own_filter_narrows(house):
    answer = house.query(
        "clinical-notes",
        "pain",
        house.analyst("filters"),
        filter={
            "all": [{"attribute": "department", "equals": "cardiology"}, {"attribute": "sensitivity", "at_most": 1}]
        },
    ).json()
    assert len(answer["hits"]) == 10
    assert all(
        h["attributes"]["department"] == "cardiology" and h["attributes"]["sensitivity"] <= 1 for h in answer["hits"]
    )


def test_the_openapi_document_names_every_path(house):
    paths = house.http.get("/openapi.json").json()["paths"]
    assert {
        "/v1/collections",
        "/v1/collections/{collection}",
        "/v1/collections/{collection}/records",
        "/v1/collections/{collection}/records/{record}",
        "/v1/collections/{collection}/query",
        "/v1/collections/{collection}/export",
        "/v1/erasures",
        "/v1/erasures/{erasure}",
        "/v1/audit/checkpoint",
        "/v1/audit/events",
    } <= set(paths)
    assert paths["/v1/collections/{collection}/query"]["post"]["security"] == [{"OAuth2": ["query"]}]


def test_the_protected_resource_describes_itself(house):
    """RFC 9728: a client that was refused learns here whose token to bring."""
    described = house.http.get("/.well-known/oauth-protected-resource").json()
    assert described["resource"] == house.settings.server.public_url
    assert "vectors:export" in described["scopes_supported"]


def test_the_log_is_served_as_a_static_log_is(house):
    """Checkpoint, hash tile and entry bundle over HTTP: the leaves of the bundle hash to the tile, and each answer has its receipt."""
    import hashlib

    auditor = house.auditor()
    checkpoint = house.http.get("/v1/audit/checkpoint", headers=auditor)
    origin, size, _ = checkpoint.text.split("\n")[:3]
    assert checkpoint.headers["audit-receipt"].split()[0] == origin
    assert int(checkpoint.headers["audit-receipt"].split()[1]) < int(size)  # the checkpoint covers this very call
    width = min(int(size), 20)
    tile = house.http.get(f"/v1/audit/tile/0/000.p/{width}", headers=auditor)
    bundle = house.http.get(f"/v1/audit/tile/entries/000.p/{width}", headers=auditor).content
    assert "audit-receipt" in tile.headers
    hashes, at = b"", 0
    while at < len(bundle):
        length = int.from_bytes(bundle[at : at + 2])
        hashes += hashlib.sha256(b"\x00" + bundle[at + 2 : at + 2 + length]).digest()
        at += 2 + length
    assert hashes == tile.content
    missing = house.http.get("/v1/audit/tile/0/x999/999", headers=auditor)
    assert (missing.status_code, missing.json()["code"]) == (404, "tile_not_found")


def test_the_log_has_what_decides_by_digest_at_each_start(empty_house):
    """A safeguard that somebody takes out of the policies between two starts is seen by who reads the log."""
    house = empty_house
    house.reopen()
    (house.root / "policies" / "safeguards.cedar").unlink()
    house.reopen()
    profile = house.root / "policies" / "risk" / "standard.toml"
    profile.write_text(profile.read_text().replace("collection_records_min = 1000", "collection_records_min = 1"))
    house.reopen()
    loaded = [event for event in house.events() if event["action"] == "policies.loaded"]
    policies = [event["policy_digest"] for event in loaded]
    profiles = [event["details"]["risk_profiles_sha256"] for event in loaded]
    assert len(loaded) == 4
    assert [policies[0] == policies[1], policies[1] == policies[2], policies[2] == policies[3]] == [True, False, True]
    assert [profiles[0] == profiles[1] == profiles[2], profiles[2] == profiles[3]] == [True, False]
