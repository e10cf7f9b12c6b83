"""Codes outlive the process in their file, and nothing that is wrong with the file changes an answer."""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from secure_embed.collection import codes, saved_codes
from secure_embed.collection.saved_codes import CodesOrigin
from secure_embed.errors import Unavailable
from secure_embed.index import Codebook, RabitqShard
from secure_embed.keys import IndexValue
from tests.one_holding import OneHolding


@pytest.fixture
def one(tmp_path: Path) -> Iterator[OneHolding]:
    made = OneHolding(tmp_path)
    yield made
    made.close()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Positions whose sealed vectors were opened from here on."""
    seen: list[int] = []
    load = RabitqShard.load

    def watched(self: RabitqShard, positions: np.ndarray, *more: object) -> None:
        seen.extend(positions.tolist())
        load(self, positions, *more)

    monkeypatch.setattr(RabitqShard, "load", watched)
    return seen


def origin(one: OneHolding) -> CodesOrigin | None:
    one.holding.shard()
    return one.holding.codes_origin


def test_a_clean_shutdown_saves_and_the_next_start_opens_no_vector(one: OneHolding, opened: list[int]) -> None:
    one.add(300, attributes=[{"dep": "abc"[i % 3], "level": i, "vip": i % 2 == 0} for i in range(300)])
    before = one.found()
    assert one.holding.codes_saved_version is None
    one.reopened()
    assert one.found() == before == list(range(300))
    assert (origin(one), opened, one.holding.codes_saved_version) == (CodesOrigin.SAVED, [], 1)


def test_the_file_is_ours_alone_and_holds_no_code_in_the_clear(one: OneHolding) -> None:
    one.add(50)
    plain = b"".join(bytes(chunk) for chunk in one.holding.shard().chunks())
    os.umask(0o022)
    assert one.holding.save_codes()
    raw = one.file.read_bytes()
    assert stat.S_IMODE(one.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(one.file.parent.stat().st_mode) == 0o700
    assert raw.startswith(b"SE-SAVED\x01")
    assert not any(plain[at : at + 8] in raw for at in range(0, len(plain) - 8, 8) if any(plain[at : at + 8]))


def test_saving_again_writes_only_when_something_changed(one: OneHolding) -> None:
    assert not one.holding.save_codes()  # not in use yet
    one.add(5)
    assert one.holding.save_codes()
    written = one.file.read_bytes()
    assert not one.holding.save_codes()
    assert one.file.read_bytes() == written
    one.add(1)
    assert one.holding.save_codes()
    assert one.file.read_bytes() != written


def test_additions_after_the_saving_are_caught_up_with(one: OneHolding, opened: list[int]) -> None:
    one.add(40)
    one.holding.save_codes()
    one.add(3, attributes=[{"level": 1}] * 3)
    one.add(4)
    one.reopened(killed=True)
    assert one.found() == list(range(47))
    assert (origin(one), opened) == (CodesOrigin.SAVED, list(range(40, 47)))
    assert one.holding.shard().version == one.holding.data_version == 3
    one.add(2)  # and it goes on from there
    one.erase([41])
    assert one.found() == [p for p in range(49) if p != 41]


def test_too_many_changes_to_catch_up_with_mean_a_rebuild(one: OneHolding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_codes, "changes_max", 2)
    one.add(10)
    one.holding.save_codes()
    for _ in range(3):
        one.add(1)
    one.reopened(killed=True)
    assert (one.found(), origin(one)) == (list(range(13)), CodesOrigin.STALE)


def test_an_erasure_takes_the_file_away_at_once(one: OneHolding) -> None:
    one.add(20)
    one.holding.save_codes()
    kept = one.file.read_bytes()
    with one.file.open("rb") as still_open:
        one.erase([3])
        assert not one.file.exists()
        assert not any(still_open.read())
    assert one.holding.codes_saved_version is None
    one.file.write_bytes(kept)  # the attacker had a copy
    one.reopened(killed=True)
    assert one.found() == [p for p in range(20) if p != 3]
    assert origin(one) is CodesOrigin.ABSENT
    assert not one.file.exists()


def test_a_copy_from_before_an_erasure_does_not_open_after_the_next_saving(one: OneHolding) -> None:
    one.add(20)
    one.holding.save_codes()
    kept = one.file.read_bytes()
    one.erase([3])
    one.holding.save_codes()
    one.kill()
    one.file.write_bytes(kept)
    one.open()
    assert one.found() == [p for p in range(20) if p != 3]
    assert origin(one) is CodesOrigin.UNREADABLE


def test_after_a_rotation_the_codes_are_saved_anew(one: OneHolding) -> None:
    one.add(10)
    one.holding.save_codes()
    one.keys.rotate(one.key_store)
    assert one.holding.codes_saved_version is None
    assert one.holding.save_codes()
    assert origin(one.reopened(killed=True)) is CodesOrigin.SAVED


def test_a_new_codebook_makes_the_saved_codes_stale(one: OneHolding) -> None:
    one.add(30)
    one.holding.save_codes()
    trained = Codebook.draw(one.dimension)
    newer = Codebook(
        rotation=trained.rotation, centroids=trained.centroids, bits=1, version=2, trained_on=30
    ).to_bytes()
    one.kill()
    one.open()
    one.store.put_codebook(one.collection.uuid, 2, one.keys.seal_index(IndexValue.CODEBOOK, newer))
    assert (one.found(), origin(one)) == (list(range(30)), CodesOrigin.STALE)


def test_data_that_was_put_back_does_not_meet_codes_of_another_history(one: OneHolding) -> None:
    """Data from a backup, keys as they are: the data version passes the saved one's again, with other records."""
    one.add(10)
    one.reopened()
    one.close()
    shutil.copy(one.folder / "data.db", one.folder / "backup.db")
    one.open()
    one.add(5)
    one.holding.save_codes()
    one.kill()
    shutil.copy(one.folder / "backup.db", one.folder / "data.db")
    one.open()
    assert (one.found(), origin(one)) == (list(range(10)), CodesOrigin.STALE)
    one.kill()
    one.open()
    one.holding._codes._saved = None  # goes on without touching the file
    one.add(5)
    one.kill()
    one.open()
    assert one.holding.data_version == 2
    assert (one.found(), origin(one)) == ([*range(10), *range(15, 20)], CodesOrigin.STALE)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("empty", lambda raw: b""),
        ("of another format", lambda raw: raw[:8] + b"\x02" + raw[9:]),
        ("with something behind", lambda raw: raw + b"\x00"),
        ("with a chunk twice", lambda raw: raw + raw[9 + 33 + 29 :]),
        ("noise", lambda raw: os.urandom(len(raw))),
    ],
)
def test_a_damaged_file_is_reported_and_the_codes_are_built(
    one: OneHolding, name: str, spoil: Callable[[bytes], bytes]
) -> None:
    one.add(20)
    one.close()
    one.file.write_bytes(spoil(one.file.read_bytes()))
    one.open()
    assert (one.found(), origin(one)) == (list(range(20)), CodesOrigin.UNREADABLE)
    assert one.holding.save_codes()
    assert origin(one.reopened()) is CodesOrigin.SAVED


