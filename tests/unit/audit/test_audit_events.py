"""What an event may hold, and the bytes that it becomes."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from audit.verify.entries import read_entry
from secure_embed.audit import AuditEvent, Caller, HandOver, Phase, collection_label, label
from secure_embed.errors import SecureEmbedError
from secure_embed.types import Action, Principal
from tests.audit_logs import SIGNER, STRANGER

SCHEMA = json.loads((Path(__file__).parents[3] / "audit" / "event.schema.json").read_text(encoding="utf-8"))
TAG = "ab" * 32
PRINCIPAL = Principal(
    issuer="https://issuer.example/",
    subject="alice",
    client_id="app",
    scopes=frozenset({"query", "records:read"}),
    token_sha256=TAG,
    expires_unix=0,
)


def full(**changes: Any) -> AuditEvent:
    members: dict[str, Any] = {
        "phase": Phase.OUTCOME,
        "action": Action.QUERY,
        "request": "0f9c3a54-6c1f-4c0e-9d0a-0d9f6b1f2a11",
        "caller": Caller.of(PRINCIPAL),
        "source": "2001:db8::1",
        "purpose": "treatment",
        "collection": "clinical-notes",
        "policy_ids": ("query.same-department",),
        "policy_digest": TAG,
        "decision": "allowed",
        "intent": 7,
        "query_hmac": TAG,
        "filter_hash": TAG,
        "k": 10,
        "results": 3,
        "result_commitment": TAG,
        "record_tags": (TAG, TAG),
        "queries_left": 0,
        "records_left": 5,
        "space_digest": TAG,
        "index_version": 3,
        "latency_ms": 12,
        "details": {"exposures_limited": True, "profile": "standard", "n": -1},
    }
    return AuditEvent(**(members | changes))


def written(event: AuditEvent) -> bytes:
    uid = "01a20a08-6156-7c5f-a5ca-5408c24d52dc"
    return event.to_bytes(uid=uid, time="2026-11-23T20:10:51.094Z", time_ms=1_795_464_651_094)


HANDOVER = HandOver.sign(SIGNER, STRANGER.verifier, size=9, root=bytes(32))
EVENTS = {
    "hand-over": AuditEvent(phase=Phase.SYSTEM, action="log.key", key_at=3, handover=HANDOVER),
    "full": full(),
    "smallest": AuditEvent(phase=Phase.SYSTEM, action="log.start"),
    "intent": full(phase=Phase.INTENT, decision=None, intent=None, openings_max=200),
    "refused before any intent": full(decision="refused", error="invalid_token", intent=None, caller=None),
    "failed": full(decision="failed", error="storage_unavailable"),
    "rotation begun": full(
        phase=Phase.INTENT,
        action="keys.rotate",
        decision=None,
        intent=None,
        details={"kind": "collection", "from_version": 3, "to_version": 4, "reseal": True, "provider": "pkcs11"},
    ),
    "rotation done": AuditEvent(
        phase=Phase.SYSTEM,
        action="keys.resealed",
        collection="clinical-notes",
        details={"version": 4, "records": 20_000, "key_id": "sha256:" + TAG, "store": "data.db"},
    ),
    "rollback": AuditEvent(
        phase=Phase.SYSTEM,
        action="log.rollback",
        details={"store_size": 70_001, "store_root": TAG, "log_size": 70_000},
    ),
    "version gone": AuditEvent(
        phase=Phase.SYSTEM,
        action="version.destroyed",
        collection="clinical-notes",
        details={"version": 3, "erasure": "0f9c3a54-6c1f-4c0e-9d0a-0d9f6b1f2a11", "wrapped": 20_000},
    ),
    "recovery": AuditEvent(phase=Phase.SYSTEM, action="log.recovery", orphans=(1, 2), details={"torn_bytes": 3}),
    "largest": full(
        caller=Caller(
            issuer="\U0001f600" * 256,
            subject='"' * 256,
            client_id="\\" * 256,
            token_sha256="ab" * 64,
            scopes=("s" * 128,) * 64,
        ),
        request="r" * 128,
        purpose="p" * 128,
        source="s" * 128,
        policy_ids=("p" * 128,) * 64,
        record_tags=("ab" * 64,) * 128,
        orphans=(2**53 - 1,) * 500,
        details={f"{'d' * 60}{i:03d}": "v" * 128 for i in range(64)},
        **dict.fromkeys(("query_hmac", "filter_hash", "policy_digest", "result_commitment"), "ab" * 64),
    ),
}


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
def test_every_event_is_canonical_fits_the_schema_and_a_leaf(event: AuditEvent) -> None:
    entry = written(event)
    assert len(entry) <= 65_535
    assert faults(read_entry(entry), SCHEMA, "event") == []


def test_every_member_that_is_written_is_in_the_schema_and_back() -> None:
    names = {name for event in EVENTS.values() for name in read_entry(written(event))}
    assert names == set(SCHEMA["properties"])
    own = {field.name for field in fields(AuditEvent)} - {"caller"}
    assert own <= set(SCHEMA["properties"])


def test_the_schema_check_can_fail() -> None:
    good = read_entry(written(EVENTS["full"]))
    changes: list[dict[str, object]] = [{"v": 2}, {"k": -1}, {"phase": "OTHER"}, {"query_hmac": "text"}, {"text": "x"}]
    changes += [{"policy_ids": ["a b"]}, {"principal": {"issuer": "i"}}, {"details": {"Bad": 1}}, {"k": True}]
    for change in changes:
        assert faults({**good, **change}, SCHEMA, "event"), change


@pytest.mark.parametrize(
    "change",
    [
        {"action": "Query the notes of John"},
        {"query_hmac": "what helps against gout"},
        {"query_hmac": "ab"},
        {"filter_hash": "AB" * 32},
        {"record_tags": ("rec-0001",)},
        {"record_tags": (TAG,) * 129},
        {"result_commitment": "x" * 64},
        {"collection": "Frau Huber, 12.3.1961"},
        {"purpose": "because of John Smith"},
        {"purpose": "x" * 129},
        {"source": "a\nb"},
        {"request": "a b"},
        {"policy_ids": ("a b",)},
        {"error": "Sentence with input"},
        {"details": {"text": "free text"}},
        {"details": {"Free text": 1}},
        {"details": {"score": 0.5}},
        {"details": {"n": 2**53}},
        {"details": {f"n{i}": 1 for i in range(65)}},
        {"k": -1},
        {"k": 1.5},
        {"k": True},
        {"results": 2**53},
        {"orphans": (1,) * 501},
        {"decision": None},
        {"intent": None},
        {"error": "policy_denied"},
        {"decision": "refused"},
        {"phase": Phase.INTENT},
        {"phase": Phase.SYSTEM},
        {"key_at": 1},
    ],
    ids=str,
)
def test_what_could_carry_content_or_makes_no_sense_is_no_event(change: dict[str, Any]) -> None:
    with pytest.raises(SecureEmbedError) as refused:
        full(**change)
    assert refused.value.code == "audit_event_invalid"
    assert not any(str(value) in refused.value.detail for value in change.values() if len(str(value)) > 8)


@pytest.mark.parametrize(
    "change",
    [
        {"handover": None},
        {"action": "log.start"},
        {"phase": Phase.OUTCOME, "decision": "refused", "error": "x"},
        {"handover": "The patient is John Smith.\n"},
        {"handover": HANDOVER.replace("\n9\n", "\nnine\n")},
        {"handover": HANDOVER + "John Smith\n"},
        {"handover": HANDOVER.replace("\n\n", "\nJohn Smith\n\n")},
        {"handover": SIGNER.sign("John Smith\n")},
        {"key_at": -1},
    ],
    ids=str,
)
def test_a_handover_is_a_signed_note_of_one_form_and_nothing_else(change: dict[str, Any]) -> None:
    members = {"phase": Phase.SYSTEM, "action": "log.key", "handover": HANDOVER}
    with pytest.raises(SecureEmbedError) as refused:
        AuditEvent(**(members | change))
    assert refused.value.code == "audit_event_invalid"


def test_a_caller_is_bounded_and_clean() -> None:
    wild = Principal(
        issuer="i" * 10_000,
        subject="a\x00b\ud800c\n",
        client_id="\u4e2d" * 300,
        scopes=frozenset({"query", "not a scope", *(f"s{i}" for i in range(200))}),
        token_sha256=TAG,
        expires_unix=0,
    )
    caller = Caller.of(wild)
    assert caller.subject == "a\ufffdb\ufffdc\ufffd"
    assert caller.issuer == "i" * 255 + "\u2026"
    assert len(caller.client_id) == 256
    assert len(caller.scopes) == 64
    assert faults(read_entry(written(full(caller=caller))), SCHEMA, "event") == []


@pytest.mark.parametrize(("text", "shown"), [("treatment", "treatment"), ("a b", "unlisted"), ("", "unlisted")])
def test_labels(text: str, shown: str) -> None:
    assert label(text) == shown


@pytest.mark.parametrize(("text", "shown"), [("clinical-notes", "clinical-notes"), ("John Smith", "unlisted")])
def test_collection_labels(text: str, shown: str) -> None:
    assert collection_label(text) == shown


def test_every_action_has_its_ocsf_class() -> None:
    pairs = {}
    for action in Action:
        event = read_entry(written(AuditEvent(phase=Phase.INTENT, action=action)))
        pairs[action.value] = (event["class_uid"], event["activity_id"])
    assert pairs["query"] == (6005, 4)
    assert pairs["record.erase"] == (6005, 7)
    assert pairs["audit.read"] == (6003, 2)
    assert all(activity != 99 for _, activity in pairs.values())


SERVICE = {
    *("log.key", "log.recovery", "log.rollback", "log.start", "log.stop", "store.restored", "keys.rotated"),
    *("keys.resealed", "version.destroyed", "authentication"),
}
CALLED = {
    *("collection.erase", "hold.place", "hold.release", "hold.list", "keys.read", "keys.rotate", "backup.create"),
    "retention.sweep",
}


def test_what_happens_to_keys_copies_and_holds_has_a_class_of_its_own() -> None:
    for action in CALLED:
        event = read_entry(written(AuditEvent(phase=Phase.INTENT, action=action)))
        assert (event["class_uid"], event["activity_id"]) != (6003, 99), action
    for action in SERVICE - {"log.key"}:
        event = read_entry(written(AuditEvent(phase=Phase.SYSTEM, action=action)))
        assert event["class_uid"] != 6003, action


def faults(value: Any, schema: dict[str, Any], place: str) -> list[str]:
    """The part of JSON Schema that event.schema.json uses; anything else in it is an error here."""
    known = {"$schema", "$id", "title", "description", "$defs", "type", "properties", "required", "const", "enum"}
    known |= {"pattern", "minimum", "maximum", "maxLength", "maxItems", "maxProperties", "items", "propertyNames"}
    assert set(schema) <= known | {"additionalProperties", "anyOf", "$ref"}, place
    if "$ref" in schema:
        return faults(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], place)
    if "anyOf" in schema:
        return [] if any(not faults(value, one, place) for one in schema["anyOf"]) else [f"{place}: none of"]
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    kind = schema.get("type")
    if kind and (not isinstance(value, kinds[kind]) or (kind == "integer" and isinstance(value, bool))):
        return [f"{place}: no {kind}"]
    broken = [
        ("const" in schema and value != schema["const"], "const"),
        ("enum" in schema and value not in schema["enum"], "enum"),
        ("pattern" in schema and not re.search(schema["pattern"], value), "pattern"),
        ("minimum" in schema and value < schema["minimum"], "minimum"),
        ("maximum" in schema and value > schema["maximum"], "maximum"),
        ("maxLength" in schema and len(value) > schema["maxLength"], "maxLength"),
        ("maxItems" in schema and len(value) > schema["maxItems"], "maxItems"),
        ("maxProperties" in schema and len(value) > schema["maxProperties"], "maxProperties"),
        (not set(schema.get("required", ())) <= set(value if kind == "object" else ()), "required"),
    ]
    found = [f"{place}: {what}" for is_broken, what in broken if is_broken]
    if kind == "array" and "items" in schema:
        found += [fault for item in value for fault in faults(item, schema["items"], place)]
    if kind == "object":
        for name, member in value.items():
            found += faults(name, schema.get("propertyNames", {}), f"{place}: name")
            rule = schema.get("properties", {}).get(name, schema.get("additionalProperties", {}))
            found += [f"{place}: {name} is unknown"] if rule is False else faults(member, rule, f"{place}.{name}")
    return found
