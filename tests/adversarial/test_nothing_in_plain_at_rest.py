"""Every byte of every file of a deployment, after ingest, queries, refusals and an erasure: no text, name, identifier or
vector of a record stands in it, and no query. The scan itself is shown to find what is there.
"""

import numpy as np
import pytest

from secure_embed.cli.demo.scan import Needles, scan

pytestmark = pytest.mark.model


def plaintexts(record, vector):
    text = record["text"].encode()
    yield "text", text[:40]
    yield "text", text[-24:]
    yield "identifier", record["id"].encode()
    yield "identifier", record["subject"].encode()
    half = vector.astype("<f2")
    for start in (0, 100, 376):
        yield "fp32", vector[start : start + 8].tobytes()
        yield "fp16", half[start : start + 8].tobytes()


def test_no_plaintext_in_any_file(empty_house, encoder):
    house = empty_house
    records = [
        {
            "id": f"identifier-{n:05d}",
            "text": f"Rosamunde Feuerstein number {n} complains about an unusual fee on a card.",
            "subject": f"subject-{n:05d}",
            "attributes": {"department": "cards", "sensitivity": 0, "country": "DE"},
            "metadata": {"origin": f"letter-of-{n:05d}"},
        }
        for n in range(1_000)  # enough for a query to be admitted
    ]
    assert house.ingest("complaints", records, **{"Idempotency-Key": "key-of-the-caller"}).status_code == 201
    question = "which fee did Rosamunde object to"
    assert house.query("complaints", question, house.handler()).status_code == 200
    house.http.get("/v1/collections/complaints/records/identifier-00007", headers=house.handler())
    house.http.get("/v1/collections/complaints/records/identifier-99999", headers=house.handler())
    house.http.post("/v1/erasures", json={"subject": "subject-00011"}, headers=house.privacy())
    house.http.post("/v1/collections/complaints/query", content=b'{"text": "secret-phrase', headers=house.handler())
    vectors = encoder.encode_documents([r["text"] for r in records])
    needles = Needles(
        [
            *(n for record, vector in zip(records, vectors, strict=True) for n in plaintexts(record, vector)),
            ("name", b"Rosamunde Feuerstein"),
            ("metadata", b"letter-of-"),
            ("query", question.encode()),
            ("query", b"secret-phrase"),
            ("query vector", encoder.encode_query(question)[0][:8].tobytes()),
            ("idempotency key", b"key-of-the-caller"),
            ("attribute", b'"department"'),
        ]
    )
    for moment in ("while it runs", "after it was stopped"):
        if moment == "after it was stopped":
            house.close()
        files, _, found = scan(house.root, needles)
        assert files > 15
        # The policies and their tests speak of departments; they hold nothing of a record.
        assert [f for f in found if "policies" not in f.file.parts] == []
    house.open()


def test_the_scan_finds_what_is_there(tmp_path):
    """At every alignment, across block borders and at both ends of a file."""
    vector = np.linspace(-1, 1, 384, dtype=np.float32)
    needles = Needles([("text", b"a secret text"), ("fp16", vector.astype("<f2")[:8].tobytes())])
    for offset in range(9):
        folder = tmp_path / str(offset)
        folder.mkdir()
        (folder / "file").write_bytes(b"\x01" * offset + b"a secret text" + vector.astype("<f2").tobytes())
        assert {f.kind for f in scan(folder, needles)[2]} == {"text", "fp16"}


def test_the_scan_finds_what_lies_across_blocks(tmp_path, monkeypatch):
    from secure_embed.cli.demo import scan as module

    monkeypatch.setattr(module, "block_bytes", 64)
    needles = Needles([("text", b"a secret text")])
    for offset in range(48, 66):
        (tmp_path / "file").write_bytes(b"." * offset + b"a secret text" + b"." * 40)
        assert scan(tmp_path, needles)[2], offset
