"""Writes the sealing-*.json vectors beside it. Deterministic; imports nothing from secure_embed, so that the vectors
come from the document (docs/formats.md) and not from the code they check.

    python tests/vectors/generate_sealing.py [FOLDER]
"""

import base64
import hashlib
import hmac
import json
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

UNREADABLE = "sealed_value_unreadable"
COLLECTION = UUID("0f9c3a54-6c1f-4c0e-9d0a-0d9f6b1f2a11")
OTHER_COLLECTION = UUID("9b2d7c10-54f1-4f6b-8a43-5f0a55a1c922")
DEPLOYMENT = UUID("5d0e8a7b-1c2d-4e3f-8a9b-0c1d2e3f4a5b")
HEADER = b"\x01\x00\x00\x00\x01"
NO_SPACE = bytes(32)


def fixed(name: str, size: int) -> bytes:
    """Bytes that look random and are the same on every run."""
    return hashlib.shake_128(b"secure_embed test vector " + name.encode()).digest(size)


def space_digest(model: str, revision: str, manifest: str, pooling: str, dimension: int) -> bytes:
    data = b"secure_embed/space/v1\x00"
    for part in (model, revision, manifest, pooling):
        data += struct.pack(">I", len(part.encode())) + part.encode()
    return hashlib.sha256(data + struct.pack(">I", dimension)).digest()


SPACE = space_digest("all-MiniLM-L6-v2", "c9745ed1", "ab" * 32, "mean", 384)


def seal(key: bytes, nonce: bytes, plaintext: bytes, additional: bytes, header: bytes = HEADER) -> bytes:
    return header + nonce + AESGCM(key).encrypt(nonce, plaintext, additional)


def place(collection: UUID, position: int, field: int, space: bytes, header: bytes = HEADER) -> bytes:
    return b"secure_embed/seal/v1" + header + collection.bytes + struct.pack(">qB", position, field) + space


def value_case(
    name: str,
    *,
    plaintext: bytes,
    field: int,
    position: int = -1,
    space: bytes = NO_SPACE,
    collection: UUID = COLLECTION,
    header: bytes = HEADER,
) -> dict[str, object]:
    key, nonce = fixed(f"key {name}", 32), fixed(f"nonce {name}", 12)
    additional = place(collection, position, field, space, header)
    sealed = seal(key, nonce, plaintext, additional, header)
    return {
        "name": name,
        "key": key.hex(),
        "collection": str(collection),
        "position": position,
        "field": field,
        "space": space.hex(),
        "additional_data": additional.hex(),
        "plaintext": plaintext.hex(),
        "sealed": sealed.hex(),
        "expect": "ok",
    }


def spoiled(case: dict[str, object], name: str, **changes: object) -> dict[str, object]:
    """The case with members changed; it must not open, so what it would have given is left out."""
    kept = {k: v for k, v in case.items() if k not in {"additional_data", "plaintext"}}
    return {**kept, "name": name, **changes, "expect": UNREADABLE}


def flipped(hexadecimal: object, offset: int) -> str:
    raw = bytearray.fromhex(str(hexadecimal))
    raw[offset] ^= 1
    return raw.hex()


