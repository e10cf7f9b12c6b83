"""Checks the test vectors of the sealed formats against docs/formats.md, without the service's code.

    python audit/check_vectors.py tests/vectors

Needs Python and `cryptography`, nothing of secure_embed. Exit status 0: every vector holds; 1: one does not, or a
file of vectors is missing. Reads sealing-*.json and passes over every other file, with a line for each.
"""

import base64
import hashlib
import hmac
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

Vector = dict[str, Any]

HEADER = bytes([1]) + (1).to_bytes(4, "big")
VECTOR_FIELD = 1


class Unreadable(Exception):
    """The value does not open; the vectors call it sealed_value_unreadable."""


def open_sealed(key: bytes, sealed: bytes, additional: bytes) -> bytes:
    if len(sealed) < 33 or sealed[:5] != HEADER:
        raise Unreadable
    try:
        return AESGCM(key).decrypt(sealed[5:17], sealed[17:], additional)
    except InvalidTag:
        raise Unreadable from None


def expect(found: bytes, wanted: str, what: str) -> None:
    if found.hex() != wanted:
        raise ValueError(f"{what} differs")


def check_value(v: Vector) -> None:
    additional = b"".join(
        (
            b"secure_embed/seal/v1",
            HEADER,
            UUID(v["collection"]).bytes,
            v["position"].to_bytes(8, "big", signed=True),
            v["field"].to_bytes(1, "big"),
            bytes.fromhex(v["space"]),
        )
    )
    if len(additional) != 82:
        raise ValueError("the additional data does not have 82 bytes")
    if v["field"] != VECTOR_FIELD and any(bytes.fromhex(v["space"])):
        raise ValueError("a space where none applies")
    plaintext = open_sealed(bytes.fromhex(v["key"]), bytes.fromhex(v["sealed"]), additional)
    expect(additional, v["additional_data"], "additional data")
    expect(plaintext, v["plaintext"], "plaintext")


def check_wrap(v: Vector) -> None:
    wrapped = bytes.fromhex(v["wrapped"])
    if len(wrapped) != 40:
        raise Unreadable
    try:
        key = aes_key_unwrap(bytes.fromhex(v["wrapping_key"]), wrapped)
    except InvalidUnwrap:
        raise Unreadable from None
    expect(key, v["key"], "key")


def check_root_wrap(v: Vector) -> None:
    context = b"secure_embed/wrap/v1"
    if v["kind"] == "secret":
        context += b"\x01" + UUID(v["deployment"]).bytes + v["secret"].encode("ascii")
    else:
        context += b"\x02" + UUID(v["deployment"]).bytes + UUID(v["collection"]).bytes
        context += v["version"].to_bytes(4, "big")
    additional = b"secure_embed/root-wrap/v1" + HEADER + context
    key = open_sealed(bytes.fromhex(v["root"]), bytes.fromhex(v["wrapped"]), additional)
    expect(context, v["context"], "context")
    expect(key, v["key"], "key")


def check_tag(v: Vector) -> None:
    *before, last = [part.encode() for part in v["parts"]]
    message = bytes([v["kind"]]) + b"".join(len(part).to_bytes(4, "big") + part for part in before) + last
    tag = hmac.new(bytes.fromhex(v["key"]), message, hashlib.sha256).hexdigest()
    if tag != v["tag"]:
        raise ValueError("tag differs")


def check_catalogue(v: Vector) -> None:
    for name in ("seal", "tag", "rows"):
        info = f"secure_embed/catalogue/{name}/v1".encode()
        key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(bytes.fromhex(v["secret"]))
        expect(key, v[f"{name}_key"], f"{name} key")


def check_rows(v: Vector) -> None:
    message = f"secure_embed/rows/{v['what']}/v1".encode() + _text(v["file"])
    if v["what"] == "file":
        message += struct.pack(">q", v["generation"])
        for table in v["tables"]:
            message += _text(table["table"]) + struct.pack(">q", table["owner"]) + bytes.fromhex(table["mac"])
    else:
        message += _text(v["table"]) + struct.pack(">q", v["owner"])
    if v["what"] == "table":
        message += struct.pack(">I", len(v["leaves"]))
        message += b"".join(struct.pack(">q", leaf["block"]) for leaf in v["leaves"])
        message += b"".join(bytes.fromhex(leaf["mac"]) for leaf in v["leaves"])
    if v["what"] == "leaf":
        message += struct.pack(">q", v["block"])
        for row in v["rows"]:
            message += struct.pack(">I", len(row)) + b"".join(map(_row_value, row))
    if hmac.new(bytes.fromhex(v["key"]), message, hashlib.sha256).hexdigest() != v["mac"]:
        raise ValueError("mac differs")


