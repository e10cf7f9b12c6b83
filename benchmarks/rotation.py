"""Queries beside a full re-sealing of a collection, and without one; what rotations of the keys themselves take.

    python benchmarks/rotation.py [--records 20000] [--dimension 384] [--folder DIR] [--quick]

The real deployment in one process (policy, budgets, log, sealed store, index), called below HTTP; the encoder is a table of
random word vectors, so that no model's milliseconds hide the difference. Every answer is compared with the answer from
before. Without and with alternate, five times. Writes results/rotation.json.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
from main_job_machine import OthersShare, machine, medium_of, quantile, rounded, versions

from secure_embed.access import DevelopmentIssuer
from secure_embed.answers import Question
from secure_embed.deployment import Deployment
from secure_embed.founding import create
from secure_embed.settings import Settings
from secure_embed.types import Action, Record, Space, Vectors
from secure_embed.vault import Call

RESULTS = Path(__file__).parent / "results"
COLLECTION = "complaints"
WORDS = 4_000


class WordEncoder:
    """Implements ``Encoder``: the sum of a text's word vectors."""

    tokens_max = 10_000

    def __init__(self, dimension: int) -> None:
        self._table = np.random.default_rng(1).standard_normal((WORDS, dimension)).astype(np.float32)
        self.space = Space(
            model="benchmark-words",
            revision="1",
            manifest_sha256=hashlib.sha256(b"benchmarks/rotation.py").hexdigest(),
            pooling="mean",
            dimension=dimension,
        )

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        summed = np.stack([self._table[[int(word[1:]) for word in text.split()]].sum(axis=0) for text in texts])
        return np.ascontiguousarray(summed / np.linalg.norm(summed, axis=1, keepdims=True))

    def encode_query(self, text: str) -> Vectors:
        return self.encode_documents([text])

    def truncated(self, texts: Sequence[str]) -> Sequence[bool]:
        return [False] * len(texts)