def values() -> list[dict[str, object]]:
    vector = struct.pack("<4e", 0.5, -0.5, 0.7071, 6.0e-8)
    first = value_case("vector", plaintext=vector, field=1, position=0, space=SPACE)
    text = value_case("text in several scripts", plaintext="Größe, niño, 病歴".encode(), field=2, position=41)
    codes = value_case("codes, a chunk before the last", plaintext=fixed("codes", 64), field=17, position=2)
    sealed = str(text["sealed"])
    return [
        first,
        text,
        value_case("meta, last position of 63 bits", plaintext=b'{"id":"r-1"}', field=3, position=2**63 - 1),
        value_case("empty text", plaintext=b"", field=2, position=7),
        value_case("codebook", plaintext=fixed("codebook", 64), field=16),
        codes,
        value_case("codes, last chunk", plaintext=fixed("last codes", 64), field=18, position=3),
        value_case("collection descriptor", plaintext=b'{"name":"notes"}', field=32),
        value_case("erasure state", plaintext=b'{"state":"done"}', field=33, collection=OTHER_COLLECTION),
        spoiled(text, "moved to another record", position=42),
        spoiled(text, "moved to another field", field=3),
        spoiled(text, "moved to another collection", collection=str(OTHER_COLLECTION)),
        spoiled(first, "moved to another space", space=NO_SPACE.hex()),
        spoiled(codes, "codes moved to another chunk", position=3),
        spoiled(codes, "codes cut off: a chunk before the last as the last", field=18),
        spoiled(text, "wrong key", key=fixed("another key", 32).hex()),
        spoiled(text, "nonce changed", sealed=flipped(sealed, 5)),
        spoiled(text, "ciphertext changed", sealed=flipped(sealed, 17)),
        spoiled(text, "tag changed", sealed=flipped(sealed, -1)),
        spoiled(text, "one byte short", sealed=sealed[:-2]),
        spoiled(text, "one byte long", sealed=sealed + "00"),
        spoiled(text, "shorter than header, nonce and tag", sealed=sealed[:64]),
        spoiled(text, "empty", sealed=""),
        spoiled(
            value_case("algorithm unknown", plaintext=b"x", field=2, position=1, header=b"\x02\x00\x00\x00\x01"),
            "unknown algorithm, authentic otherwise",
        ),
        spoiled(
            value_case("key version unknown", plaintext=b"x", field=2, position=1, header=b"\x01\x00\x00\x00\x02"),
            "unknown key version, authentic otherwise",
        ),
    ]


def wraps() -> list[dict[str, object]]:
    def case(name: str, wrapping: bytes, key: bytes) -> dict[str, object]:
        wrapped = aes_key_wrap(wrapping, key)
        return {
            "name": name,
            "wrapping_key": wrapping.hex(),
            "key": key.hex(),
            "wrapped": wrapped.hex(),
            "expect": "ok",
        }

    rfc = bytes.fromhex("000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F")
    rfc_key = bytes.fromhex("00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F")
    ours = case("record key", fixed("collection key", 32), fixed("record key", 32))

    def bad(name: str, **changes: object) -> dict[str, object]:
        return {**{k: v for k, v in ours.items() if k != "key"}, "name": name, **changes, "expect": UNREADABLE}

    return [
        case("RFC 3394 section 4.6", rfc, rfc_key),
        ours,
        bad("wrong collection key", wrapping_key=fixed("another collection key", 32).hex()),
        bad("first byte changed", wrapped=flipped(ours["wrapped"], 0)),
        bad("last byte changed", wrapped=flipped(ours["wrapped"], -1)),
        bad("cut to a shorter key's length", wrapped=str(ours["wrapped"])[:48]),
    ]


