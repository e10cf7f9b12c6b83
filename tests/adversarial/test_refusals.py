"""Who is refused, with which code, and that each refusal stands in the log before it is answered."""

import pytest

pytestmark = pytest.mark.model

QUERY = "/v1/collections/clinical-notes/query"
ASK = {"text": "fever", "k": 5}


def refused(house, answer, status, code):
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    _, index, leaf = answer.headers["audit-receipt"].split()
    entry = house.deployment.log.entries(int(index), 1)[0]
    import hashlib

    import orjson

    assert hashlib.sha256(b"\x00" + entry).hexdigest() == leaf
    event = orjson.loads(entry)
    assert (event["decision"], event["error"]) == ("refused", code)
    return event


def test_no_token(house):
    answer = house.http.post(QUERY, json=ASK)
    event = refused(house, answer, 401, "token_missing")
    assert "principal" not in event
    assert answer.headers["www-authenticate"].startswith('Bearer realm="secure_embed"')
    assert "error=" not in answer.headers["www-authenticate"]  # RFC 6750 section 3.1: no code without credentials


def test_expired_token(house):
    refused(house, house.http.post(QUERY, json=ASK, headers=house.analyst(lifetime_s=-60)), 401, "token_expired")


def test_token_for_another_service(house):
    answer = house.http.post(QUERY, json=ASK, headers=house.analyst(audience="https://other.example"))
    refused(house, answer, 401, "token_audience")


def test_token_without_the_scope(house):
    answer = house.http.post(QUERY, json=ASK, headers=house.auditor())
    event = refused(house, answer, 403, "insufficient_scope")
    assert event["principal"]["subject"] == "auditor"
    assert 'scope="query"' in answer.headers["www-authenticate"]


def test_a_collection_that_policy_denies(house):
    refused(house, house.query("complaints", "a card", house.clinician()), 403, "policy_denied")


def test_a_purpose_that_the_token_does_not_carry(house):
    headers = house.clinician() | {"Purpose-Of-Use": "quality"}
    refused(house, house.query("clinical-notes", "fever", headers), 403, "policy_denied")


def test_a_record_that_the_row_filter_hides_looks_absent(house):
    """Hidden and absent give the same status, code and words."""
    from secure_embed.cli.demo import corpus

    hidden = next(
        r
        for r in corpus.load("clinical-notes").records
        if r.attributes["department"] != "cardiology" and r.attributes["sensitivity"] == 2
    )
    answers = [
        house.http.get(f"/v1/collections/clinical-notes/records/{name}", headers=house.clinician())
        for name in (hidden.id, "there-is-no-such-record")
    ]
    for answer in answers:
        refused(house, answer, 404, "record_not_found")
    assert answers[0].json() == answers[1].json()


def test_vectors_need_their_own_scope_and_then_are_still_not_released(house):
    path = "/v1/collections/clinical-notes/export"
    refused(house, house.http.post(path, json={"ids": ["x"]}, headers=house.clinician()), 403, "insufficient_scope")
    scoped = house.token("exporter", ["vectors:export", "query"], department="quality", clearance=3, purpose="quality")
    refused(house, house.http.post(path, json={"ids": ["x"]}, headers=scoped), 403, "policy_denied")


def test_a_budget_that_is_used_up(house):
    """The standard profile shows one principal 100 distinct records of such a collection a day, then nothing more."""
    from secure_embed.cli.demo import corpus

    curious = house.analyst("curious")
    seen = set()
    for text in corpus.load("complaints").queries.values():
        answer = house.query("complaints", text, curious)
        if answer.status_code != 200:
            break
        seen |= {hit["id"] for hit in answer.json()["hits"]}
    refused(house, answer, 429, "budget_exhausted")
    assert int(answer.headers["retry-after"]) > 0
    assert len(seen) <= 100


def test_a_small_collection_is_not_for_those_who_may_not_read_it(empty_house):
    """Among few records a query's answer is nearly a lookup."""
    house = empty_house
    house.ingest("clinical-notes", [{"id": "1", "text": "x", "attributes": {"sensitivity": 0}}])
    refused(house, house.query("clinical-notes", "x", house.analyst()), 403, "collection_too_small")


def test_erasure_needs_the_privacy_office(house):
    asked = {"subject": "nobody-at-all"}
    for who in (house.clinician(), house.writer()):
        refused(house, house.http.post("/v1/erasures", json=asked, headers=who), 403, "insufficient_scope")
    scoped = house.token("clerk", ["records:erase"], department="cards", purpose="erasure")
    refused(house, house.http.post("/v1/erasures", json=asked, headers=scoped), 403, "policy_denied")


def test_counts_are_for_those_who_may_read_all(house):
    """A count tells of records that are hidden from the caller."""
    shown = house.http.get(
        "/v1/collections/clinical-notes",
        headers=house.token("q", ["collections:read"], department="quality", purpose="quality"),
    ).json()
    assert shown["records"] is None


def test_listing_shows_only_what_policy_lets_be_seen(house):
    headers = house.token("h", ["collections:read"], department="complaints", purpose="complaint-handling")
    listed = house.http.get("/v1/collections", headers=headers).json()["collections"]
    assert [c["name"] for c in listed] == ["complaints"]
