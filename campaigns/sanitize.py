"""The compiled room under AddressSanitizer and UndefinedBehaviorSanitizer: its tests, and calls with random arguments.

    python -m campaigns.sanitize [--calls 20000] [--seed N]

Builds ``secure_embed/bulk`` once more, instrumented, into a copy of the package, and runs there what opens vectors. Ends
with status 1 when a sanitizer reports anything, or a call does something else than answer or refuse. Needs gcc.
"""

import argparse
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["compile_instrumented", "fuzz"]

root = Path(__file__).parents[1]
flags = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
tests = ("tests/unit/bulk", "tests/unit/index", "tests/unit/keys/test_keys_collection.py")
header = b"\x01\x02\x03"
key_bytes, nonce_bytes, tag_bytes = 32, 12, 16


def compile_instrumented(folder: Path) -> None:
    """A copy of the package in ``folder``, with an instrumented library."""
    from cffi import FFI

    shutil.copytree(
        root / "secure_embed", folder / "secure_embed", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    room = folder / "secure_embed" / "bulk"
    ffi = FFI()
    ffi.cdef((room / "bulk.h").read_text(encoding="utf-8"))
    ffi.set_source(
        "_bulk",
        '#include "bulk.h"',
        sources=[str(part) for part in sorted(room.glob("*.c"))],
        include_dirs=[str(room)],
        libraries=["crypto"],
        extra_compile_args=flags,
        extra_link_args=flags,
    )
    library = Path(ffi.compile(tmpdir=str(folder / "made")))
    shutil.move(library, room / library.name)


def environment(folder: Path) -> dict[str, str]:
    """The interpreter is not instrumented, so the sanitizer comes before it; what Python leaves is no leak."""
    asan = subprocess.run(["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True)
    return os.environ | {
        "PYTHONPATH": str(folder),
        "LD_PRELOAD": asan.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "SECURE_EMBED_REQUIRE_COMPILED": "1",
    }


def fuzz(calls: int, seed: int) -> dict[str, int]:
    """Random arguments, most of them nearly right. How many calls answered, and how many were refused."""
    from secure_embed import bulk

    rng = np.random.default_rng(seed)
    told = {"answered": 0, "refused": 0}
    with tempfile.TemporaryFile() as file:
        file.write(rng.bytes(10_000))
        file.flush()
        one_of: tuple[Callable[[], object], ...] = (
            lambda: _open(bulk, rng),
            lambda: _score(bulk, rng),
            lambda: _read(bulk, rng, file.fileno()),
            lambda: _multiply(bulk, rng),
            lambda: _search(bulk, rng),
        )
        for _ in range(calls):
            try:
                one_of[rng.integers(len(one_of))]()
                told["answered"] += 1
            except ValueError:
                told["refused"] += 1
    return told


def _near(rng: np.random.Generator, right: int) -> int:
    """Mostly that number."""
    return right if rng.random() < 0.9 else max(0, right + int(rng.integers(-2, 3)))


def _array(rng: np.random.Generator, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Mostly that array; else of another type, cut, strided or flat."""
    kind = rng.integers(40)
    if kind == 0:
        with np.errstate(invalid="ignore"):
            return values.astype(rng.choice([np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64]))
    if kind == 1:
        return values[::2]
    if kind == 2:
        return values[1:]
    return values.ravel() if kind == 3 else values


def _open(bulk: Any, rng: np.random.Generator) -> None:
    count, table, size = int(rng.integers(0, 12)), int(rng.integers(1, 16)), int(rng.integers(1, 300))
    place, number_at = rng.bytes(int(rng.integers(0, 270))), int(rng.integers(-2, 260))
    sealed = rng.integers(
        0, 256, (_near(rng, table), _near(rng, len(header) + nonce_bytes + size + tag_bytes)), np.uint8
    )
    keys = bytearray(rng.bytes(key_bytes * _near(rng, count)))
    rows = rng.integers(0 if rng.random() < 0.8 else -3, table + (rng.random() < 0.2), count)
    numbers = rng.integers(-(2**63), 2**63 - 1, _near(rng, count))
    fits = sealed.shape[1] == len(header) + nonce_bytes + size + tag_bytes and 0 <= number_at <= len(place) - 8
    if fits and count and len(keys) >= key_bytes and len(numbers) and 0 <= rows[0] < len(sealed):  # one that opens
        own = place[:number_at] + int(numbers[0]).to_bytes(8, "big", signed=True) + place[number_at + 8 :]
        nonce = rng.bytes(nonce_bytes)
        value = header + nonce + AESGCM(bytes(keys[:key_bytes])).encrypt(nonce, rng.bytes(size), own)
        sealed[rows[0]] = np.frombuffer(value, np.uint8)
    out = np.zeros((_near(rng, table), _near(rng, size)), np.uint8)
    bulk.open_values(
        _array(rng, rows),
        keys,
        _array(rng, numbers),
        place,
        _array(rng, sealed),
        _array(rng, out),
        number_at=number_at,
        header=header[: _near(rng, len(header))],
    )


def _score(bulk: Any, rng: np.random.Generator) -> None:
    count, dimension, queries = int(rng.integers(0, 12)), int(rng.integers(1, 200)), int(rng.integers(1, 5))
    halves = rng.integers(0, 2**16, (_near(rng, count), _near(rng, dimension)), np.uint16).view(np.float16)
    query_of = rng.integers(0 if rng.random() < 0.9 else -2, queries + (rng.random() < 0.1), count).astype(np.int32)
    bulk.score_halves(
        _array(rng, halves),
        _array(rng, rng.standard_normal((queries, dimension)).astype(np.float32)),
        _array(rng, query_of),
        _array(rng, np.zeros(_near(rng, count), np.float32)),
        _array(rng, np.zeros(_near(rng, count), np.float32)),
    )


def _read(bulk: Any, rng: np.random.Generator, descriptor: int) -> None:
    count, size = int(rng.integers(0, 12)), int(rng.integers(0, 300))
    files = rng.choice([descriptor, descriptor, descriptor, -1, 9_999], _near(rng, count)).astype(np.int32)
    offsets = rng.choice([0, size, 2 * size, 3 * size, 9_990, 20_000, -1, 2**62, -(2**63)], count).astype(np.int64)
    bulk.read_slots(
        _array(rng, files), _array(rng, offsets), _array(rng, np.zeros((_near(rng, count), size), np.uint8))
    )


def _multiply(bulk: Any, rng: np.random.Generator) -> None:
    rows, dimension, queries = int(rng.integers(0, 12)), int(rng.integers(0, 400)), int(rng.integers(0, 4))
    bulk.coarse_products(
        _array(rng, rng.integers(-128, 128, (_near(rng, rows), _near(rng, dimension)), np.int8)),
        _array(rng, _floats(rng, rows)),
        _array(rng, _floats(rng, _near(rng, queries), dimension)),
        _array(rng, np.zeros((queries, rows), np.float32)),
    )


def _floats(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, Any]:
    """Now and then infinite, or not a number."""
    values = rng.standard_normal(shape).astype(np.float32)
    if values.size and rng.random() < 0.2:
        values.flat[rng.integers(values.size)] = rng.choice([np.nan, np.inf, -np.inf, 3e38, 1e-45])
    return values


def _search(bulk: Any, rng: np.random.Generator) -> None:
    dimension, lists = int(rng.integers(1, 300)), int(rng.integers(1, 6))
    sizes = rng.choice([0, 1, 5, 300], lists).astype(np.int64)
    made = bulk.CompiledSearch(
        _coarse(rng, dimension, dimension),
        None if rng.random() < 0.5 else _coarse(rng, _near(rng, lists), dimension),
        _tables(bulk, rng, sizes, dimension, 700),
        None if rng.random() < 0.5 else _tables(bulk, rng, np.array([lists]), dimension, lists),
        portable=bool(rng.random() < 0.5),
    )
    asked = [
        bulk.Asked(
            query=_array(rng, _floats(rng, _near(rng, dimension))),
            spread=_array(rng, rng.integers(0, 300, _near(rng, lists))),
            bitmap=None if rng.random() < 0.3 else _array(rng, rng.integers(0, 256, int(rng.integers(90)), np.uint8)),
            wanted=int(rng.integers(0, 400)),
            enough=float(rng.choice([-1.0, 0.0, 5.0, 90.0, np.inf, np.nan])),
            ends=float(rng.choice([0.0, np.inf])),
            gone=bytearray(rng.integers(0, 2, 1, np.uint8).tobytes()),
        )
        for _ in range(int(rng.integers(0, 4)))
    ]
    made.search(asked)


def _coarse(rng: np.random.Generator, rows: int, dimension: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return _array(rng, rng.integers(-128, 128, (rows, dimension), np.int8)), _array(rng, _floats(rng, rows))


def _tables(bulk: Any, rng: np.random.Generator, sizes: np.ndarray[Any, Any], dimension: int, ids: int) -> Any:
    """Codes and ids are what they say: who calls answers for addresses."""
    codes = [rng.integers(0, 256, (size, (dimension + 7) // 8 + 8), np.uint8) for size in sizes]
    own = [rng.integers(0 if rng.random() < 0.9 else -(2**62), ids, size) for size in sizes]
    _held[:] = [*_held[-40:], codes, own]
    return bulk.CodeTables(
        centroids=_array(rng, _floats(rng, len(sizes), dimension)),
        squares=_array(rng, _floats(rng, len(sizes))),
        codes_at=np.array([part.ctypes.data for part in codes], np.uint64),
        ids_at=np.array([part.ctypes.data for part in own], np.uint64),
        sizes=sizes if rng.random() < 0.9 else rng.choice([-1, 2**40], len(sizes)),
    )


_held: list[Any] = []  # what addresses were taken of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--instrumented", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    seed = secrets.randbits(32) if asked.seed is None else asked.seed
    if asked.instrumented:
        print(f"calls with random arguments, seed {seed}: {fuzz(asked.calls, seed)}")
        return 0
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        compile_instrumented(folder)
        env = environment(folder)
        python = [sys.executable, "-P", "-m"]
        random = [*python, "campaigns.sanitize", "--instrumented", "--calls", str(asked.calls), "--seed", str(seed)]
        ended = [
            subprocess.run(random, check=False, env=env, cwd=root).returncode,
            subprocess.run(
                [*python, "pytest", "-q", "-p", "no:cacheprovider", *tests], check=False, env=env, cwd=root
            ).returncode,
        ]
    return int(any(ended))


if __name__ == "__main__":
    sys.exit(main())
