"""If the log cannot be written, nothing is answered and nothing is changed."""

import os

import pytest

from secure_embed.errors import AuditUnavailable

pytestmark = pytest.mark.model

RECORD = {"id": "a", "text": "a text", "attributes": {"sensitivity": 0}}


def break_the_log(monkeypatch):
    """The medium fails: every fdatasync does."""

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", fails)


def test_no_answer_and_no_change_without_the_log(empty_house, monkeypatch):
    house = empty_house
    assert house.ingest("complaints", [RECORD]).status_code == 201
    holding = house.deployment.holdings.named("complaints")
    before = (holding.records, holding.data_version)
    with monkeypatch.context() as broken:
        break_the_log(broken)
        answers = [
            house.ingest("complaints", [RECORD | {"id": "b"}]),
            house.query("complaints", "a text", house.handler()),
            house.http.get("/v1/collections/complaints/records/a", headers=house.handler()),
            house.http.post("/v1/erasures", json={"subject": "x"}, headers=house.privacy()),
            house.http.post("/v1/collections", json={"name": "more"}, headers=house.writer()),
            house.http.get("/v1/audit/checkpoint", headers=house.auditor()),
            house.query("complaints", "a text", {}),  # even a refusal needs its entry
        ]
    assert {(a.status_code, a.json()["code"]) for a in answers} == {(503, "audit_unavailable")}
    assert (holding.records, holding.data_version) == before
    assert house.deployment.vault.unready() == "audit_unavailable"


def test_the_log_stays_closed_until_the_next_start(empty_house, monkeypatch):
    """A failed sync may have lost what was written before it, so the medium is not trusted again."""
    house = empty_house
    with monkeypatch.context() as broken:
        break_the_log(broken)
        house.ingest("complaints", [RECORD])
    assert house.ingest("complaints", [RECORD]).status_code == 503
    house.reopen()
    assert house.ingest("complaints", [RECORD]).status_code == 201


def test_the_intent_is_durable_before_anything_is_opened(house, monkeypatch):
    """The ticket comes from the log; without it no vector is opened."""
    shard = house.deployment.holdings.named("complaints").shard()
    opened = []
    real = shard._rescorer._open_vectors
    monkeypatch.setattr(shard._rescorer, "_open_vectors", lambda *a: opened.append(1) or real(*a))

    def no_ticket(*_, **__):
        raise AuditUnavailable

    with monkeypatch.context() as broken:
        broken.setattr(house.deployment.log, "submit_intent", no_ticket)
        answer = house.query("complaints", "a fee", house.analyst("intent"))
    assert answer.status_code == 503
    assert not opened
    assert house.query("complaints", "a fee", house.analyst("intent")).status_code == 200
    assert opened


def test_every_outcome_names_its_intent(house):
    """In the whole log each allowed OUTCOME follows its INTENT, with the same action and request."""
    house.query("complaints", "a fee", house.analyst("outcomes"))
    events = house.events()
    allowed = [e for e in events if e["phase"] == "OUTCOME" and e["decision"] == "allowed"]
    assert allowed
    for outcome in allowed:
        intent = events[outcome["intent"]]
        assert intent["phase"] == "INTENT"
        assert (intent["action"], intent["request"]) == (outcome["action"], outcome["request"])
