"""What goes into compiled code is checked here: arrays that lie in one piece, of the right type, as long as they say."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "coarse_products",
    "compiled",
    "native",
    "not_together",
    "open_values",
    "read_slots",
    "require",
    "score_halves",
]

key_bytes, nonce_bytes, tag_bytes, number_bytes = 32, 12, 16, 8
additional_max = 256

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def not_together() -> ValueError:
    return ValueError("arrays, or a number in one of them, do not belong together")


def _loaded() -> tuple[Any, Any, str] | None:
    try:
        from secure_embed.bulk._bulk import ffi, lib
    except ImportError:  # built without a C compiler, or its libcrypto is not there
        return None
    return (ffi, lib, ffi.string(lib.se_library()).decode()) if lib.se_ready() else None


native = _loaded()


def compiled() -> str | None:
    """The OpenSSL that opens values here; None where no compiled code is in use."""
    return None if native is None else native[2]


def read_slots(files: npt.NDArray[np.int32], offsets: Numbers, out: Bytes) -> int:
    """Read the n rows of ``out``, (n, bytes) uint8, from the open files ``files`` (n,) at ``offsets`` (n,).

    Gives how many, from the first, were read whole; raises nothing for what a file does not hold.
    """
    if native is None:
        return 0
    ffi, lib, _ = native
    count = len(files)
    require(files, np.int32, count)
    require(offsets, np.int64, count)
    require(out, np.uint8, out.size)
    if out.ndim != 2 or len(out) != count:
        raise not_together()
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
    if native is None:
        return np.zeros(count, np.bool_)
    ffi, lib, _ = native
    require(rows, np.int64, count)
    require(numbers, np.int64, count)
    require(sealed, np.uint8, sealed.size)
    require(out, np.uint8, out.size)
    together = (
        sealed.ndim == out.ndim == 2
        and len(sealed) == len(out)
        and sealed.shape[1] == len(header) + nonce_bytes + out.shape[1] + tag_bytes
        and len(keys) == key_bytes * count
        and 0 <= number_at <= len(additional) - number_bytes
        and len(additional) <= additional_max
    )
    if not together:
        raise not_together()
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
        raise not_together()
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
    if native is None:
        return False
    ffi, lib, _ = native
    count = len(query_of)
    require(halves, np.float16, halves.size)
    require(queries, np.float32, queries.size)
    require(query_of, np.int32, count)
    require(products, np.float32, count)
    require(squares, np.float32, count)
    together = halves.ndim == queries.ndim == 2 and len(halves) == count and halves.shape[1] == queries.shape[1]
    if not together:
        raise not_together()
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
        raise not_together()
    return True


def coarse_products(table: npt.NDArray[np.int8], steps: Floats, queries: Floats, products: Floats) -> None:
    """The product of each query with each row, the query's values rounded to 16,383 steps at 1,024 dimensions. Only where
    it is :func:`compiled`.

    ``table``: (n, d) int8, d up to 4,096, in ``steps`` (n,) float32 of each row; ``queries``: (m, d) float32;
    ``products``: (m, n) float32, filled. Raises ``ValueError`` for arrays that do not belong together.
    """
    assert native is not None
    ffi, lib, _ = native
    require(table, np.int8, table.size)
    require(steps, np.float32, len(table))
    require(queries, np.float32, queries.size)
    require(products, np.float32, products.size)
    if not (
        table.ndim == queries.ndim == 2
        and table.shape[1] == queries.shape[1]
        and products.shape == (len(queries), len(table))
    ):
        raise not_together()
    beyond = lib.se_coarse_products(
        len(table),
        table.shape[1],
        ffi.from_buffer("int8_t[]", table),
        ffi.from_buffer("float[]", steps),
        len(queries),
        ffi.from_buffer("float[]", queries),
        ffi.from_buffer("float[]", products, require_writable=True),
    )
    if beyond:
        raise not_together()


def require(array: npt.NDArray[Any], kind: type, size: int) -> None:
    if array.dtype != kind or not array.flags.c_contiguous or array.size != size:
        raise ValueError("an array is of another type or length, or not in one piece")
