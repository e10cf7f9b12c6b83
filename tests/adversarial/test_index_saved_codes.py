"""Someone who can write to the disk, or pull the plug, meets the codes' file: they get the right answer or none."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from secure_embed.collection import saved_codes
from secure_embed.collection.saved_codes import CodesOrigin
from secure_embed.errors import IntegrityFailure
from tests.one_holding import OneHolding

HEADER_BYTES = 9
FIRST_BYTES = 29 + 33  # what the file stands for, sealed
CHUNK_BYTES = (1 << 20) + 33

worker = """
import sys
from pathlib import Path
from tests.one_holding import OneHolding

one = OneHolding(Path(sys.argv[1]))
one.holding.shard()
print("from", one.holding.codes_origin, flush=True)
while True:
    print("added", *one.add(40), flush=True)
    one.holding.save_codes()
    print("saved", flush=True)
    first = one.found()[0]
    print("erasing", first, flush=True)
    one.erase([first])
    print("erased", first, flush=True)
    one.holding.save_codes()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    one = OneHolding(tmp_path)
    one.add(60, attributes=[{"dep": "a", "level": 5}] * 60)
    one.close()
    return tmp_path


def opened(folder: Path) -> tuple[list[int], CodesOrigin | None]:
    one = OneHolding(folder)
    try:
        return one.found(), one.holding.codes_origin
    finally:
        one.kill()


@pytest.fixture
def file(folder: Path) -> Path:
    (found,) = (folder / "codes").iterdir()
    return found


def test_a_file_cut_off_anywhere_is_never_half_believed(folder: Path, file: Path) -> None:
    raw = file.read_bytes()
    ends = [0, HEADER_BYTES, HEADER_BYTES + FIRST_BYTES, HEADER_BYTES + FIRST_BYTES + 33, len(raw)]
    assert ends[-2] < ends[-1] < HEADER_BYTES + FIRST_BYTES + CHUNK_BYTES  # one chunk
    cuts = {cut for end in ends for cut in (end - 1, end, end + 1) if 0 <= cut < len(raw)}
    for cut in sorted(cuts):
        file.write_bytes(raw[:cut])
        assert opened(folder) == (list(range(60)), CodesOrigin.UNREADABLE), cut
    file.write_bytes(raw)
    assert opened(folder) == (list(range(60)), CodesOrigin.SAVED)


def test_a_file_cut_off_between_its_chunks_or_out_of_order_is_never_half_believed(folder: Path) -> None:
    """Cut where every chunk that is left is whole, with two of them in each other's place, or with some of an older saving."""
    one = OneHolding(folder)
    saved = saved_codes.SavedCodes(folder / "long", one.keys, one.key_store)
    plain = [os.urandom(1 << 20) for _ in range(7)] + [b"the last"]
    saved.write(saved_codes.Standing(last=None, codebook=1), (memoryview(chunk) for chunk in plain))

    def read() -> list[bytes]:
        found = saved.read(one.store, codebook=1)
        assert found is not None
        return [bytes(chunk) for chunk in found.chunks]

    older = (folder / "long").read_bytes()
    plain[0] = os.urandom(1 << 20)
    saved.write(saved_codes.Standing(last=None, codebook=1), (memoryview(chunk) for chunk in plain))
    assert read() == plain
    raw = (folder / "long").read_bytes()
    start = HEADER_BYTES + FIRST_BYTES
    chunks = [raw[at : at + CHUNK_BYTES] for at in range(start, len(raw), CHUNK_BYTES)]
    assert len(chunks) == len(plain)
    for mixed in (raw[:start] + older[start:], raw[: start + CHUNK_BYTES] + older[start + CHUNK_BYTES :], older):
        (folder / "long").write_bytes(mixed)
        with pytest.raises(IntegrityFailure):
            read()
    for wrong in (*(chunks[:n] for n in range(len(chunks))), [*chunks[:2], chunks[3], chunks[2], *chunks[4:]]):
        (folder / "long").write_bytes(raw[:start] + b"".join(wrong))
        with pytest.raises(IntegrityFailure):
            read()
    one.kill()


