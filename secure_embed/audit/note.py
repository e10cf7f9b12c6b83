"""Signed notes (C2SP signed-note, Ed25519, type 0x01), checkpoints (C2SP tlog-checkpoint) and statements.

A signature covers the text alone, not the name beside it. So one key can sign both checkpoints and statements only because
their texts cannot be the same: a checkpoint begins with the origin, a statement with ``<origin>/<kind>/v1``, and each
reader asks for its own first line. What may not be in here: files and keys at rest.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from secure_embed.errors import ConfigurationError, IntegrityFailure

__all__ = ["Checkpoint", "NoteSigner", "NoteVerifier", "note_text", "sign_note", "verify_note"]

ed25519_type = b"\x01"
note_bytes_max = 64 * 1024
signatures_max = 64
_NAME = re.compile(r"[a-z0-9][a-z0-9./-]{0,254}\Z")  # narrower than C2SP: no Unicode, no upper case
_KIND = re.compile(r"[a-z][a-z-]{0,31}\Z")
_SIGNATURE_LINE = re.compile("\u2014 ([^\\s+]+) ([A-Za-z0-9+/=]+)\\Z")
_SIZE = re.compile(r"(?:0|[1-9][0-9]{0,18})\Z")


def _invalid(what: str) -> IntegrityFailure:
    return IntegrityFailure(f"the signed note is not valid: {what}", code="note_invalid")


def _decode(text: str) -> bytes:
    """Standard base64 and nothing else: an encoding that is not canonical is refused."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _invalid("base64") from None
    if base64.b64encode(raw).decode() != text:
        raise _invalid("base64")
    return raw


def _key_id(name: str, public_key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + ed25519_type + public_key).digest()[:4]


class NoteVerifier:
    """A name and an Ed25519 public key; what an auditor holds, as a verifier key string (vkey)."""

    def __init__(self, name: str, public_key: bytes) -> None:
        self.name = name
        self._public_key = public_key
        self._id = _key_id(name, public_key)
        self._key = Ed25519PublicKey.from_public_bytes(public_key)

    @classmethod
    def parse(cls, vkey: str) -> "NoteVerifier":
        """``name+hash+base64(0x01 || key)``. Raises ``ConfigurationError`` (``verifier_key_invalid``)."""
        try:
            name, key_id, material = vkey.split("+", 2)
            raw = _decode(material)
            if not name or any(c.isspace() for c in name) or len(raw) != 33 or raw[:1] != ed25519_type:
                raise ValueError
            if _key_id(name, raw[1:]).hex() != key_id:
                raise ValueError
            return cls(name, raw[1:])
        except (ValueError, IntegrityFailure):
            raise ConfigurationError("the verifier key is malformed", code="verifier_key_invalid") from None

    @property
    def key_id(self) -> str:
        """8 hex digits: what stands beside a signature, and in a vkey."""
        return self._id.hex()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NoteVerifier):
            return NotImplemented
        return (self.name, self._public_key) == (other.name, other._public_key)

    def __hash__(self) -> int:
        return hash((self.name, self._public_key))

    def signed(self, note: str) -> bool:
        """Whether the note carries a signature that claims to be this key's; nothing is verified."""
        return any((name, key_id) == (self.name, self._id) for name, key_id, _ in _parse(note)[1])

    def __str__(self) -> str:
        return f"{self.name}+{self._id.hex()}+{base64.b64encode(ed25519_type + self._public_key).decode()}"

    def open(self, note: str) -> str:
        """The note's text, if this key signed it. Raises ``IntegrityFailure`` (``note_invalid``)."""
        text, signatures = _parse(note)
        signed = False
        for name, key_id, signature in signatures:
            if name != self.name or key_id != self._id:
                continue  # C2SP: signatures of unknown keys are ignored
            try:
                self._key.verify(signature, text.encode())
            except InvalidSignature:
                raise _invalid("signature") from None
            signed = True
        if not signed:
            raise _invalid("no signature of the known key")
        return text


def note_text(note: str) -> str:
    """The text of a note, **not verified**. Raises ``IntegrityFailure`` (``note_invalid``)."""
    return _parse(note)[0]