def _text(value: str) -> bytes:
    return struct.pack(">I", len(value.encode())) + value.encode()


def _row_value(value: object) -> bytes:
    if value is None:
        return b"\x00"
    if isinstance(value, int):
        return b"\x01" + struct.pack(">q", value)
    if isinstance(value, str):
        return b"\x03" + _text(value)
    raw = bytes.fromhex(value["hex"])  # type: ignore[index]
    return b"\x02" + struct.pack(">I", len(raw)) + raw


def check_space(v: Vector) -> None:
    digest = hashlib.sha256(b"secure_embed/space/v1\x00")
    for name in ("model", "revision", "manifest_sha256", "pooling"):
        part = v[name].encode()
        digest.update(len(part).to_bytes(4, "big") + part)
    digest.update(v["dimension"].to_bytes(4, "big"))
    expect(digest.digest(), v["digest"], "digest")


def check_root(v: Vector) -> None:
    file = v["file"]
    if file["format"] != "secure_embed/root/v1":
        raise ValueError("unknown format of root.json")
    salt, cost = base64.b64decode(file["salt"]), (file["memory_kib"], file["iterations"], file["lanes"])
    memory, passes, threads = cost
    kdf = Argon2id(salt=salt, length=32, iterations=passes, lanes=threads, memory_cost=memory)
    key = kdf.derive(bytes.fromhex(v["passphrase"]))
    additional = b"secure_embed/root/v1" + HEADER + file["key_id"].encode("ascii") + struct.pack(">III", *cost) + salt
    expect(open_sealed(key, base64.b64decode(file["sealed_root"]), additional), v["root"], "root key")


def check_token_wrap(v: Vector) -> None:
    wrapped = bytes.fromhex(v["wrapped"])
    if len(wrapped) != 40 + 65:
        raise Unreadable
    try:
        data_key = aes_key_unwrap(bytes.fromhex(v["root"]), wrapped[:40])
    except InvalidUnwrap:
        raise Unreadable from None
    additional = b"secure_embed/token-wrap/v1" + HEADER + bytes.fromhex(v["context"])
    expect(open_sealed(data_key, wrapped[40:], additional), v.get("key", ""), "key")


CHECKS: dict[str, Callable[[Vector], None]] = {
    "values": check_value,
    "wraps": check_wrap,
    "root-wraps": check_root_wrap,
    "tags": check_tag,
    "catalogue": check_catalogue,
    "rows": check_rows,
    "spaces": check_space,
    "roots": check_root,
    "token-wraps": check_token_wrap,
}


def outcome(check: Callable[[Vector], None], vector: Vector) -> str:
    """ "ok", or why not, in the words that the vectors use under `expect`."""
    try:
        check(vector)
    except Unreadable:
        return "sealed_value_unreadable"
    except ValueError as fault:
        return str(fault).replace(" ", "_") if str(fault) in {"tag differs", "mac differs"} else str(fault)
    return "ok"


def check_file(path: Path) -> tuple[int, int]:
    """How many vectors held and how many did not. A file that cannot be understood counts as one that did not."""
    kind = path.stem.removeprefix("sealing-")
    try:
        document = json.loads(path.read_bytes())
        if document["format"] != "secure_embed/vectors/v1" or document["kind"] != kind:
            raise KeyError("format")
        check, vectors = CHECKS[kind], document["vectors"]
        results = [(v["name"], v["expect"], outcome(check, v)) for v in vectors]
    except (KeyError, TypeError, AttributeError, ValueError) as fault:
        print(f"{path.name}: FAILED, not understood ({type(fault).__name__})")
        return 0, 1
    failed = [(name, wanted, found) for name, wanted, found in results if wanted != found]
    for name, wanted, found in failed:
        print(f"{path.name}: FAILED {name!r}: expected {wanted}, found {found}")
    refused = sum(wanted != "ok" for _, wanted, _ in results)
    print(f"{path.name}: {len(results)} vectors, {refused} of them to be refused, {len(failed)} failed")
    return len(results) - len(failed), len(failed)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python audit/check_vectors.py FOLDER", file=sys.stderr)
        return 1
    folder = Path(arguments[0])
    missing = [kind for kind in CHECKS if not (folder / f"sealing-{kind}.json").is_file()]
    for kind in missing:
        print(f"sealing-{kind}.json: FAILED, missing")
    held, failed = 0, len(missing)
    for path in sorted(folder.glob("*.json")):
        if not path.name.startswith("sealing-"):
            print(f"{path.name}: passed over, not a sealing vector")
            continue
        good, bad = check_file(path)
        held, failed = held + good, failed + bad
    print(f"{held} vectors hold, {failed} failures")
    return 0 if held and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
