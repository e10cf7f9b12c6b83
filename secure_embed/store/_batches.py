"""What a batch of rows has to be. The vault builds batches; one that breaks their rules is a fault of ours and is not
written."""

from collections.abc import Sequence
from itertools import pairwise

from secure_embed.errors import Conflict, SecureEmbedError
from secure_embed.store._schema import position_limit
from secure_embed.store._segments import Segments, segment_slots
from secure_embed.store.protocol import RequestKey, SealedRow
from secure_embed.types import Field

__all__ = ["ensure", "ensure_of_one_segment", "ensure_tags"]

tag_bytes = 32
slot_bytes_max = 256 * 1024
all_fields = frozenset(Field)


def ensure_tags(*tags: bytes) -> None:
    if any(len(tag) != tag_bytes for tag in tags):
        raise SecureEmbedError("a keyed hash has 32 bytes", code="tag_malformed")


def ensure(rows: Sequence[SealedRow], request: RequestKey | None, slot_bytes: int) -> int:
    """Raises for a batch that cannot be appended. Answers the length of its vectors: ``slot_bytes`` unless that is 0."""
    if request is not None:
        ensure_tags(request.tag, request.body_tag)
    ensure_tags(*(row.id_tag for row in rows))
    if (
        not rows
        or not 0 <= rows[0].position <= position_limit - len(rows)
        or any(after.position != before.position + 1 for before, after in pairwise(rows))
        or any(row.fields.keys() != all_fields for row in rows)
    ):
        raise _malformed()
    return _ensure_one_length(rows, slot_bytes)


def ensure_of_one_segment(rows: Sequence[SealedRow], segments: Segments) -> int:
    """Raises for rows that cannot replace others. Answers the first position of their segment."""
    if (
        not rows
        or any(after.position <= before.position for before, after in pairwise(rows))
        or rows[0].position // segment_slots != rows[-1].position // segment_slots
        or any(row.fields.keys() != all_fields for row in rows)
    ):
        raise _malformed()
    first = rows[0].position - rows[0].position % segment_slots
    ends = [segment.end for segment in segments.known() if segment.first == first]
    if not ends or rows[-1].position >= ends[0]:
        raise Conflict("the rows to be replaced are not those that are there", code="rows_changed")
    _ensure_one_length(rows, segments.slot_bytes)
    return first


def _ensure_one_length(rows: Sequence[SealedRow], slot_bytes: int) -> int:
    lengths = {len(row.fields[Field.VECTOR]) for row in rows}
    expected = slot_bytes or min(lengths)
    if lengths != {expected} or not 1 <= expected <= slot_bytes_max:
        raise _malformed()
    return expected


def _malformed() -> SecureEmbedError:
    return SecureEmbedError("a batch of sealed rows is malformed", code="batch_malformed")
