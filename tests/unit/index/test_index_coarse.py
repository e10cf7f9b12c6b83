"""Products with a matrix of bytes: near enough to search with, and the same whatever is asked beside them."""

import numpy as np
import pytest

from secure_embed.index import Codebook
from secure_embed.index._coarse import CoarseMatrix

pytestmark = pytest.mark.usefixtures("each_way_to_open")


def unit(seed: int, n: int, d: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("dimension", [1, 7, 48, 384, 1_024, 4_096])
def test_a_turned_query_is_as_near_to_the_exact_one_as_is_said(dimension: int) -> None:
    codebook = Codebook.draw(dimension, random_bytes=np.random.default_rng(1).bytes)
    queries = unit(2, 5, dimension)
    turned = CoarseMatrix(codebook.rotation.T).products(queries)
    exact = queries.astype(np.float64) @ codebook.rotation.astype(np.float64)
    assert turned.dtype == np.float32
    assert turned.flags.c_contiguous
    assert np.linalg.norm(turned - exact, axis=1).max() < 0.012
    records = unit(3, 200, dimension).astype(np.float64)
    assert np.abs((turned - exact) @ records.T).max() < 0.05 / dimension**0.5


def test_a_product_is_the_same_whatever_is_asked_beside_it() -> None:
    matrix, queries = CoarseMatrix(unit(1, 300, 384)), unit(2, 9, 384)
    together = matrix.products(queries)
    for n in range(9):
        assert (matrix.products(queries[n : n + 1]) == together[n]).all()


@pytest.mark.parametrize("length", [1e-30, 1.0, 1e18])
def test_a_querys_length_does_not_matter(length: float) -> None:
    rows, query = unit(1, 100, 64), unit(2, 1, 64)
    products = CoarseMatrix(rows).products((query * np.float32(length)).astype(np.float32))
    assert np.allclose(products / length, query @ rows.T, atol=0.01)


def test_rows_and_queries_of_zeros_give_zeros() -> None:
    rows = unit(1, 4, 16)
    rows[2] = 0
    assert (CoarseMatrix(rows).products(unit(2, 3, 16))[:, 2] == 0).all()
    assert (CoarseMatrix(rows).products(np.zeros((2, 16), np.float32)) == 0).all()
