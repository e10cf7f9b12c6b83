"""The journal's frames, and what a journal means after a crash. Pure: bytes in, frames out. Format: docs/log-format.md.

One frame is one commit. It is acknowledged only after its fdatasync, and the next is written only after that, so at most
the last frame can be torn. Damage that lies before a whole frame is therefore not a crash, and is refused.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from secure_embed.audit.merkle import hash_bytes
from secure_embed.audit.tiles import pack_entries, unpack_entries
from secure_embed.errors import IntegrityFailure

__all__ = ["Frame", "Recovered", "recover"]

magic = b"\xffSEJ"  # 0xff is in no UTF-8 text, so no entry and no checkpoint holds it
frame_bytes_max = 128 * 1024 * 1024
_HEADER = struct.Struct(">4sIQII")  # magic, body length, first index, count, length of the packed entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    first: int
    entries: Sequence[bytes]
    leaf_hashes: Sequence[bytes]  # of the entries, in their order
    checkpoint: str  # the signed note at size first + count

    @property
    def end(self) -> int:
        return self.first + len(self.entries)

    def to_bytes(self) -> bytes:
        packed = pack_entries(self.entries)
        body = packed + b"".join(self.leaf_hashes) + self.checkpoint.encode()
        whole = _HEADER.pack(magic, len(body), self.first, len(self.entries), len(packed)) + body
        return whole + hashlib.sha256(whole).digest()

    @classmethod
    def parse(cls, data: bytes, at: int) -> "tuple[Frame, int]":
        """The frame at ``at`` and the offset behind it. Raises ``IntegrityFailure`` (``log_damaged``)."""
        if at + _HEADER.size > len(data):
            raise _damaged()
        mark, length, first, count, packed_length = _HEADER.unpack_from(data, at)
        start, end = at + _HEADER.size, at + _HEADER.size + length
        if mark != magic or length > frame_bytes_max or end + hash_bytes > len(data) or count == 0:
            raise _damaged()
        if hashlib.sha256(memoryview(data)[at:end]).digest() != data[end : end + hash_bytes]:
            raise _damaged()
        hashes_end = start + packed_length + count * hash_bytes
        if hashes_end > end:
            raise _damaged()
        entries = unpack_entries(data[start : start + packed_length], count)
        hashes = [data[i : i + hash_bytes] for i in range(start + packed_length, hashes_end, hash_bytes)]
        try:
            checkpoint = data[hashes_end:end].decode()
        except UnicodeDecodeError:
            raise _damaged() from None
        return cls(first=first, entries=entries, leaf_hashes=hashes, checkpoint=checkpoint), end + hash_bytes


def _damaged() -> IntegrityFailure:
    return IntegrityFailure("the log's journal is damaged before its end", code="log_damaged")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    frames: Sequence[Frame]
    valid_bytes: int  # the rest of the file is a torn write
    torn_bytes: int


def recover(journal: bytes) -> Recovered:
    """The frames of a journal, without a torn one at its end. Raises ``IntegrityFailure`` (``log_damaged``) when a
    whole frame lies behind damage, or when frames do not follow each other."""
    frames: list[Frame] = []
    at = 0
    while at < len(journal):
        try:
            frame, end = Frame.parse(journal, at)
        except IntegrityFailure:
            _refuse_frames_behind(journal, at)
            break
        if frames and frame.first != frames[-1].end:
            raise _damaged()
        frames.append(frame)
        at = end
    return Recovered(frames=frames, valid_bytes=at, torn_bytes=len(journal) - at)


def _refuse_frames_behind(journal: bytes, at: int) -> None:
    candidate = journal.find(magic, at + 1)
    while candidate >= 0:
        try:
            Frame.parse(journal, candidate)
        except IntegrityFailure:
            candidate = journal.find(magic, candidate + 1)
            continue
        raise _damaged()
