"""A collection's codes in a sealed file, so that a start does not code every vector anew. Format: docs/formats.md.

The file is derived: whatever is wrong with it, the codes are built again from the sealed vectors. It is written beside
its place and renamed, so that a crash leaves the old one, the new one or none. Each saving has a key of its own, which
every erasure ends: a file from before it never opens again. What may not be in here: FAISS, rows, plaintext on disk.
"""

import os
import struct
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from io import FileIO
from pathlib import Path
from typing import Literal, Self
from uuid import UUID

from secure_embed.errors import Conflict, IntegrityFailure, SecureEmbedError, Unavailable
from secure_embed.index import chunk_bytes, wipe
from secure_embed.keys import CollectionKeys, KeyStore
from secure_embed.keys.sealing import sealed_overhead_bytes
from secure_embed.store import Change, RecordStore
from secure_embed.types import Position

__all__ = ["CodesOrigin", "Found", "SavedCodes", "Standing"]

header = b"SE-SAVED\x01"  # the last byte is the format's version
standing = struct.Struct(">QIBQQ")  # data version, codebook version, kind of the last change, its first, its count
no_change = 0
kinds: Mapping[int, Literal["added", "erased", "resealed"]] = {1: "added", 2: "erased", 3: "resealed"}
changes_max = 10_000  # to catch up on; a store reads that many in some 10 ms
first_bytes = standing.size + sealed_overhead_bytes
full_bytes = chunk_bytes + sealed_overhead_bytes
zeros = bytes(1 << 20)


class CodesOrigin(StrEnum):
    """Where the codes in memory came from, and if they were built, why."""

    SAVED = "saved"
    ABSENT = "absent"  # nothing was saved since the last erasure
    STALE = "stale"  # saved of another state than additions lead on from, or with another codebook
    UNREADABLE = "unreadable"  # damaged, cut off, or sealed with a key that is not the one we have


def _refused(what: str) -> IntegrityFailure:
    return IntegrityFailure(f"saved codes are not what was written: {what}", code="codes_unreadable")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What saved codes stand for. A data version alone could be reached twice, from a backup of the data that was put
    back; no two changes have the same positions, so the last change says which history it was."""

    last: Change | None  # None: nothing had been written yet
    codebook: int

    @property
    def data_version(self) -> int:
        return 0 if self.last is None else self.last.sequence

    @classmethod
    def now(cls, store: RecordStore, c: UUID, *, data_version: int, codebook: int) -> Self:
        """Raises ``IntegrityFailure`` (``codes_unreadable``) when the store has not come to that version."""
        found = store.changes(c, since=data_version - 1, limit=1) if data_version else ()
        if len(found) != bool(data_version):
            raise _refused("their data version")
        return cls(last=found[0] if found else None, codebook=codebook)

    def to_bytes(self) -> bytes:
        last = self.last
        if last is None:
            return standing.pack(0, self.codebook, no_change, 0, 0)
        (kind,) = (number for number, name in kinds.items() if name == last.kind)
        return standing.pack(last.sequence, self.codebook, kind, last.first, last.count)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Raises ``IntegrityFailure`` (``codes_unreadable``)."""
        if len(raw) != standing.size:
            raise _refused("their standing")
        sequence, codebook, kind, first, count = standing.unpack(raw)
        if kind == no_change and sequence == first == count == 0:
            return cls(last=None, codebook=codebook)
        if kind not in kinds or not sequence:
            raise _refused("their standing")
        last = Change(sequence=sequence, kind=kinds[kind], first=Position(first), count=count)
        return cls(last=last, codebook=codebook)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """Saved codes on their way in, and the additions that came after them."""

    version: int  # of the data, at the saving
    chunks: Generator[memoryview]  # in plaintext, each good until the next is asked for; close it
    since: Sequence[Change]


def additions_since(store: RecordStore, c: UUID, saved: Standing) -> Sequence[Change]:
    """Raises ``Conflict`` (``codes_stale``) when the store's history is another one, or holds an erasure or too many."""
    before = 0 if saved.last is None else 1
    changes = store.changes(c, since=saved.data_version - before, limit=changes_max + 1 + before)
    since = changes[before:]
    same_history = list(changes[:before]) == ([] if saved.last is None else [saved.last])
    if not same_history or len(since) > changes_max or any(change.kind != "added" for change in since):
        raise Conflict("the saved codes are of another state", code="codes_stale")
    return since


