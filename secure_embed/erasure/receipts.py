"""Erasure receipts: what was destroyed, when, and what can still bring it back until when. Pure; nothing is signed here.

Form: docs/erasure.md. A receipt names keys, never a person, an id or a text. It is bounded: long lists of key ids are cut
off, and a digest over all of them stands beside the list.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson

__all__ = ["Destroyed", "Ranges", "receipt_text", "to_ranges"]

TYPE = "secure_embed/erasure-receipt/v2"
key_ids_max = 300  # ranges; with the collections below it stays under the 64 KiB of a signed note
collections_max = 100

_COPIES = [
    (
        "Copies of the keys database made before the versions were destroyed open what was erased, together with the"
        " root key, until those copies end; keys_backups_until says when, as far as the service knows."
    ),
    (
        "Copies of the data, free pages, write-ahead logs and worn blocks of disks may hold sealed values; they open"
        " only with such a copy of the keys."
    ),
    "The audit log keeps keyed hashes of identifiers and no content. Whoever was shown a record before may have kept it.",
]

Ranges = tuple[tuple[int, int], ...]  # first and last position, ascending


def to_ranges(positions: Sequence[int]) -> Ranges:
    ranges: list[tuple[int, int]] = []
    for position in sorted(set(map(int, positions))):
        if ranges and position == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], position)
        else:
            ranges.append((position, position))
    return tuple(ranges)


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroyed:
    """In one collection."""

    collection: str
    uuid: str
    records: int
    keys: Ranges  # positions whose keys are gone
    version: int  # of the collection key when the record keys were deleted
    whole: bool  # the collection itself


def receipt_text(
    *,
    erasure: UUID,
    deployment: UUID,
    kind: str,
    reason: str,
    destroyed: Sequence[Destroyed],
    shredded_unix: int,
    versions_destroyed_unix: int,
    backups_kept_days: int | None,
    log_index: int,
    log_leaf_hash: str,
) -> str:
    """One line of canonical JSON and a line end."""
    ids = [key_id for part in destroyed for key_id in _key_ids(part)]
    receipt = {
        "type": TYPE,
        "erasure": str(erasure),
        "deployment": str(deployment),
        "kind": kind,
        "reason": reason,
        "records": sum(part.records for part in destroyed),
        "collections": len(destroyed),
        "destroyed": [
            {
                "collection": part.collection,
                "collection_uuid": part.uuid,
                "records": part.records,
                "whole_collection": part.whole,
                "key_version_destroyed": part.version,
            }
            for part in destroyed[:collections_max]
        ],
        "record_keys": ids[:key_ids_max],
        "record_keys_listed": len(ids) <= key_ids_max,
        "record_keys_sha256": hashlib.sha256("".join(f"{key_id}\n" for key_id in ids).encode()).hexdigest(),
        "keys_deleted": _time(shredded_unix),
        "versions_destroyed": _time(versions_destroyed_unix),
        "keys_backups_until": _until(versions_destroyed_unix, backups_kept_days),
        "copies": _COPIES,
        "log_index": log_index,
        "log_leaf_hash": log_leaf_hash,
    }
    return orjson.dumps(receipt, option=orjson.OPT_SORT_KEYS).decode() + "\n"


def _key_ids(part: Destroyed) -> Iterator[str]:
    """``collection uuid/version/position``, ranges as ``first-last``."""
    for first, last in part.keys:
        at = str(first) if first == last else f"{first}-{last}"
        yield f"{part.uuid}/{part.version}/{at}"


def _time(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat().replace("+00:00", "Z")


def _until(unix: int, days: int | None) -> str:
    if days is None:
        return "unknown: as long as copies of the keys database are kept"
    return (datetime.fromtimestamp(unix, UTC) + timedelta(days=days)).date().isoformat()
