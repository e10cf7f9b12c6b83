"""What goes into compiled code is checked here: arrays that lie in one piece, of the right type, as long as they say."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["compiled", "open_values", "read_slots"]

key_bytes, nonce_bytes, tag_bytes, number_bytes = 32, 12, 16, 8
additional_max = 256

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]


def _loaded() -> tuple[Any, Any, str] | None:
    try:
        from secure_embed.bulk._bulk import ffi, lib
    except ImportError:  # built without a C compiler, or its libcrypto is not there
        return None
    return (ffi, lib, ffi.string(lib.se_library()).decode()) if lib.se_ready() else None


_native = _loaded()


def compiled() -> str | None:
    """The OpenSSL that opens values here; None where no compiled code is in use."""
    return None if _native is None else _native[2]


def read_slots(files: npt.NDArray[np.int32], offsets: Numbers, out: Bytes) -> int:
    """Read the n rows of ``out``, (n, bytes) uint8, from the open files ``files`` (n,) at ``offsets`` (n,).

    Gives how many, from the first, were read whole; raises nothing for what a file does not hold.
    """
    if _native is None:
        return 0
    ffi, lib, _ = _native
    count = len(files)
    _require(files, np.int32, count)
    _require(offsets, np.int64, count)
    _require(out, np.uint8, out.size)
    if out.ndim != 2 or len(out) != count or (count and int(offsets.min()) < 0):
        raise ValueError("files, offsets and the rows to fill do not belong together")
    return int(
        lib.se_read_slots(
            count,
            ffi.from_buffer("int32_t[]", files),
            ffi.from_buffer("int64_t[]", offsets),
            out.shape[1],
            ffi.from_buffer("uint8_t[]", out, require_writable=True),
        )
    )


def open_values(
    rows: Numbers,
    keys: bytes | bytearray,
    numbers: Numbers,
    additional: bytes,
    sealed: Bytes,
    out: Bytes,
    *,
    number_at: int,
    header_bytes: int,
) -> npt.NDArray[np.bool_]:
    """Open n rows of ``sealed`` (m, header + 12 + d + 16) uint8, AES-256-GCM, into the same rows of ``out`` (m, d) uint8.

    ``rows``: (n,) which ones. ``keys``: n times 32 bytes. ``additional``: the additional data, in which each value has
    its own of ``numbers`` (n,), eight bytes, big end first, at ``number_at``. A header is passed over. The (n,) answer
    says which opened; a row that did not is zeros. Raises ``ValueError`` for arrays that do not belong together.
    """
    count = len(rows)
    if _native is None:
        return np.zeros(count, np.bool_)
    ffi, lib, _ = _native
    _require(rows, np.int64, count)
    _require(numbers, np.int64, count)
    _require(sealed, np.uint8, sealed.size)
    _require(out, np.uint8, out.size)
    together = (
        sealed.ndim == out.ndim == 2
        and len(sealed) == len(out)
        and sealed.shape[1] == header_bytes + nonce_bytes + out.shape[1] + tag_bytes
        and len(keys) == key_bytes * count
        and 0 <= number_at <= len(additional) - number_bytes
        and len(additional) <= additional_max
    )
    if not together or (count and not 0 <= int(rows.min()) <= int(rows.max()) < len(out)):
        raise ValueError("rows, keys, numbers, sealed values and their plaintexts do not belong together")
    opened = np.zeros(count, np.bool_)
    lib.se_open_values(
        count,
        ffi.from_buffer("int64_t[]", rows),
        ffi.from_buffer("uint8_t[]", keys),
        ffi.from_buffer("int64_t[]", numbers),
        ffi.from_buffer("uint8_t[]", additional),
        len(additional),
        number_at,
        ffi.from_buffer("uint8_t[]", sealed),
        header_bytes,
        out.shape[1],
        ffi.from_buffer("uint8_t[]", out, require_writable=True),
        ffi.from_buffer("uint8_t[]", opened, require_writable=True),
    )
    return opened


def _require(array: npt.NDArray[Any], kind: type, size: int) -> None:
    if array.dtype != kind or not array.flags.c_contiguous or array.size != size:
        raise ValueError("an array is of another type or length, or not in one piece")
