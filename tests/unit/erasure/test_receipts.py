"""The text of an erasure receipt: bounded whatever was erased, canonical, and its digest over every key id."""

import hashlib
from itertools import pairwise
from uuid import UUID, uuid4

import orjson
from hypothesis import given
from hypothesis import strategies as st

from secure_embed.audit import NoteSigner, sign_note, verify_note
from secure_embed.erasure.receipts import Destroyed, receipt_text, to_ranges

some = UUID(int=7)


def text(destroyed: list[Destroyed], days: int | None = None) -> str:
    return receipt_text(
        erasure=uuid4(),
        deployment=some,
        kind="subject",
        reason="gdpr-art-17",
        destroyed=destroyed,
        shredded_unix=1_700_000_000,
        versions_destroyed_unix=1_700_003_600,
        backups_kept_days=days,
        log_index=2**53 - 1,
        log_leaf_hash="ab" * 32,
    )


def part(keys: list[int], *, uuid: UUID = some, version: int = 3) -> Destroyed:
    return Destroyed(
        collection="c" * 63, uuid=str(uuid), records=len(keys), keys=to_ranges(keys), version=version, whole=False
    )


@given(st.lists(st.integers(0, 60)))
def test_ranges_hold_what_they_were_made_of(positions: list[int]) -> None:
    ranges = to_ranges(positions)
    assert [p for first, last in ranges for p in range(first, last + 1)] == sorted(set(positions))
    assert all(later[0] > earlier[1] + 1 for earlier, later in pairwise(ranges))


def test_it_names_keys_by_collection_version_and_position() -> None:
    other = uuid4()
    said = orjson.loads(text([part([1, 2, 3, 9]), part([0], uuid=other, version=1)]))
    ids = [f"{some}/3/1-3", f"{some}/3/9", f"{other}/1/0"]
    assert (said["record_keys"], said["record_keys_listed"]) == (ids, True)
    assert said["record_keys_sha256"] == hashlib.sha256("".join(f"{i}\n" for i in ids).encode()).hexdigest()
    assert (said["records"], said["collections"]) == (5, 2)


def test_the_largest_receipt_can_be_signed_and_verified() -> None:
    """As many collections as one deployment holds, nothing in a row: the list is cut off, digest and counts are not."""
    position = 2**40 - 1
    destroyed = [part([position - 2 * n for n in range(50)], uuid=uuid4(), version=2**31) for _ in range(1_000)]
    written = text(destroyed, 3_650)
    signer = NoteSigner("secure-embed.local/test", bytes(32))
    note = sign_note(signer, kind="erasure-receipt", text=written)
    said = orjson.loads(verify_note(signer.verifier, note, kind="erasure-receipt"))
    assert (said["records"], said["collections"], said["record_keys_listed"]) == (50_000, 1_000, False)
    ids = [f"{d.uuid}/{d.version}/{first}" for d in destroyed for first, _ in d.keys]
    assert said["record_keys"] == ids[: len(said["record_keys"])]
    assert said["record_keys_sha256"] == hashlib.sha256("".join(f"{i}\n" for i in ids).encode()).hexdigest()


def test_copies_of_the_keys_count_from_the_end_of_the_version() -> None:
    assert orjson.loads(text([], 30))["keys_backups_until"] == "2023-12-14"
    assert orjson.loads(text([], 0))["keys_backups_until"] == "2023-11-14"
    assert orjson.loads(text([]))["keys_backups_until"].startswith("unknown")


def test_it_is_one_line_of_sorted_json() -> None:
    written = text([part([1])])
    assert written.endswith("\n")
    assert orjson.dumps(orjson.loads(written), option=orjson.OPT_SORT_KEYS) + b"\n" == written.encode()
