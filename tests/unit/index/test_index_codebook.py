"""The codebook: drawn, trained, written and read back."""

import numpy as np
import pytest

from secure_embed.errors import IntegrityFailure, InvalidRequest
from secure_embed.index import Codebook, lists_for, sample_for, should_retrain


def test_a_drawn_rotation_is_orthogonal_secret_and_read_only() -> None:
    first, second = Codebook.draw(48), Codebook.draw(48)
    assert np.allclose(first.rotation @ first.rotation.T, np.eye(48), atol=1e-5)
    assert not np.allclose(first.rotation, second.rotation, atol=0.1)
    assert (first.version, first.trained_on, first.lists, first.bits) == (1, 0, 1, 1)
    with pytest.raises(ValueError, match="read-only"):
        first.rotation[0, 0] = 1
    assert "rotation" not in repr(first)


def test_a_rotation_comes_from_the_random_bytes_alone() -> None:
    asked: list[int] = []

    def random_bytes(count: int) -> bytes:
        asked.append(count)
        return np.random.default_rng(5).bytes(count)

    first = Codebook.draw(16, random_bytes=random_bytes)
    second = Codebook.draw(16, random_bytes=random_bytes)
    assert np.array_equal(first.rotation, second.rotation)
    assert asked == [16 * 16 * 16] * 2


def test_training_is_repeated_by_the_same_random_bytes(make_clustered) -> None:
    vectors, _ = make_clustered(4, 800, 16, clusters=5, noise=0.6)
    first, second, other = (
        Codebook.train(vectors, version=1, lists=8, random_bytes=np.random.default_rng(seed).bytes)
        for seed in (1, 1, 2)
    )
    assert first.to_bytes() == second.to_bytes() != other.to_bytes()


def test_rotations_favour_no_direction() -> None:
    """Where the first axis goes has mean zero and variance 1/d over many draws; a QR without signs fails this."""
    random_bytes = np.random.default_rng(9).bytes
    images = np.array([Codebook.draw(4, random_bytes=random_bytes).rotation[0] for _ in range(800)])
    assert np.abs(images.mean(axis=0)).max() < 0.1
    assert np.abs(images.var(axis=0) - 0.25).max() < 0.05


def test_turning_keeps_cosines(make_clustered) -> None:
    vectors, _ = make_clustered(3, 100, 32, clusters=5, noise=0.6)
    turned = Codebook.draw(32).turn_records(vectors)
    assert np.allclose(turned @ turned.T, vectors @ vectors.T, atol=1e-5)
    assert turned.flags.c_contiguous


@pytest.mark.parametrize("dimension", [1, 7, 48, 384, 1_024])
def test_a_record_is_turned_to_the_same_bits_whatever_comes_with_it(make_clustered, dimension: int) -> None:
    """A BLAS computes the rows at a block's edge in another order than those within: so would every fourth here."""
    vectors, _ = make_clustered(8, 1_100, dimension, clusters=5, noise=0.6)
    codebook = Codebook.draw(dimension)
    together = codebook.turn_records(vectors)
    for start, count in ((0, 1), (5, 2), (1, 3), (97, 61), (1_000, 100), (0, 1_099)):
        assert np.array_equal(codebook.turn_records(vectors[start : start + count]), together[start : start + count])
    reference = vectors.astype(np.float64) @ codebook.rotation.astype(np.float64)
    assert np.abs(together - reference).max() < 1e-6


def test_training_keeps_the_rotation_and_places_one_centroid_at_the_mean(make_clustered) -> None:
    vectors, _ = make_clustered(4, 500, 32, clusters=5, noise=0.6)
    drawn = Codebook.draw(32)
    trained = Codebook.train(vectors, version=2, rotation=drawn.rotation)
    assert np.array_equal(trained.rotation, drawn.rotation)
    assert (trained.version, trained.trained_on, trained.lists) == (2, 500, 1)
    assert np.allclose(trained.centroids[0], (vectors @ drawn.rotation).mean(axis=0), atol=1e-5)


