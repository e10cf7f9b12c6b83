"""What goes into compiled code is checked here: arrays that lie in one piece, of the right type, as long as they say."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["coarse_most", "coarse_products", "compiled", "open_values", "read_slots", "score_halves"]

key_bytes, nonce_bytes, tag_bytes, number_bytes = 32, 12, 16, 8
additional_max = 256

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def _not_together() -> ValueError:
    return ValueError("arrays, or a number in one of them, do not belong together")


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
    if out.ndim != 2 or len(out) != count:
        raise _not_together()
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
    header: bytes,
) -> npt.NDArray[np.bool_]:
    """Open n rows of ``sealed`` (m, header + 12 + d + 16) uint8, AES-256-GCM, into the same rows of ``out`` (m, d) uint8.

    ``rows``: (n,) which ones. ``keys``: n times 32 bytes. ``additional``: the additional data, in which each value has
    its own of ``numbers`` (n,), eight bytes, big end first, at ``number_at``. What begins with another header does not
    open. The (n,) answer says which opened; a row that did not is zeros. Raises ``ValueError`` for arrays that do not belong together.
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
        and sealed.shape[1] == len(header) + nonce_bytes + out.shape[1] + tag_bytes
        and len(keys) == key_bytes * count
        and 0 <= number_at <= len(additional) - number_bytes
        and len(additional) <= additional_max
    )
    if not together:
        raise _not_together()
    opened = np.zeros(count, np.bool_)
    outside = lib.se_open_values(
        count,
        ffi.from_buffer("int64_t[]", rows),
        len(out),
        ffi.from_buffer("uint8_t[]", keys),
        ffi.from_buffer("int64_t[]", numbers),
        ffi.from_buffer("uint8_t[]", additional),
        len(additional),
        number_at,
        ffi.from_buffer("uint8_t[]", sealed),
        header,
        len(header),
        out.shape[1],
        ffi.from_buffer("uint8_t[]", out, require_writable=True),
        ffi.from_buffer("uint8_t[]", opened, require_writable=True),
    )
    if outside:
        raise _not_together()
    return opened


def score_halves(
    halves: npt.NDArray[np.float16],
    queries: Floats,
    query_of: npt.NDArray[np.int32],
    products: Floats,
    squares: Floats,
) -> bool:
    """Each row's product with its query and with itself, and zeros over the rows. False: nothing was done.

    ``halves``: (n, d) float16; ``queries``: (m, d) float32; ``query_of``: (n,) which of them; ``products`` and
    ``squares``: (n,) float32, filled. Infinity and NaN count as 65,536 and more. A row's figures are the same whatever
    lies beside it. Raises ``ValueError`` for arrays that do not belong together.
    """
    if _native is None:
        return False
    ffi, lib, _ = _native
    count = len(query_of)
    _require(halves, np.float16, halves.size)
    _require(queries, np.float32, queries.size)
    _require(query_of, np.int32, count)
    _require(products, np.float32, count)
    _require(squares, np.float32, count)
    together = halves.ndim == queries.ndim == 2 and len(halves) == count and halves.shape[1] == queries.shape[1]
    if not together:
        raise _not_together()
    outside = lib.se_score_halves(
        count,
        halves.shape[1],
        ffi.from_buffer("uint16_t[]", halves.view(np.uint16), require_writable=True),
        ffi.from_buffer("float[]", queries),
        len(queries),
        ffi.from_buffer("int32_t[]", query_of),
        ffi.from_buffer("float[]", products, require_writable=True),
        ffi.from_buffer("float[]", squares, require_writable=True),
    )
    if outside:
        raise _not_together()
    return True


def coarse_most(dimension: int) -> int:
    """How large a value of a query may be in :func:`coarse_products`: 16,383 at 1,024 dimensions."""
    assert _native is not None
    return int(_native[1].se_coarse_most(dimension))


def coarse_products(table: npt.NDArray[np.int8], queries: npt.NDArray[np.int16], sums: npt.NDArray[np.int32]) -> None:
    """The product of each query with each row, exactly. Only where it is :func:`compiled`.

    ``table``: (n, d) int8; ``queries``: (m, d) int16, none beyond ``coarse_most(d)``; ``sums``: (m, n) int32, filled.
    Raises ``ValueError`` for arrays that do not belong together.
    """
    assert _native is not None
    ffi, lib, _ = _native
    _require(table, np.int8, table.size)
    _require(queries, np.int16, queries.size)
    _require(sums, np.int32, sums.size)
    if not (
        table.ndim == queries.ndim == 2
        and table.shape[1] == queries.shape[1] > 0
        and sums.shape == (len(queries), len(table))
    ):
        raise _not_together()
    beyond = lib.se_coarse_products(
        len(table),
        table.shape[1],
        ffi.from_buffer("int8_t[]", table),
        len(queries),
        ffi.from_buffer("int16_t[]", queries),
        ffi.from_buffer("int32_t[]", sums, require_writable=True),
    )
    if beyond:
        raise _not_together()


def _require(array: npt.NDArray[Any], kind: type, size: int) -> None:
    if array.dtype != kind or not array.flags.c_contiguous or array.size != size:
        raise ValueError("an array is of another type or length, or not in one piece")