def root_wraps() -> list[dict[str, object]]:
    def context(kind: str, *, name: str = "", collection: UUID | None = None, version: int = 0) -> bytes:
        start = b"secure_embed/wrap/v1" + (b"\x01" if kind == "secret" else b"\x02") + DEPLOYMENT.bytes
        if collection is None:
            return start + name.encode()
        return start + collection.bytes + struct.pack(">I", version)

    def case(label: str, kind: str, bound: bytes, members: dict[str, object]) -> dict[str, object]:
        root, nonce, key = fixed("root", 32), fixed(f"nonce {label}", 12), fixed(f"wrapped {label}", 32)
        wrapped = seal(root, nonce, key, b"secure_embed/root-wrap/v1" + HEADER + bound)
        return {
            "name": label,
            "root": root.hex(),
            "kind": kind,
            "deployment": str(DEPLOYMENT),
            **members,
            "context": bound.hex(),
            "key": key.hex(),
            "wrapped": wrapped.hex(),
            "expect": "ok",
        }

    def bad(good: dict[str, object], label: str, **changes: object) -> dict[str, object]:
        kept = {k: v for k, v in good.items() if k not in {"context", "key"}}
        return {**kept, "name": label, **changes, "expect": UNREADABLE}

    secret = case("deployment secret", "secret", context("secret", name="data_store"), {"secret": "data_store"})
    third = case(
        "collection key, version 3",
        "collection",
        context("collection", collection=COLLECTION, version=3),
        {"collection": str(COLLECTION), "version": 3},
    )
    return [
        secret,
        third,
        bad(secret, "secret under another name", secret="keys_store"),
        bad(secret, "secret of another deployment", deployment=str(OTHER_COLLECTION)),
        bad(third, "collection key of an older version", version=2),
        bad(third, "collection key of another collection", collection=str(OTHER_COLLECTION)),
    ]


def tags() -> list[dict[str, object]]:
    def case(name: str, kind: int, *parts: str) -> dict[str, object]:
        key = fixed("lookup key", 32)
        message = bytes([kind])
        for part in parts[:-1]:
            message += struct.pack(">I", len(part.encode())) + part.encode()
        message += parts[-1].encode()
        tag = hmac.digest(key, message, "sha256")
        return {"name": name, "key": key.hex(), "kind": kind, "parts": parts, "tag": tag.hex(), "expect": "ok"}

    good = [
        case("record id", 1, "rec-0001"),
        case("the same value as a subject", 2, "rec-0001"),
        case("attribute, string", 3, "department", "string", "1"),
        case("attribute, long", 3, "department", "long", "1"),
        case("attribute, bool", 3, "department", "bool", "true"),
        case("query", 4, "病歴 größe"),
        case("request", 5, "0190b5c2"),
        case("request body", 6, "{}"),
        case("ledger record", 7, "rec-0001"),
        case("collection name", 32, "clinical-notes"),
        case("principal", 33, "https://issuer.example", "ana"),
        case("client", 34, "https://issuer.example", "app"),
        case("border between parts moved", 33, "https://issuer.exampl", "eana"),
        case("empty value", 2, ""),
    ]
    return [*good, {**good[0], "name": "tag of another kind", "kind": 2, "expect": "tag_differs"}]


def catalogue() -> list[dict[str, object]]:
    def derive(secret: bytes, info: bytes) -> str:
        return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret).hex()

    secret = fixed("catalogue", 32)
    return [
        {
            "name": "catalogue keys",
            "secret": secret.hex(),
            "seal_key": derive(secret, b"secure_embed/catalogue/seal/v1"),
            "tag_key": derive(secret, b"secure_embed/catalogue/tag/v1"),
            "rows_key": derive(secret, b"secure_embed/catalogue/rows/v1"),
            "expect": "ok",
        }
    ]


def text(value: str) -> bytes:
    return struct.pack(">I", len(value.encode())) + value.encode()


def rows_mac(key: bytes, kind: str, *parts: bytes) -> str:
    return hmac.new(key, f"secure_embed/rows/{kind}/v1".encode() + b"".join(parts), hashlib.sha256).hexdigest()


def row_value(value: object) -> bytes:
    if value is None:
        return b"\x00"
    if isinstance(value, int):
        return b"\x01" + struct.pack(">q", value)
    if isinstance(value, dict):
        raw = bytes.fromhex(value["hex"])
        return b"\x02" + struct.pack(">I", len(raw)) + raw
    return b"\x03" + text(str(value))


