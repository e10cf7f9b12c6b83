"""Whatever fails, and wherever: neither the answer, nor the log, nor stderr carries what the caller sent or what is stored."""

import logging

import orjson
import pytest

pytestmark = pytest.mark.model

SECRET = "Rosamunde-Feuerstein-was-here"
RECORD = {"id": "a", "text": f"a text about {SECRET}", "attributes": {"sensitivity": 0}}


def test_an_error_of_our_own_says_nothing(empty_house, monkeypatch, caplog, capfd):
    """Our own code fails with the caller's text in its message: 500, logged as failed, and the text is nowhere."""
    house = empty_house

    def fails(texts):
        raise RuntimeError(f"cannot encode {texts!r}")

    caplog.set_level(logging.DEBUG)
    with monkeypatch.context() as broken:
        broken.setattr(house.deployment.vault.records._encoder, "encode_documents", fails)
        answer = house.ingest("complaints", [RECORD])
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    event = orjson.loads(house.deployment.log.entries(int(answer.headers["audit-receipt"].split()[1]), 1)[0])
    assert (event["decision"], event["error"]) == ("failed", "internal_error")
    printed = "".join(capfd.readouterr())
    for place in (answer.text, str(answer.headers), orjson.dumps(event).decode(), printed):
        assert SECRET not in place
    assert house.deployment.holdings.named("complaints").records == 0


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"records": [RECORD, RECORD]}, "records"),
        ({"records": [RECORD | {SECRET: 1}]}, "records"),
        ({"records": [RECORD | {"attributes": {"ward": SECRET}}]}, "records"),
        ({"records": [RECORD | {"attributes": {SECRET: 1}}]}, "records"),
        ({"text": [SECRET]}, "query"),
        ({"text": SECRET, "k": SECRET}, "query"),
        ({"text": "x", "filter": {"attribute": SECRET, "equals": SECRET}}, "query"),
        ({SECRET: SECRET}, "query"),
    ],
)
def test_no_refusal_repeats_the_input(house, body, path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    caller = house.token(
        "errors",
        ["query", "records:write", "records:read"],
        department="complaints",
        clearance=3,
        purpose="complaint-handling",
    )
    answer = house.http.post(f"/v1/collections/complaints/{path}", json=body, headers=caller)
    assert 400 <= answer.status_code < 500
    assert SECRET not in answer.text
    assert SECRET not in "".join(capfd.readouterr())
    assert SECRET not in "".join(
        r.getMessage() for r in caplog.records if r.name.startswith(("secure_embed", "uvicorn", "fastapi"))
    )
    entry = house.deployment.log.entries(int(answer.headers["audit-receipt"].split()[1]), 1)[0]
    assert SECRET.encode() not in entry


def test_a_traceback_in_the_service_log_names_places_only():
    """uvicorn logs what a handler raises; ours prints the class and the place."""
    from secure_embed.api.server import configure_logging

    before = logging.root.handlers[:], logging.root.level
    try:
        configure_logging()
        formatter = logging.root.handlers[0].formatter
        try:
            raise ValueError(SECRET)
        except ValueError:
            import sys

            shown = formatter.formatException(sys.exc_info())
    finally:
        logging.root.handlers[:], logging.root.level = before
    assert SECRET not in shown
    assert "ValueError at" in shown


def test_no_repr_carries_content():
    from secure_embed.answers import Hit, Question
    from secure_embed.trail import Call
    from secure_embed.types import Action, Record

    shown = [
        Record(id=SECRET, text=SECRET, subject=SECRET, attributes={"a": SECRET}, metadata={"b": SECRET}),
        Question(text=SECRET, k=3),
        Hit(id=SECRET, rank=1, score=None, attributes={"a": SECRET}, text=SECRET),
        Call(request=None, action=Action.QUERY, authorization=(SECRET,), purpose=None, source=""),
    ]
    assert SECRET not in repr(shown)