def test_any_changed_byte_is_noticed(folder: Path, file: Path) -> None:
    raw = file.read_bytes()
    for at in (*range(HEADER_BYTES), *range(HEADER_BYTES, len(raw), 97), len(raw) - 1):
        spoilt = bytearray(raw)
        spoilt[at] ^= 1
        file.write_bytes(spoilt)
        assert opened(folder) == (list(range(60)), CodesOrigin.UNREADABLE), at


def test_a_crash_between_new_file_and_new_name_leaves_codes_that_are_built(folder: Path, file: Path) -> None:
    """The new saving has a new key from its first moment, so the old file does not open; the half of the new one
    lies under another name and is taken away by the next saving."""
    raw = file.read_bytes()
    one = OneHolding(folder)
    one.keys.renew_codes_key(one.key_store)
    half = file.with_name(f".{file.name}.new")
    half.write_bytes(raw[: len(raw) // 2])
    one.kill()
    one.open()
    assert one.found() == list(range(60))
    assert one.holding.codes_origin is CodesOrigin.UNREADABLE
    assert one.holding.save_codes()
    assert not half.exists()
    one.kill()
    assert opened(folder) == (list(range(60)), CodesOrigin.SAVED)


def test_a_crash_inside_an_erasure_leaves_no_file_that_opens(
    folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the keys went and before the file did: it does not open, and goes at the next start."""
    one = OneHolding(folder)
    one.found()

    class Killed(BaseException):
        pass

    def killed(self: saved_codes.SavedCodes) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(saved_codes.SavedCodes, "remove", killed)
        with pytest.raises(Killed):
            one.erase([7])
    assert file.exists()
    one.kill()
    one.open()
    assert one.found() == [p for p in range(60) if p != 7]
    assert one.holding.codes_origin is CodesOrigin.ABSENT
    assert not file.exists()
    one.kill()


def test_a_link_in_the_files_place_is_neither_followed_nor_overwritten(folder: Path, file: Path) -> None:
    precious = folder / "precious"
    precious.write_bytes(b"not codes")
    file.unlink()
    file.symlink_to(precious)
    file.with_name(f".{file.name}.new").symlink_to(precious)
    one = OneHolding(folder)
    assert one.found() == list(range(60))
    assert one.holding.codes_origin is CodesOrigin.UNREADABLE
    one.erase([0])
    one.close()
    assert precious.read_bytes() == b"not codes"


def run_and_kill(folder: Path, after_s: float) -> list[list[str]]:
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    with subprocess.Popen(
        [sys.executable, "-c", worker, folder], stdout=subprocess.PIPE, text=True, cwd=root, env=environment
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(after_s)
        os.kill(process.pid, signal.SIGKILL)
        said = first + process.stdout.read()
    return [line.split() for line in said.splitlines(keepends=True) if line.endswith("\n")]


def test_killed_at_any_moment_the_next_start_answers_as_if_there_were_no_file(folder: Path) -> None:
    origins: set[str] = set()
    added, erasing, erased = set(range(60)), set(), set()
    for after_s in (0.0, 0.004, 0.009, 0.017, 0.03, 0.05, 0.08):
        for word, *more in run_and_kill(folder, after_s):
            match word:
                case "from":
                    origins.add(more[0])
                case "added":
                    added |= set(map(int, more))
                case "erasing":
                    erasing.add(int(more[0]))
                case "erased":
                    erased.add(int(more[0]))
        one = OneHolding(folder)
        with_file = one.found()
        origins.add(str(one.holding.codes_origin))
        one.holding._codes._saved, one.holding._codes._shard = None, None
        assert one.found() == with_file
        assert added - erasing <= set(with_file)
        assert not erased & set(with_file)
        one.kill()
        assert not [path for path in (folder / "codes").iterdir() if path.stat().st_mode & 0o077]
    assert "saved" in origins