def rows() -> list[dict[str, object]]:
    """``values`` of a row: numbers, null, texts, and BLOBs as {"hex": ...}."""
    key = fixed("rows", 32)

    def leaf(
        name: str, file: str, table: str, owner: int, block: int, of_block: list[list[object]]
    ) -> dict[str, object]:
        parts = [text(file), text(table), struct.pack(">qq", owner, block)]
        for row in of_block:
            parts += [struct.pack(">I", len(row)), *map(row_value, row)]
        return {
            "name": name, "what": "leaf", "key": key.hex(), "file": file, "table": table, "owner": owner,
            "block": block, "rows": of_block, "mac": rows_mac(key, "leaf", *parts), "expect": "ok",
        }  # fmt: skip

    def table(name: str, file: str, of: str, owner: int, leaves: list[tuple[int, str]]) -> dict[str, object]:
        blocks = struct.pack(f">I{len(leaves)}q", len(leaves), *(block for block, _ in leaves))
        macs = b"".join(bytes.fromhex(mac) for _, mac in leaves)
        mac = rows_mac(key, "table", text(file), text(of), struct.pack(">q", owner), blocks, macs)
        return {
            "name": name, "what": "table", "key": key.hex(), "file": file, "table": of, "owner": owner,
            "leaves": [{"block": block, "mac": leaf_mac} for block, leaf_mac in leaves], "mac": mac, "expect": "ok",
        }  # fmt: skip

    def whole(name: str, file: str, generation: int, tables: list[tuple[str, int, str]]) -> dict[str, object]:
        parts = [text(of) + struct.pack(">q", owner) + bytes.fromhex(mac) for of, owner, mac in tables]
        mac = rows_mac(key, "file", text(file), struct.pack(">q", generation), *parts)
        return {
            "name": name, "what": "file", "key": key.hex(), "file": file, "generation": generation,
            "tables": [{"table": of, "owner": owner, "mac": its} for of, owner, its in tables], "mac": mac,
            "expect": "ok",
        }  # fmt: skip

    changes: list[list[object]] = [[3, 255, 0, 0, 1000], [3, 256, 1, 17, 1]]
    place_ = {"hex": struct.pack(">qq", 1, 2).hex()}
    first = leaf("one row", "data.db", "change", 3, 0, changes[:1])
    second = leaf("one row of the next block", "data.db", "change", 3, 1, changes[1:])
    macs = [str(first["mac"]), str(second["mac"])]
    both = table("two blocks", "data.db", "change", 3, [(0, macs[0]), (1, macs[1])])
    root: list[list[object]] = [[1, "9f" * 16]]
    of_root = leaf("a text", "keys.db", "root", 0, 0, root)
    moved = leaf("another block's rows", "data.db", "change", 3, 0, changes[1:])
    moved |= {"rows": changes[:1], "expect": "mac_differs"}
    missing = table("a block that is missing", "data.db", "change", 3, [(0, macs[0]), (1, macs[1])])
    missing |= {"leaves": [{"block": 0, "mac": macs[0]}], "expect": "mac_differs"}
    older = whole("an older count", "data.db", 8, [("change", 3, str(both["mac"]))])
    older |= {"generation": 7, "expect": "mac_differs"}
    return [
        first,
        second,
        leaf("no value, a negative number and an empty BLOB", "data.db", "t", 0, -1, [[-5, None, {"hex": ""}]]),
        leaf("a row of blocks", "keys.db", "subjects", 1, 2, [[place_, {"hex": fixed("tags", 64).hex()}]]),
        of_root,
        both,
        whole("one table", "data.db", 8, [("change", 3, str(both["mac"]))]),
        whole("a file without rows", "keys.db", 1, []),
        moved,
        missing,
        older,
    ]


def spaces() -> list[dict[str, object]]:
    def case(name: str, model: str, revision: str, manifest: str, pooling: str, dimension: int) -> dict[str, object]:
        return {
            "name": name,
            "model": model,
            "revision": revision,
            "manifest_sha256": manifest,
            "pooling": pooling,
            "dimension": dimension,
            "digest": space_digest(model, revision, manifest, pooling, dimension).hex(),
            "expect": "ok",
        }

    return [
        case("MiniLM", "all-MiniLM-L6-v2", "c9745ed1", "ab" * 32, "mean", 384),
        case("border between model and revision moved", "all-MiniLM-L6-v2c", "9745ed1", "ab" * 32, "mean", 384),
        case("bge-m3", "bge-m3", "5617a9f6", "cd" * 32, "cls", 1024),
    ]


