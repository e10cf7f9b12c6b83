"""Writes the log-*.json vectors beside it, but for log-keys.json (generate_log_keys.py). Deterministic; imports neither the service nor the auditors' verifier, so that
the vectors come from docs/log-format.md and not from the code they check. The tree here is the recursive definition.

    python tests/vectors/generate_log.py [FOLDER]
"""

import base64
import hashlib
import json
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ORIGIN = "secure-embed.local/5d0e8a7b-1c2d-4e3f-8a9b-0c1d2e3f4a5b"
SEED = hashlib.shake_128(b"secure_embed test vector log key").digest(32)
OTHER_SEED = hashlib.shake_128(b"secure_embed test vector other log key").digest(32)
# The leaves that RFC 6962 implementations test with, and the roots that they publish for the first 0 to 8 of them.
LEAVES = [
    bytes.fromhex(h)
    for h in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
PUBLISHED_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# The example of the C2SP signed-note specification, and the one of golang.org/x/mod/sumdb/note.
C2SP_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
C2SP_NOTE = (
    "This is an example message.\n\n\u2014 example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def root(entries: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, as it is written there."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return leaf_hash(entries[0])
    k = split(len(entries))
    return hashlib.sha256(b"\x01" + root(entries[:k]) + root(entries[k:])).digest()


def split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def path(m: int, entries: Sequence[bytes]) -> list[bytes]:
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if m < k:
        return [*path(m, entries[:k]), root(entries[k:])]
    return [*path(m - k, entries[k:]), root(entries[:k])]


def consistency(m: int, entries: Sequence[bytes], whole: bool = True) -> list[bytes]:
    if m == len(entries):
        return [] if whole else [root(entries)]
    k = split(len(entries))
    if m <= k:
        return [*consistency(m, entries[:k], whole), root(entries[k:])]
    return [*consistency(m - k, entries[k:], False), root(entries[:k])]


def key_id(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n\x01" + public).digest()[:4]


def public(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def vkey(name: str = ORIGIN, seed: bytes = SEED) -> str:
    material = base64.b64encode(b"\x01" + public(seed)).decode()
    return f"{name}+{key_id(name, public(seed)).hex()}+{material}"


def sign(text: str, name: str = ORIGIN, seed: bytes = SEED) -> str:
    signature = Ed25519PrivateKey.from_private_bytes(seed).sign(text.encode())
    return f"{text}\n\u2014 {name} {base64.b64encode(key_id(name, public(seed)) + signature).decode()}\n"


def checkpoint(size: int, tree_root: bytes, origin: str = ORIGIN) -> str:
    return f"{origin}\n{size}\n{base64.b64encode(tree_root).decode()}\n"


def frame(first: int, before: Sequence[bytes], entries: Sequence[bytes], note: str | None = None) -> bytes:
    packed = b"".join(struct.pack(">H", len(e)) + e for e in entries)
    if note is None:
        note = sign(checkpoint(first + len(entries), root([*before, *entries])))
    body = packed + b"".join(leaf_hash(e) for e in entries) + note.encode()
    whole = b"\xffSEJ" + struct.pack(">IQII", len(body), first, len(entries), len(packed)) + body
    return whole + hashlib.sha256(whole).digest()


def merkle_vectors() -> list[dict[str, object]]:
    vectors: list[dict[str, object]] = []
    for size, published in enumerate(PUBLISHED_ROOTS):
        assert root(LEAVES[:size]).hex() == published
        vectors.append(
            {
                "name": f"root of {size} leaves",
                "check": "root",
                "leaves": [leaf.hex() for leaf in LEAVES[:size]],
                "root": published,
                "expect": "ok",
            }
        )
    many = [f"leaf {i}".encode() for i in range(515)]
    for size, index in ((1, 0), (2, 1), (7, 3), (8, 5), (256, 255), (257, 256), (515, 300)):
        vectors += inclusion_cases(many[:size], index)
    for old, new in ((1, 1), (1, 2), (3, 7), (4, 8), (6, 8), (255, 257), (256, 512), (300, 515)):
        vectors += consistency_cases(many[:new], old)
    return vectors


def inclusion_cases(entries: Sequence[bytes], index: int) -> list[dict[str, object]]:
    size = len(entries)
    proof = [h.hex() for h in path(index, entries)]
    good = {
        "check": "inclusion",
        "leaf_hash": leaf_hash(entries[index]).hex(),
        "index": index,
        "size": size,
        "proof": proof,
        "root": root(entries).hex(),
    }
    name = f"entry {index} of {size}"
    cases = [{"name": name, **good, "expect": "ok"}]
    changes: dict[str, dict[str, object]] = {
        "index past the end": {"index": size},
        "negative index": {"index": -1},
        "another leaf": {"leaf_hash": leaf_hash(b"other").hex()},
        "one hash more": {"proof": [*proof, "00" * 32]},
        "a short root": {"root": "00" * 31},
        "empty tree": {"index": 0, "size": 0, "proof": []},
    }
    if proof:
        changes["one hash less"] = {"proof": proof[:-1]}
        changes["a long hash"] = {"proof": [proof[0] + "00", *proof[1:]]}
    cases += [
        {"name": f"{name}: {what}", **good, **change, "expect": "proof_invalid"} for what, change in changes.items()
    ]
    return cases


def consistency_cases(entries: Sequence[bytes], old: int) -> list[dict[str, object]]:
    proof = [h.hex() for h in consistency(old, entries)]
    good = {
        "check": "consistency",
        "old_size": old,
        "old_root": root(entries[:old]).hex(),
        "size": len(entries),
        "root": root(entries).hex(),
        "proof": proof,
    }
    name = f"size {old} to {len(entries)}"
    cases = [{"name": name, **good, "expect": "ok"}]
    changes: dict[str, dict[str, object]] = {
        "from an empty tree": {"old_size": 0, "old_root": PUBLISHED_ROOTS[0], "proof": []},
        "backwards": {"old_size": len(entries) + 1},
        "another old root": {"old_root": "11" * 32},
        "one hash more": {"proof": [*proof, "00" * 32]},
        "a short root": {"old_root": "00" * 31},
    }
    if proof:
        changes["one hash less"] = {"proof": proof[:-1]}
    cases += [
        {"name": f"{name}: {what}", **good, **change, "expect": "proof_invalid"} for what, change in changes.items()
    ]
    return cases


def note_vectors() -> list[dict[str, object]]:
    text = checkpoint(8, root(LEAVES))
    good, statement = sign(text), sign(f'{ORIGIN}/erasure-receipt/v1\n{{"erasure":"e1","records":3}}\n')
    stranger = sign(text, "example.com/witness", OTHER_SEED)
    cases = [
        ("C2SP's example", "note", C2SP_VKEY, C2SP_NOTE, "ok"),
        (
            "C2SP's example, one letter changed",
            "note",
            C2SP_VKEY,
            C2SP_NOTE.replace("example m", "examplf m"),
            "note_invalid",
        ),
        ("Go's example", "note", GO_VKEY, GO_NOTE, "ok"),
        ("checkpoint", "checkpoint", vkey(), good, "ok"),
        ("a witness signed too", "checkpoint", vkey(), good + stranger.split("\n\n")[1], "ok"),
        ("only a stranger signed", "checkpoint", vkey(), stranger, "note_invalid"),
        ("another key under the same name", "checkpoint", vkey(), sign(text, ORIGIN, OTHER_SEED), "note_invalid"),
        ("size changed", "checkpoint", vkey(), good.replace("\n8\n", "\n9\n"), "note_invalid"),
        (
            "another origin",
            "checkpoint",
            vkey(),
            sign(checkpoint(8, root(LEAVES), "example.com/other")),
            "note_invalid",
        ),
        ("leading zero", "checkpoint", vkey(), sign(text.replace("\n8\n", "\n08\n")), "note_invalid"),
        ("negative size", "checkpoint", vkey(), sign(text.replace("\n8\n", "\n-8\n")), "note_invalid"),
        ("extension line", "checkpoint", vkey(), sign(text + "more\n"), "note_invalid"),
        ("short root", "checkpoint", vkey(), sign(checkpoint(8, bytes(31))), "note_invalid"),
        ("root not canonical base64", "checkpoint", vkey(), sign(f"{ORIGIN}\n0\n{'A' * 42}B=\n"), "note_invalid"),
        ("carriage return", "checkpoint", vkey(), good.replace("\n8\n", "\r\n8\r\n"), "note_invalid"),
        ("no signature", "checkpoint", vkey(), text, "note_invalid"),
        ("cut", "checkpoint", vkey(), good[:-1], "note_invalid"),
        ("empty", "checkpoint", vkey(), "", "note_invalid"),
        ("statement", "erasure-receipt", vkey(), statement, "ok"),
        ("statement changed", "erasure-receipt", vkey(), statement.replace(":3", ":4"), "note_invalid"),
        ("statement as a checkpoint", "checkpoint", vkey(), statement, "note_invalid"),
        ("checkpoint as a statement", "erasure-receipt", vkey(), good, "note_invalid"),
        ("statement of another kind", "erasure-receipt", vkey(), sign(f"{ORIGIN}/review/v1\n{{}}\n"), "note_invalid"),
        ("key string: hash changed", "checkpoint", vkey().replace("+", "+0", 1), good, "verifier_key_invalid"),
        ("key string: other name", "checkpoint", "x" + vkey(), good, "verifier_key_invalid"),
        ("key string: cut", "checkpoint", vkey()[:-4], good, "verifier_key_invalid"),
    ]
    return [{"name": n, "kind": kind, "vkey": v, "note": note, "expect": e} for n, kind, v, note, e in cases]


def tile_vectors() -> list[dict[str, object]]:
    paths = [
        ("0/000", [0, 0, 256]),
        ("entries/273.p/112", ["entries", 273, 112]),
        ("2/000.p/1", [2, 0, 1]),
        ("63/x001/x234/067", [63, 1234067, 256]),
        ("entries/x001/000.p/255", ["entries", 1000, 255]),
    ]
    bad = [
        "00/000",
        "64/000",
        "0/00",
        "0/000.p/0",
        "0/000.p/256",
        "0/000.p/01",
        "0/x000/001",
        "0/001/002",
        "0/",
        "",
        "-1/000",
    ]
    bad += ["0/../../etc/passwd", "entries/000/", "0/000 ", "0/00\u0661", "checkpoint", "0/x001"]
    vectors: list[dict[str, object]] = [
        {"name": p, "check": "path", "path": p, "place": w, "expect": "ok"} for p, w in paths
    ]
    vectors += [{"name": f"refused: {p!r}", "check": "path", "path": p, "expect": "tile_not_found"} for p in bad]
    partial = {
        0: [],
        1: [[0, 0, 1]],
        256: [[1, 0, 1]],
        65_536: [[2, 0, 1]],
        70_000: [[0, 273, 112], [1, 1, 17], [2, 0, 1]],
    }
    for size, tiles in partial.items():
        vectors.append(
            {"name": f"partial tiles of {size}", "check": "partial", "size": size, "tiles": tiles, "expect": "ok"}
        )
    return vectors


def journal_vectors() -> list[dict[str, object]]:
    entries = [json.dumps({"n": i}, separators=(",", ":")).encode() for i in range(5)]
    one, two, three = frame(0, [], entries[:2]), frame(2, entries[:2], entries[2:4]), frame(4, entries[:4], entries[4:])
    whole = one + two + three
    flipped = bytes([one[30] ^ 1])
    cases = [
        ("empty", b"", [0, 0], "ok"),
        ("three frames", whole, [5, 0], "ok"),
        ("torn: one byte of the last frame is missing", whole[:-1], [4, len(three) - 1], "ok"),
        ("torn: four bytes of a frame", whole + three[:4], [5, 4], "ok"),
        ("torn: zeros", whole + bytes(100), [5, 100], "ok"),
        ("torn: last checksum wrong", one + two[:-1] + bytes([two[-1] ^ 1]), [2, len(two)], "ok"),
        ("first frame changed", one[:30] + flipped + one[31:] + two, None, "log_damaged"),
        ("first frame cut", one[:-1] + two, None, "log_damaged"),
        ("a frame is missing", one + three, None, "log_damaged"),
        ("a frame twice", one + two + two, None, "log_damaged"),
        ("frames in another order", two + one, None, "log_damaged"),
        ("bytes between frames", one + b"\x00" + two, None, "log_damaged"),
    ]
    return [
        {"name": n, "journal": data.hex(), "expect": e} | ({"entries": r[0], "torn_bytes": r[1]} if r else {})
        for n, data, r, e in cases
    ]


def event_vectors() -> list[dict[str, object]]:
    cases = [
        ("small", b'{"a":1}', "ok"),
        ("nested", b'{"a":[1,"x",true,{"b":-5}],"c":""}', "ok"),
        ("text as RFC 8785 escapes it", '{"s":"\u20ac \\"\\\\\\n\\u001f \u007f"}'.encode(), "ok"),
        ("largest integer", b'{"a":9007199254740991}', "ok"),
        ("integer too large", b'{"a":9007199254740992}', "entry_invalid"),
        ("float", b'{"a":1.0}', "entry_invalid"),
        ("exponent", b'{"a":1e2}', "entry_invalid"),
        ("null", b'{"a":null}', "entry_invalid"),
        ("space", b'{"a": 1}', "entry_invalid"),
        ("not sorted", b'{"b":1,"a":1}', "entry_invalid"),
        ("a name twice", b'{"a":1,"a":1}', "entry_invalid"),
        ("escape not needed", b'{"a":"\\u0041"}', "entry_invalid"),
        ("not an object", b"[1]", "entry_invalid"),
        ("not UTF-8", b'{"a":"\xff"}', "entry_invalid"),
        ("NaN", b'{"a":NaN}', "entry_invalid"),
        ("something behind", b'{"a":1}\n', "entry_invalid"),
        ("empty", b"", "entry_invalid"),
        ("lone surrogate", b'{"a":"\\ud800"}', "entry_invalid"),
        ("deep", b'{"a":' + b"[" * 2_000 + b"]" * 2_000 + b"}", "entry_invalid"),
    ]
    return [{"name": n, "entry": e.hex(), "leaf_hash": leaf_hash(e).hex(), "expect": x} for n, e, x in cases]


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    made = {
        "merkle": merkle_vectors(),
        "notes": note_vectors(),
        "tiles": tile_vectors(),
        "journal": journal_vectors(),
        "events": event_vectors(),
    }
    write(folder, made)


def write(folder: Path, made: Mapping[str, list[dict[str, object]]]) -> None:
    for kind, vectors in made.items():
        document = {"format": "secure_embed/vectors/v1", "kind": kind, "vectors": vectors}
        (folder / f"log-{kind}.json").write_text(
            json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
