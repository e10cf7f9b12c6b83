"""The published vectors: the service and the auditors' verifier agree with them, so with each other."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from audit.verify.vectors import check_vectors
from secure_embed.audit import (
    Checkpoint,
    Head,
    NoteVerifier,
    leaf_hash,
    parse_tile_path,
    verify_note,
    verify_reader,
)
from secure_embed.audit.journal import recover
from secure_embed.audit.merkle import CompactRange, verify_consistency, verify_inclusion
from secure_embed.audit.tiles import partial_widths
from secure_embed.errors import SecureEmbedError

FOLDER = Path(__file__).parents[2] / "vectors"


def vectors(kind: str) -> list[Any]:
    document = json.loads((FOLDER / f"log-{kind}.json").read_text(encoding="utf-8"))
    return [pytest.param(vector, id=vector["name"]) for vector in document["vectors"]]


def hashes(texts: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


def outcome_of(check: Any, vector: dict[str, Any]) -> str:
    try:
        check(vector)
    except SecureEmbedError as error:
        return error.code
    return "ok"


@pytest.mark.parametrize("vector", vectors("merkle"))
def test_trees_and_proofs(vector: dict[str, Any]) -> None:
    def check(v: dict[str, Any]) -> None:
        if v["check"] == "root":
            grown = CompactRange()
            for leaf in hashes(v["leaves"]):
                grown.append(leaf_hash(leaf))
            assert grown.root().hex() == v["root"]
            return
        root, proof = bytes.fromhex(v["root"]), hashes(v["proof"])
        if v["check"] == "inclusion":
            leaf = bytes.fromhex(v["leaf_hash"])
            verify_inclusion(leaf=leaf, index=v["index"], size=v["size"], proof=proof, root=root)
        else:
            old = bytes.fromhex(v["old_root"])
            verify_consistency(old_size=v["old_size"], old_root=old, size=v["size"], root=root, proof=proof)

    assert outcome_of(check, vector) == vector["expect"]


@pytest.mark.parametrize("vector", vectors("notes"))
def test_notes(vector: dict[str, Any]) -> None:
    def check(v: dict[str, Any]) -> None:
        verifier = NoteVerifier.parse(v["vkey"])
        assert str(verifier) == v["vkey"]
        if v["kind"] == "note":
            verifier.open(v["note"])
        elif v["kind"] == "checkpoint":
            Checkpoint.verified(v["note"], verifier)
        else:
            verify_note(verifier, v["note"], kind=v["kind"])

    assert outcome_of(check, vector) == vector["expect"]


@pytest.mark.parametrize("vector", vectors("tiles"))
def test_tile_names(vector: dict[str, Any]) -> None:
    if vector["check"] == "partial":
        assert [list(tile) for tile in partial_widths(vector["size"])] == vector["tiles"]
        return

    def check(v: dict[str, Any]) -> None:
        level, index, width = parse_tile_path(v["path"])
        assert ["entries" if level is None else level, index, width] == v["place"]

    assert outcome_of(check, vector) == vector["expect"]


@pytest.mark.parametrize("vector", vectors("journal"))
def test_journals(vector: dict[str, Any]) -> None:
    def check(v: dict[str, Any]) -> None:
        found = recover(bytes.fromhex(v["journal"]))
        assert (sum(len(frame.entries) for frame in found.frames), found.torn_bytes) == (v["entries"], v["torn_bytes"])

    assert outcome_of(check, vector) == vector["expect"]


@dataclass(frozen=True)
class Entries:
    """A log in memory, at rest."""

    leaves: list[bytes]
    checkpoint: str

    def head(self) -> Head:
        said = Checkpoint.of_note(self.checkpoint)
        return Head(size=said.size, root=said.root, checkpoint=self.checkpoint)

    def entries(self, start: int, count: int) -> list[bytes]:
        return self.leaves[start : start + count]

    def leaf_hashes(self, start: int, count: int) -> list[bytes]:
        return [leaf_hash(entry) for entry in self.entries(start, count)]


@pytest.mark.parametrize("vector", vectors("keys"))
def test_hand_overs_of_the_signing_key(vector: dict[str, Any]) -> None:
    def check(v: dict[str, Any]) -> None:
        known = [NoteVerifier.parse(vkey) for vkey in v["vkeys"]]
        verified = verify_reader(Entries(hashes(v["entries"]), v["checkpoint"]), known)
        assert [[str(span.verifier), span.first, span.end] for span in verified.keys] == v["keys"]

    assert outcome_of(check, vector) == vector["expect"]


def test_the_independent_verifier_agrees() -> None:
    faults, count = check_vectors(FOLDER)
    assert faults == []
    assert count > 200


def test_the_generators_give_the_stored_vectors(tmp_path: Path) -> None:
    for generator in ("generate_log.py", "generate_log_keys.py"):
        subprocess.run([sys.executable, str(FOLDER / generator), str(tmp_path)], check=True, timeout=60)
    made = sorted(tmp_path.iterdir())
    assert [path.name for path in made] == sorted(path.name for path in FOLDER.glob("log-*.json"))
    assert all(path.read_bytes() == (FOLDER / path.name).read_bytes() for path in made)