def roots() -> list[dict[str, object]]:
    passphrase, salt, root = b"correct horse battery staple", fixed("salt", 16), fixed("root", 32)
    memory_kib, iterations, lanes = 65_536, 3, 4
    key_id = fixed("key id", 16).hex()
    key = Argon2id(salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory_kib).derive(passphrase)
    bound = key_id.encode() + struct.pack(">III", memory_kib, iterations, lanes) + salt
    sealed = seal(key, fixed("nonce root", 12), root, b"secure_embed/root/v1" + HEADER + bound)
    file = {
        "format": "secure_embed/root/v1",
        "key_id": key_id,
        "memory_kib": memory_kib,
        "iterations": iterations,
        "lanes": lanes,
        "salt": base64.b64encode(salt).decode(),
        "sealed_root": base64.b64encode(sealed).decode(),
    }
    good = {"name": "root.json", "passphrase": passphrase.hex(), "file": file, "root": root.hex(), "expect": "ok"}
    bad = {"passphrase": passphrase.hex(), "expect": UNREADABLE}
    return [
        good,
        {**bad, "name": "wrong passphrase", "passphrase": b"correct horse battery stapl".hex(), "file": file},
        {**bad, "name": "another key id", "file": {**file, "key_id": fixed("another id", 16).hex()}},
        {**bad, "name": "fewer iterations", "file": {**file, "iterations": 2}},
    ]


def token_wraps() -> list[dict[str, object]]:
    """What the pkcs11 provider writes, with a token's root key that is known here."""
    root, data_key, key, context = fixed("token", 32), fixed("data key", 32), fixed("wrapped key", 32), b"context"

    def wrapped(bound: bytes) -> bytes:
        sealed = seal(data_key, fixed("nonce token", 12), key, b"secure_embed/token-wrap/v1" + HEADER + bound)
        return aes_key_wrap(root, data_key) + sealed

    def case(name: str, raw: bytes, expect: str = UNREADABLE) -> dict[str, object]:
        good: dict[str, object] = {"key": key.hex()} if expect == "ok" else {}
        return {
            "name": name,
            "root": root.hex(),
            "context": context.hex(),
            "wrapped": raw.hex(),
            **good,
            "expect": expect,
        }

    right = wrapped(context)
    return [
        case("a key wrapped by way of a token", right, "ok"),
        case("another context", wrapped(b"contex")),
        case(
            "no domain", aes_key_wrap(root, data_key) + seal(data_key, fixed("nonce token", 12), key, HEADER + context)
        ),
        case("data key under another root", aes_key_wrap(fixed("other token", 32), data_key) + right[40:]),
        case("another data key", aes_key_wrap(root, fixed("other data key", 32)) + right[40:]),
        case("one byte short", right[:-1]),
        case("nothing but the data key", right[:40]),
    ]


def files() -> Iterable[tuple[str, list[dict[str, object]]]]:
    yield "values", values()
    yield "wraps", wraps()
    yield "root-wraps", root_wraps()
    yield "tags", tags()
    yield "catalogue", catalogue()
    yield "rows", rows()
    yield "spaces", spaces()
    yield "roots", roots()
    yield "token-wraps", token_wraps()


def main(folder: Path) -> None:
    for kind, vectors in files():
        document = {"format": "secure_embed/vectors/v1", "kind": kind, "vectors": vectors}
        target = folder / f"sealing-{kind}.json"
        target.write_text(json.dumps(document, indent=1, ensure_ascii=True) + "\n")
        print(f"{target.name}: {len(vectors)} vectors")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