def test_no_centroid_stands_for_fewer_than_sixteen_records(make_clustered) -> None:
    """A centroid of one record is that record's vector, in the clear and past its erasure."""
    vectors, _ = make_clustered(5, 2_000, 24, clusters=8, noise=0.3)
    vectors[0] = -vectors[1:].mean(axis=0) / np.linalg.norm(vectors[1:].mean(axis=0))  # far from everything
    trained = Codebook.train(vectors, version=2, lists=100, random_bytes=np.random.default_rng(9).bytes)
    turned = trained.turn_records(vectors)
    assert 1 < trained.lists <= 100
    assert np.linalg.norm(trained.centroids - turned[0], axis=1).min() > 0.1
    few = Codebook.train(vectors[:15], version=2)
    assert not few.centroids.any()


def test_training_counts_the_collection_not_the_sample(make_clustered) -> None:
    vectors, _ = make_clustered(6, 600, 16, clusters=5, noise=0.6)
    trained = Codebook.train(vectors, version=2, records=9_000)
    assert trained.trained_on == 9_000
    assert not should_retrain(trained, 10_000)
    assert should_retrain(trained, 36_000)


@pytest.mark.parametrize(
    ("records", "lists"), [(0, 1), (10_000, 1), (10_001, 32), (100_000, 256), (200_000, 512), (1_000_000, 2048)]
)
def test_lists_follow_the_number_of_records(records: int, lists: int) -> None:
    assert lists_for(records) == lists
    assert sample_for(records) <= max(records, 0)


@pytest.mark.parametrize(("records", "due"), [(0, False), (1_000, False), (1_001, True)])
def test_an_untrained_codebook_is_due_once_estimates_are_used(records: int, due: bool) -> None:
    assert should_retrain(Codebook.draw(4), records) is due


@pytest.mark.parametrize("dimension", [0, -1, 4_097])
def test_absurd_dimensions_are_refused_before_memory_is_taken(dimension: int) -> None:
    with pytest.raises(InvalidRequest):
        Codebook.draw(dimension)


@pytest.mark.parametrize(
    "vectors",
    [
        np.zeros((0, 8), np.float32),
        np.full((4, 8), np.nan, np.float32),
        np.ones((4, 8), np.float64),
        np.ones(8, np.float32),
    ],
    ids=["none", "nan", "float64", "flat"],
)
def test_training_refuses_what_it_cannot_use(vectors: np.ndarray) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Codebook.train(vectors, version=2)
    assert refused.value.code == "vector_invalid"


@pytest.mark.parametrize(
    "change",
    [
        {"rotation": np.ones((4, 4), np.float32)},
        {"rotation": np.eye(4, dtype=np.float32)[:3]},
        {"rotation": np.full((4, 4), np.nan, np.float32)},
        {"rotation": np.diag([1, 1, 1, 0]).astype(np.float32)},
        {"rotation": np.eye(4)},
        {"centroids": np.zeros((0, 4), np.float32)},
        {"centroids": np.zeros((1, 5), np.float32)},
        {"centroids": np.full((1, 4), np.inf, np.float32)},
        {"bits": 0},
        {"bits": 5},
        {"version": 0},
        {"version": 2**32},
        {"trained_on": -1},
    ],
    ids=str,
)
def test_a_codebook_that_exists_is_valid(change: dict[str, object]) -> None:
    sound = {
        "rotation": np.eye(4, dtype=np.float32),
        "centroids": np.zeros((1, 4), np.float32),
        "bits": 1,
        "version": 1,
        "trained_on": 0,
    }
    assert Codebook(**sound).dimension == 4
    with pytest.raises(IntegrityFailure) as refused:
        Codebook(**(sound | change))
    assert refused.value.code == "codebook_invalid"


def test_the_written_form_is_what_the_decision_record_says() -> None:
    """Byte by byte, so that another program can read it: docs/decisions/0005-codes-in-memory.md."""
    codebook = Codebook(
        rotation=np.array([[0, 1], [-1, 0]], np.float32),
        centroids=np.array([[0.5, -2]], np.float32),
        bits=1,
        version=7,
        trained_on=300,
    )
    written = [
        b"SE-CODES".hex(),
        "0100",  # format
        "01",  # bits
        "00",  # reserved
        "07000000",  # version
        "02000000",  # dimension
        "01000000",  # lists
        "2c01000000000000",  # trained on
        *("00000000", "0000803f", "000080bf", "00000000"),  # rotation
        *("0000003f", "000000c0"),  # centroid
    ]
    assert codebook.to_bytes().hex() == "".join(written)
