"""Products of matrices whose rows do not depend on one another, to the last bit.

A BLAS cuts a product into blocks and computes those at the edges in another order, so a row's last bits tell how many
rows came with it, and where it stood among them. Codes must not tell that of records that a caller may not see.
Nothing is rounded here until the end, so no order of the sums makes a difference.

Source: the error-free products of Ozaki, Ogita, Oishi and Rump, "Error-free transformations of matrix multiplication
by using fast routines of matrix multiplication" (2012), with one slice of each matrix.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["exact_product"]

Floats = npt.NDArray[np.float32]

# Values become whole multiples of 2^-26. Rows and columns are of length 1, rounding aside, so no partial sum of a product
# is longer than that (Cauchy and Schwarz): 2^52 units, where float64 holds every whole number up to 2^53.
_units = 2.0**26
_rows_at_once = 1_024


def exact_product(rows: Floats, columns: Floats) -> npt.NDArray[np.float64]:
    """(n, d) @ (d, m) -> (n, m): each value the exact product of its row and its column, both rounded to 2^-26.

    Each row and each column is no longer than 1.4; of longer ones the result is near, but not exact.
    """
    result = np.empty((len(rows), columns.shape[1]))
    right = _whole(columns, np.empty(columns.shape))
    buffer = np.zeros((min(len(rows), _rows_at_once), rows.shape[1]))
    try:
        for start in range(0, len(rows), _rows_at_once):
            block = rows[start : start + _rows_at_once]
            np.matmul(_whole(block, buffer[: len(block)]), right, out=result[start : start + len(block)])
    finally:
        buffer.fill(0)
    result *= _units**-2
    return result


def _whole(values: Floats, out: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    np.multiply(values, _units, out=out, dtype=np.float64)
    return np.rint(out, out=out)