class Caller:
    """Calls as HTTP would make them, below HTTP."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self._issuer = DevelopmentIssuer(root / "development-issuer")
        self._audience = settings.server.public_url

    def call(
        self, action: Action, scopes: Sequence[str], department: str | None = None, purpose: str | None = None
    ) -> Call:
        claims = {"department": department, "clearance": 3, "purposes": [purpose]} if department else {}
        token = self._issuer.mint(
            subject=f"benchmark-{department}",
            client_id="benchmark",
            scopes=scopes,
            audience=self._audience,
            lifetime_s=3_600,
            claims=claims,
        )
        return Call(
            request=uuid4(), action=action, authorization=(f"Bearer {token}",), purpose=purpose, source="127.0.0.1"
        )


def texts(count: int, seed: int) -> list[str]:
    drawn = np.random.default_rng(seed).integers(0, WORDS, (count, 60))
    return [" ".join(f"w{word}" for word in row) for row in drawn]


def filled(root: Path, encoder: WordEncoder, records: int) -> Deployment:
    create(root, dev=True, model="all-minilm-l6-v2")
    settings = root / "secure-embed.toml"
    settings.write_text(settings.read_text().replace('risk_profile = "standard"', 'risk_profile = "open"'))
    loaded = Settings.load(root, dev=True)
    deployment = Deployment(loaded, encoder)
    caller = Caller(root, loaded)
    scopes = ["collections:admin", "records:write"]
    deployment.vault.collections.create(
        caller.call(Action.COLLECTION_CREATE, scopes),
        name=COLLECTION,
        attributes={"department": "string", "sensitivity": "long"},
    )
    made = texts(records, 2)
    for start in range(0, records, 1_000):
        batch = [
            Record(
                id=f"r-{n}", text=made[n], subject=f"s-{n // 3}", attributes={"department": "cards", "sensitivity": 0}
            )
            for n in range(start, min(records, start + 1_000))
        ]
        call = caller.call(Action.RECORD_INGEST, scopes)
        deployment.vault.records.ingest(call, COLLECTION, batch, idempotency_key=None)
    return deployment


def ask(
    deployment: Deployment, caller: Caller, questions: Sequence[str], *, seconds: float, until: object = None
) -> tuple[list[float], list[list[str]]]:
    """Milliseconds of each query, and the ids of its hits; at least ``seconds``, and until ``until()`` is true."""
    taken, hits = [], []
    began, number = time.perf_counter(), 0
    while time.perf_counter() - began < seconds or (callable(until) and not until()):
        text = questions[number % len(questions)]
        call = caller.call(Action.QUERY, ["query"], "quality", "quality")
        start = time.perf_counter()
        found = deployment.vault.queries.query(call, COLLECTION, Question(text=text, k=10))
        taken.append(1_000 * (time.perf_counter() - start))
        hits.append([hit.id for hit in found.hits])
        number += 1
    return taken, hits


def rotate(deployment: Deployment, caller: Caller, kind: str, **more: object) -> tuple[str, object]:
    call = caller.call(Action.KEYS_ROTATE, ["keys:admin"], "security", "key-management")
    options = {"collection": None, "reseal": False, "records_per_second": None} | more
    begun = deployment.vault.custody.rotate(call, kind, **options)  # type: ignore[arg-type]

    def over() -> bool:
        read = caller.call(Action.KEYS_READ, ["keys:admin"], "security", "key-management")
        return deployment.vault.custody.rotation(read, begun.id).state != "running"

    return str(begun.id), over


def alone(deployment: Deployment, caller: Caller, kind: str, **more: object) -> float:
    """Seconds of a rotation with nothing beside it."""
    began = time.perf_counter()
    _, over = rotate(deployment, caller, kind, **more)
    while not over():  # type: ignore[operator]
        time.sleep(0.01)
    return time.perf_counter() - began


def measured(deployment: Deployment, caller: Caller, rounds: int, seconds: float, rate: int) -> dict[str, object]:
    questions = texts(50, 3)
    expected: dict[int, list[str]] = {}
    for number, text in enumerate(questions):
        call = caller.call(Action.QUERY, ["query"], "quality", "quality")
        found = deployment.vault.queries.query(call, COLLECTION, Question(text=text, k=10))
        expected[number] = [hit.id for hit in found.hits]
    without, beside, wrong, lasted = [], [], 0, []
    for _ in range(rounds):
        taken, _ = ask(deployment, caller, questions, seconds=seconds)
        without.append(taken)
        began = time.perf_counter()
        _, over = rotate(deployment, caller, "collection", collection=COLLECTION, reseal=True, records_per_second=rate)
        taken, hits = ask(deployment, caller, questions, seconds=0, until=over)
        lasted.append(time.perf_counter() - began)
        beside.append(taken)
        wrong += sum(found != expected[number % len(questions)] for number, found in enumerate(hits))
    return {
        "queries_without": sum(map(len, without)),
        "queries_beside": sum(map(len, beside)),
        "wrong_answers": wrong,
        "resealing_s": lasted,
        **{
            f"p{percent}_ms_{name}": [quantile(sorted(row), percent / 100) for row in rows]
            for name, rows in (("without", without), ("beside", beside))
            for percent in (50, 99)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--records-per-second", type=int, default=2_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--quick", action="store_true", help="1,000 records, one round, prints only")
    asked = parser.parse_args()
    if asked.quick:
        asked.records, asked.rounds, asked.seconds = 1_000, 1, 1.0
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        root = Path(folder) / "deployment"
        with filled(root, WordEncoder(asked.dimension), asked.records) as deployment:
            others = OthersShare()
            caller = Caller(root, deployment.settings)
            result = {
                "benchmark": "rotation",
                "command": " ".join(["python", *sys.argv]),
                "records": asked.records,
                "dimension": asked.dimension,
                "records_per_second_limit": asked.records_per_second,
                "beside_queries": measured(deployment, caller, asked.rounds, asked.seconds, asked.records_per_second),
                "alone_s": {
                    "root": alone(deployment, caller, "root"),
                    "log": alone(deployment, caller, "log"),
                    "store": alone(deployment, caller, "store"),
                    "collection": alone(deployment, caller, "collection", collection=COLLECTION),
                    "collection_resealed": alone(
                        deployment,
                        caller,
                        "collection",
                        collection=COLLECTION,
                        reseal=True,
                        records_per_second=1_000_000,
                    ),
                },
            }
            taken_by_others = others.since_last()
        result |= {
            "cores_taken_by_others": taken_by_others,
            "machine": machine(medium_of(Path(folder))),
            "versions": versions(),
        }
    text = json.dumps(rounded(result), indent=1)
    print(text)
    if not asked.quick:
        (RESULTS / "rotation.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