def test_a_folder_in_the_files_place_is_reported_too(one: OneHolding) -> None:
    one.add(5)
    one.close()
    one.file.unlink()
    one.file.mkdir()
    one.open()
    assert (one.found(), origin(one)) == (list(range(5)), CodesOrigin.UNREADABLE)


def test_a_full_medium_leaves_no_half_written_file_and_stops_nothing(
    one: OneHolding, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.add(20)
    one.holding.save_codes()
    one.add(1)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(Unavailable) as refused:
            one.holding.save_codes()
        assert refused.value.code == "codes_not_saved"
        assert list(one.file.parent.iterdir()) == []
        assert one.holding.codes_saved_version is None
        assert one.found() == list(range(21))
    assert one.holding.save_codes()
    assert origin(one.reopened(killed=True)) is CodesOrigin.SAVED


def test_codes_that_had_to_be_built_are_saved_then_and_there(one: OneHolding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes, "save_records_min", 10)
    one.add(10)
    one.reopened(killed=True)
    assert origin(one) is CodesOrigin.ABSENT
    assert one.holding.codes_saved_version == 1
    assert origin(one.reopened(killed=True)) is CodesOrigin.SAVED


def test_without_a_folder_codes_are_built_at_each_start(tmp_path: Path) -> None:
    one = OneHolding(tmp_path)
    one.add(5)
    one.holding._codes._saved = None
    assert not one.holding.save_codes()
    one.reopened()
    assert origin(one) is CodesOrigin.ABSENT
    assert one.found() == list(range(5))
    one.close()


def test_an_empty_collection_is_saved_like_any_other(one: OneHolding) -> None:
    assert one.found() == []
    one.reopened()
    assert (one.found(), origin(one)) == ([], CodesOrigin.SAVED)
