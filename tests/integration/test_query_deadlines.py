"""A query ends when its time is up or when nobody waits for it: logged, nothing shown, nothing opened any more."""

import asyncio
from typing import Any

import orjson
import pytest

from secure_embed.api import create_app
from tests.patient import Patient

pytestmark = pytest.mark.model

COLLECTION = "clinical-notes"


@pytest.fixture
def filled(open_house):
    notes = [
        {
            "id": f"n-{n}",
            "text": f"Note {n} on pain in the knee.",
            "attributes": {"department": "cardiology", "sensitivity": 0},
        }
        for n in range(20)
    ]
    assert open_house.ingest(COLLECTION, notes).status_code == 201
    return open_house


def app_of(house, **limits: Any):
    return create_app(
        house.deployment.vault,
        house.settings.limits.model_copy(update=limits),
        resource=house.settings.server.public_url,
        issuers=tuple(i.issuer for i in house.settings.issuers),
    )


def outcomes(house) -> list[dict[str, Any]]:
    return [e for e in house.events() if e.get("action") == "query" and e["phase"] == "OUTCOME"]


def test_a_query_whose_time_is_up_is_refused_and_logged(filled) -> None:
    from starlette.testclient import TestClient

    hasty = TestClient(app_of(filled, query_seconds_max=1e-9), raise_server_exceptions=False)
    answer = hasty.post(f"/v1/collections/{COLLECTION}/query", json={"text": "knee"}, headers=filled.clinician())
    assert (answer.status_code, answer.json()["code"]) == (503, "deadline_exceeded")
    assert int(answer.headers["Retry-After"]) >= 1
    (outcome,) = outcomes(filled)
    assert outcome["error"] == "deadline_exceeded"
    assert "results" not in outcome or outcome["results"] == 0
    assert filled.query(COLLECTION, "knee", filled.clinician()).json()["hits"]


@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "stays"])
def test_the_work_for_a_caller_who_has_gone_ends(filled, monkeypatch: pytest.MonkeyPatch, leaves: bool) -> None:
    queries = filled.deployment.vault.queries
    patient = Patient(queries._encoder)
    monkeypatch.setattr(queries, "_encoder", patient)
    opened: list[int] = []
    shard = filled.deployment.holdings.named(COLLECTION).shard()
    inner = shard._rescorer._open_vectors

    def open_vectors(at: Any, out: Any) -> Any:
        opened.append(len(at))
        return inner(at, out)

    monkeypatch.setattr(shard._rescorer, "_open_vectors", open_vectors)
    sent = asyncio.run(ask(app_of(filled), filled.clinician(), patient, leaves=leaves))
    (outcome,) = outcomes(filled)
    if leaves:
        assert outcome["error"] == "caller_gone"
        assert not opened
    else:
        assert outcome["decision"] == "allowed"
        assert opened
        assert sent[0]["status"] == 200


async def ask(app: Any, headers: dict[str, str], patient: Patient, *, leaves: bool) -> list[Any]:
    """One query over ASGI; the caller closes the connection while its text is encoded, or waits."""
    sent: list[Any] = []
    body = orjson.dumps({"text": "knee"})
    raw = [(k.lower().encode(), v.encode()) for k, v in headers.items()]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": f"/v1/collections/{COLLECTION}/query",
        "raw_path": b"",
        "query_string": b"",
        "root_path": "",
        "scheme": "https",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "headers": [*raw, (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
    }
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await asyncio.to_thread(patient.reached.wait, 30)
        if leaves:
            asyncio.get_running_loop().call_later(0.2, patient.go_on.set)
            return {"type": "http.disconnect"}
        patient.go_on.set()
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await asyncio.wait_for(app(scope, receive, send), 60)
    return sent
