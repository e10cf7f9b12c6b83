"""The deployment that `make corrupt` damages: made once, in three states, with all that it has to answer.

``older`` was stopped half way; ``clean`` has gone on and was stopped; ``killed`` has gone on from there and was killed, so that write-ahead
logs and the log's journal hold something.
"""

import base64
import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from campaigns.inside import Inside
from campaigns.stage import ATTRIBUTES, found, headers
from campaigns.world import Answer, Ask
from secure_embed.core import open_keys
from secure_embed.keys import Secret
from secure_embed.settings import Settings

__all__ = ["STATES", "Question", "Specimen", "build"]

STATES = ("clean", "killed")
COLLECTIONS = ("letters", "notes")
batches = 12  # of a collection, over the three states
batch_records = 3
subjects = 8
port = 20_443  # never opened
_DATABASES = {"data.db": Secret.DATA_STORE, "keys.db": Secret.KEYS_STORE, "risk.db": Secret.RISK_STORE}
_WORDS = ("knee", "heart", "card", "refund", "pain", "fever", "scan", "delay", "loan", "ward", "clinic", "visit")


@dataclass(frozen=True, slots=True)
class Question:
    name: str
    ask: Ask
    after: tuple[str, ...] = ()  # questions that have to have their right answer, or this one means nothing


@dataclass(slots=True)
class Specimen:
    """Where the states lie and what to ask them. ``secrets``: what no error may carry."""

    folder: Path
    caller: dict[str, str]
    questions: list[Question] = field(default_factory=list)
    receipts: dict[str, list[tuple[int, str]]] = field(default_factory=dict)  # state: those of answers until then
    checkpoint: dict[str, str] = field(default_factory=dict)
    erasure_notes: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    database_keys: dict[str, dict[str, bytes]] = field(default_factory=dict)  # state: file's name: key

    def state(self, name: str) -> Path:
        return self.folder / name / "deployment"


def _record(chance: random.Random, collection: str, number: int) -> dict[str, Any]:
    words = " ".join(chance.choices(_WORDS, k=chance.choice([6, 6, 40])))
    return {
        "id": f"{collection}-{number:03}",
        "text": f"unique{collection}{number:03} {words}",
        "subject": f"person-{number % subjects}",
        "attributes": {"sensitivity": number % 3, "ward": f"ward-{number % 4}"},
        "metadata": {"source": f"source-{number}"},
        **({"expires_at": "2096-01-01T00:00:00Z"} if number % 7 == 3 else {}),
    }