class SavedCodes:
    """One collection's file. Not locked: the caller lets one thing happen at a time, erasures included."""

    def __init__(self, path: Path, keys: CollectionKeys, key_store: KeyStore) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.new")
        self._keys = keys
        self._key_store = key_store
        self._version: int | None = None

    @property
    def version(self) -> int | None:
        """The data version of a file that was written or confirmed, and opens still."""
        return self._version if self._keys.has_codes_key else None

    # --- writing ---------------------------------------------------------------------------------------------------

    def write(self, saved: Standing, chunks: Generator[memoryview]) -> None:
        """Durable on return. What was saved before does not open from the first moment on: its key is replaced.

        Raises ``Unavailable`` (``codes_not_saved``) when the medium refuses; nothing is saved then.
        """
        self._version = None
        self._keys.renew_codes_key(self._key_store)
        try:
            with closing(chunks):
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._write_new(saved.to_bytes(), chunks)
            self._temporary.replace(self._path)
            _sync_folder(self._path.parent)
        except OSError:
            self.remove()
            raise Unavailable("the codes could not be saved", code="codes_not_saved") from None
        except SecureEmbedError:
            self.remove()
            raise
        self._version = saved.data_version

    def _write_new(self, first: bytes, chunks: Iterable[memoryview]) -> None:
        descriptor = os.open(
            self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)  # also one that a crash left behind
            file.write(header)
            for number, last, chunk in _numbered(first, chunks):
                sealed = self._keys.seal_codes(number, last, chunk)
                file.write(sealed)
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Overwrite the file and take it away, and what a crash left of a new one. Idempotent.

        A medium that refuses is passed over: the key of what lies there is gone or replaced.
        """
        self._version = None
        for path in (self._path, self._temporary):
            with suppress(OSError):
                _overwrite(path)
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):
            _sync_folder(self._path.parent)

    # --- reading ---------------------------------------------------------------------------------------------------

    def read(self, store: RecordStore, *, codebook: int) -> Found | None:
        """None: there is no file that could open. ``codebook``: the version of the collection's.

        Raises ``Conflict`` (``codes_stale``), and ``IntegrityFailure`` (``codes_unreadable``,
        ``sealed_value_unreadable``), the latter also from the chunks.
        """
        if not self._keys.has_codes_key:
            self.remove()  # an erasure ended its key, and a crash came before it was taken away
            return None
        try:
            file = FileIO(self._path)
        except FileNotFoundError:
            return None
        except OSError:
            raise _refused("it cannot be read") from None
        chunks = self._opened(file)
        try:
            saved = Standing.from_bytes(bytes(next(chunks)))
            if saved.codebook != codebook:
                raise Conflict("the saved codes are of another codebook", code="codes_stale")
            since = additions_since(store, self._keys.uuid, saved)
        except BaseException:
            chunks.close()
            raise
        return Found(version=saved.data_version, chunks=chunks, since=since)

    def confirm(self, found: Found) -> None:
        """All of it was read and put in: the file on disk is good."""
        self._version = found.version

    def _opened(self, file: FileIO) -> Generator[memoryview]:
        """Two buffers for all chunks: a chunk is good until the next is asked for, and overwritten by it or at the end."""
        sealed, plain = memoryview(bytearray(full_bytes)), memoryview(bytearray(full_bytes))
        try:
            with file:
                pieces = _pieces(file)
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
                for piece in pieces:
                    read = os.preadv(file.fileno(), [sealed[: piece.size]], piece.at)
                    yield plain[: self._keys.open_codes_into(piece.number, piece.last, sealed[:read], plain)]
        except OSError:
            raise _refused("it cannot be read") from None
        finally:
            wipe(plain)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Where a sealed chunk lies."""

    number: int
    at: int
    size: int
    last: bool


def _pieces(file: FileIO) -> list[_Piece]:
    """All chunks but the first and the last have one length, so the file's size says where each lies."""
    try:
        size = os.fstat(file.fileno()).st_size
        found = file.read(len(header))
    except OSError:
        raise _refused("it cannot be read") from None
    start = len(header) + first_bytes
    if found != header or size < start:
        raise _refused("its header")
    pieces = [_Piece(0, len(header), first_bytes, last=size == start)]
    for number, at in enumerate(range(start, size, full_bytes), start=1):
        pieces.append(_Piece(number, at, min(full_bytes, size - at), last=at + full_bytes >= size))
    return pieces


def _numbered(first: bytes, chunks: Iterable[memoryview]) -> Iterator[tuple[int, bool, memoryview]]:
    """Each with its number and whether it is the last; like the chunks, good until the next is asked for."""
    held = memoryview(bytearray(chunk_bytes))
    held[: len(first)] = first
    number, size = 0, len(first)
    try:
        for chunk in chunks:
            yield number, False, held[:size]
            held[: len(chunk)] = chunk
            number, size = number + 1, len(chunk)
        yield number, True, held[:size]
    finally:
        wipe(held)


def _overwrite(path: Path) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "wb", buffering=0) as file:
        left = os.fstat(file.fileno()).st_size
        while left > 0:
            left -= file.write(zeros[: min(left, len(zeros))])
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