def _parse(note: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    try:
        raw = note.encode()
    except UnicodeEncodeError:
        raise _invalid("encoding") from None
    if len(raw) > note_bytes_max or any(byte < 0x20 and byte != 0x0A for byte in raw):
        raise _invalid("size or control character")
    end = note.rfind("\n\n")
    if end < 0 or not note.endswith("\n"):
        raise _invalid("no signatures")
    lines = note[end + 2 : -1].split("\n")
    if len(lines) > signatures_max:
        raise _invalid("too many signatures")
    signatures = []
    for line in lines:
        found = _SIGNATURE_LINE.match(line)
        if not found:
            raise _invalid("signature line")
        blob = _decode(found[2])
        if len(blob) <= 4:
            raise _invalid("signature line")
        signatures.append((found[1], blob[:4], blob[4:]))
    return note[: end + 1], signatures


class NoteSigner:
    """Signs under a name, which is the log's origin."""

    def __init__(self, name: str, seed: bytes) -> None:
        """``seed``: 32 bytes, RFC 8032 section 5.1.5. Raises ``ConfigurationError``."""
        if not _NAME.match(name) or len(seed) != 32:
            raise ConfigurationError("the log's name or signing key is malformed", code="log_signer_invalid")
        self.name = name
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = NoteVerifier(name, self._key.public_key().public_bytes_raw())
        self._id = _key_id(name, self._key.public_key().public_bytes_raw())

    @property
    def vkey(self) -> str:
        return str(self.verifier)

    def sign(self, text: str) -> str:
        """The note over ``text``, which ends in a newline. For statements there is :func:`sign_note`."""
        assert text.endswith("\n")
        return f"{text}\n{self.signature(text)}"

    def signature(self, text: str) -> str:
        """The signature's line alone, to be put behind a note over the same text."""
        raw = base64.b64encode(self._id + self._key.sign(text.encode())).decode()
        return f"\u2014 {self.name} {raw}\n"


def _statement_header(name: str, kind: str) -> str:
    if not _KIND.match(kind):
        raise ConfigurationError("the kind of a statement is a-z and '-'", code="statement_kind_invalid")
    return f"{name}/{kind}/v1\n"


def sign_note(signer: NoteSigner, *, kind: str, text: str) -> str:
    """A signed statement of the log's owner, for example an erasure receipt (kind ``erasure-receipt``).

    ``text``: non-empty, ends in a newline, no control characters but newlines. The first signed line is
    ``<origin>/<kind>/v1``, so no statement can be taken for a checkpoint or for a statement of another kind.
    """
    if not text.strip("\n") or not text.endswith("\n") or any(c < " " and c != "\n" for c in text):
        raise _invalid("text")
    return signer.sign(_statement_header(signer.name, kind) + text)


def verify_note(verifier: NoteVerifier, note: str, *, kind: str) -> str:
    """The text of a statement of this kind. Raises ``IntegrityFailure`` (``note_invalid``)."""
    header = _statement_header(verifier.name, kind)
    text = verifier.open(note)
    if not text.startswith(header):
        raise _invalid("another kind of note")
    return text[len(header) :]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The text of a checkpoint: origin, size, root. Extension lines are refused: nothing here writes any."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        lines = text.split("\n")
        if len(lines) != 4 or lines[3] or not lines[0] or not _SIZE.match(lines[1]):
            raise _invalid("checkpoint")
        root = _decode(lines[2])
        if len(root) != 32:
            raise _invalid("checkpoint")
        return cls(origin=lines[0], size=int(lines[1]), root=root)

    @classmethod
    def of_note(cls, note: str) -> "Checkpoint":
        """What a checkpoint says, **not verified**: for storage, which holds no key."""
        return cls.parse(note_text(note))

    @classmethod
    def verified(cls, note: str, verifier: NoteVerifier) -> "Checkpoint":
        """Raises ``IntegrityFailure`` (``note_invalid``): signature, form or origin."""
        checkpoint = cls.parse(verifier.open(note))
        if checkpoint.origin != verifier.name:
            raise _invalid("origin")
        return checkpoint