class _Author:
    """Writes the specimen's content, one stage after the other, and remembers what to ask."""

    def __init__(self, specimen: Specimen) -> None:
        self._specimen = specimen
        self._chance = random.Random(10)
        self._records: dict[str, list[dict[str, Any]]] = {name: [] for name in COLLECTIONS}
        self._batches: list[tuple[str, Ask]] = []
        self._erasures: list[str] = []
        self._receipts: list[tuple[int, str]] = []

    def _ask(self, inside: Inside, ask: Ask) -> Answer:
        answer = inside.ask(ask)
        assert answer.status < 400, answer.body
        assert answer.receipt is not None
        self._receipts.append(answer.receipt)
        return answer

    def create(self, inside: Inside) -> None:
        for name in COLLECTIONS:
            self._ask(inside, Ask(method="POST", path="/v1/collections", body={"name": name, "attributes": ATTRIBUTES}))

    def ingest(self, inside: Inside, count: int) -> None:
        for name in COLLECTIONS:
            for _ in range(count):
                first = len(self._records[name])
                made = [_record(self._chance, name, first + n) for n in range(batch_records)]
                self._records[name] += made
                key = f"key-{first}"
                ask = Ask(
                    method="POST",
                    path=f"/v1/collections/{name}/records",
                    body={"records": made},
                    headers={"Idempotency-Key": key},
                )
                self._ask(inside, ask)
                self._batches.append((f"{name} {key}", ask))

    def erase(self, inside: Inside, subject: int, record: int) -> None:
        asks = [
            Ask(method="POST", path="/v1/erasures", body={"subject": f"person-{subject}"}),
            Ask(method="DELETE", path=f"/v1/collections/letters/records/letters-{record:03}"),
        ]
        for ask in asks:
            body = self._ask(inside, ask).body
            self._erasures.append(body["id"])
            self._specimen.erasure_notes.append(body["note"])

    def hold(self, inside: Inside, subject: int) -> None:
        self._ask(
            inside, Ask(method="POST", path="/v1/holds", body={"subject": f"person-{subject}", "reason": "case 12"})
        )

    def rotate(self, inside: Inside) -> None:
        """Every kind of key once; one collection is sealed anew."""
        sealed_anew = {"kind": "collection", "collection": COLLECTIONS[0], "reseal": True}
        for body in ({"kind": "root"}, {"kind": "log"}, {"kind": "store"}, sealed_anew):
            begun = self._ask(inside, Ask(method="POST", path="/v1/keys/rotations", body=body)).body
            while begun["state"] == "running":
                time.sleep(0.01)
                begun = self._ask(inside, Ask(method="GET", path=f"/v1/keys/rotations/{begun['id']}")).body
            assert begun["state"] == "done", begun["error"]

    def query(self, inside: Inside) -> None:
        for name in COLLECTIONS:
            self._ask(inside, _query(name, "knee pain", 5))

    def done(self, inside: Inside, state: str) -> None:
        answer = self._ask(inside, Ask(method="GET", path="/v1/audit/checkpoint"))
        self._specimen.checkpoint[state] = answer.body
        self._specimen.receipts[state] = list(self._receipts)

    def questions(self) -> list[Question]:
        """Reading first; what writes comes last, and is asked once."""
        asked = [Question("collections", Ask(method="GET", path="/v1/collections"))]
        asked += [Question("nobody", Ask(method="GET", path="/v1/collections", nobody=True))]
        asked += [
            Question(
                f"fetch {r['id']}", Ask(method="GET", path=f"/v1/collections/{name}/records/{quote(r['id'], safe='')}")
            )
            for name, records in self._records.items()
            for r in records
        ]
        for name, records in self._records.items():
            asked += [Question(f"query {r['id']}", _query(name, r["text"], 3)) for r in records[::4]]
            asked += [Question(f"query {name} {words}", _query(name, words, 20)) for words in ("heart scan", "loan")]
            ward = {"attribute": "ward", "equals": "ward-2"}
            asked.append(Question(f"query {name} filtered", _query(name, "clinic visit", 20, filter=ward)))
        asked += [
            Question("holds", Ask(method="GET", path="/v1/holds")),
            Question("keys", Ask(method="GET", path="/v1/keys")),
        ]
        held = Ask(method="POST", path="/v1/erasures", body={"subject": "person-0"})
        asked.append(Question("held", held))
        asked += [
            Question(f"erasure {n}", Ask(method="GET", path=f"/v1/erasures/{e}")) for n, e in enumerate(self._erasures)
        ]
        asked.append(Question("events", Ask(method="GET", path="/v1/audit/events?start=0&count=40")))
        asked += [Question(f"again {what}", ask) for what, ask in self._batches[::4]]
        for name in COLLECTIONS:
            new = _record(self._chance, name, 900)
            path = f"/v1/collections/{name}/records"
            asked.append(Question(f"new {name}", Ask(method="POST", path=path, body={"records": [new]})))
            after = (f"new {name}",)
            asked.append(Question(f"new {name} fetched", Ask(method="GET", path=f"{path}/{new['id']}"), after=after))
            asked.append(Question(f"new {name} found", _query(name, new["text"], 1), after=after))
        erase = Ask(method="POST", path="/v1/erasures", body={"subject": "person-4"})
        asked.append(Question("erase", erase, after=tuple(f"new {name}" for name in COLLECTIONS)))
        gone = Ask(method="GET", path="/v1/collections/notes/records/notes-004")
        asked.append(Question("erased", gone, after=("erase",)))
        return asked

    def secrets(self) -> list[str]:
        """Parts of texts, ids, subjects and values: none of them stands in an error or a log line."""
        return (
            ["unique" + name for name in COLLECTIONS]
            + [f"{name}-0" for name in COLLECTIONS]
            + ["person-", "source-", "ward-"]
        )


def _query(name: str, text: str, k: int, **more: Any) -> Ask:
    body = {"text": text, "k": k, "include_text": True, **more}
    return Ask(method="POST", path=f"/v1/collections/{name}/query", body=body)


def build(folder: Path) -> Specimen:
    """Make the three states under ``folder``."""
    root = folder / "made" / "deployment"
    found(root, port)
    specimen = Specimen(folder, dict(headers(root, Settings.load(root, dev=True).server.public_url)))
    author = _Author(specimen)
    with Inside(root) as inside:
        author.create(inside)
        author.ingest(inside, batches // 2)
        author.erase(inside, 1, 5)
        author.hold(inside, 0)
        author.query(inside)
        author.done(inside, "older")
    shutil.copytree(root, specimen.state("older"))
    with Inside(root) as inside:
        author.rotate(inside)
        author.ingest(inside, batches // 4)
        author.erase(inside, 2, 6)
        author.query(inside)
        author.ingest(inside, 1)
        author.done(inside, "clean")
    shutil.copytree(root, specimen.state("clean"))

    with Inside(root) as inside:
        author.ingest(inside, batches // 4 - 1)
        author.erase(inside, 3, 7)
        author.ingest(inside, 1)
        author.query(inside)
        author.done(inside, "killed")
        shutil.copytree(root, specimen.state("killed"))  # nothing writes now: what lies there is what a kill leaves
    specimen.questions = author.questions()
    specimen.secrets = author.secrets()
    for state in ("older", *STATES):
        _take_keys(specimen, state)
    specimen.secrets += [(root / "secrets" / "root.passphrase").read_text().strip(), *specimen.caller.values()]
    return specimen


def _take_keys(specimen: Specimen, state: str) -> None:
    with open_keys(Settings.load(specimen.state(state), dev=True)) as (_, keyring):
        specimen.database_keys[state] = {name: keyring.secret(secret) for name, secret in _DATABASES.items()}
        kept = [keyring.secret(name) for name in Secret]
    specimen.secrets += [shown for key in kept for shown in (key.hex(), base64.b64encode(key).decode())]
