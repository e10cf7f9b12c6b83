"""Signed notes, checkpoints and statements (C2SP signed-note, tlog-checkpoint; docs/log-format.md)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

NOTE_BYTES_MAX = 64 * 1024
SIGNATURES_MAX = 64
_SIGNATURE = re.compile("\u2014 ([^\\s+]+) ([A-Za-z0-9+/=]+)")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


class NoteInvalid(Exception):
    """The note must be ignored; the message says why."""


class KeyInvalid(Exception):
    """The verifier key string is malformed."""


def _decode(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteInvalid("it holds malformed base64") from None
    if base64.b64encode(raw).decode() != text:
        raise NoteInvalid("it holds base64 that is not canonical")
    return raw


@dataclass(frozen=True, eq=False)
class Key:
    name: str
    key_id: bytes
    public: Ed25519PublicKey

    @classmethod
    def parse(cls, vkey: str) -> Key:
        try:
            name, key_id, material = vkey.split("+", 2)
            raw = _decode(material)
        except (ValueError, NoteInvalid):
            raise KeyInvalid("the key is not of the form name+hash+base64") from None
        expected = hashlib.sha256(name.encode(errors="replace") + b"\n" + raw).digest()[:4]
        if not name or any(c.isspace() for c in name) or len(raw) != 33 or raw[0] != 1 or expected.hex() != key_id:
            raise KeyInvalid("the key's hash does not fit its name and bytes, or it is not an Ed25519 key")
        return cls(name, expected, Ed25519PublicKey.from_public_bytes(raw[1:]))

    @property
    def raw(self) -> bytes:
        return self.public.public_bytes_raw()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and (self.name, self.raw) == (other.name, other.raw)

    def __hash__(self) -> int:
        return hash((self.name, self.raw))

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(bytes([1]) + self.raw).decode()}"


def split_note(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Text and signatures (name, key id and signature), nothing verified."""
    try:
        raw = note.encode()
    except UnicodeEncodeError:
        raise NoteInvalid("it is not UTF-8") from None
    if len(raw) > NOTE_BYTES_MAX or any(byte < 32 and byte != 10 for byte in raw):
        raise NoteInvalid("it is too long or holds control characters")
    text, separator, block = note.rpartition("\n\n")
    if not separator or not block.endswith("\n"):
        raise NoteInvalid("it carries no signatures")
    lines = block[:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise NoteInvalid("it carries too many signatures")
    signatures = []
    for line in lines:
        parts = _SIGNATURE.fullmatch(line)
        if parts is None:
            raise NoteInvalid("a signature line is malformed")
        blob = _decode(parts[2])
        if len(blob) <= 4:
            raise NoteInvalid("a signature line is malformed")
        signatures.append((parts[1], blob))
    return text + "\n", signatures


def open_note(note: str, key: Key) -> str:
    """The signed text. Raises NoteInvalid."""
    text, signatures = split_note(note)
    mine = [blob[4:] for name, blob in signatures if name == key.name and blob[:4] == key.key_id]
    if not mine:
        raise NoteInvalid("it is not signed by the given key")
    for signature in mine:
        try:
            key.public.verify(signature, text.encode())
        except InvalidSignature:
            raise NoteInvalid("its signature is wrong") from None
    return text


@dataclass(frozen=True)
class Checkpoint:
    origin: str
    size: int
    root: bytes


def read_checkpoint(text: str) -> Checkpoint:
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] != "" or not lines[0] or _SIZE.fullmatch(lines[1]) is None:
        raise NoteInvalid("its text is not a checkpoint")
    root = _decode(lines[2])
    if len(root) != 32:
        raise NoteInvalid("its root has another length")
    return Checkpoint(lines[0], int(lines[1]), root)


def open_checkpoint(note: str, key: Key) -> Checkpoint:
    checkpoint = read_checkpoint(open_note(note, key))
    if checkpoint.origin != key.name:
        raise NoteInvalid("it is of another log")
    return checkpoint


def open_statement(note: str, key: Key, kind: str) -> str:
    text = open_note(note, key)
    header = f"{key.name}/{kind}/v1\n"
    if not text.startswith(header):
        raise NoteInvalid(f"it is not a statement of the kind {kind}")
    return text[len(header) :]
