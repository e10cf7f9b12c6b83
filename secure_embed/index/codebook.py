"""The codebook of a collection: the secret rotation and the centroids that every code is made with.

It belongs to the collection, not to an index: shards that train alone do not agree on what they find. It is immutable
and versioned; the caller seals it. What may not be in here: FAISS beyond k-means, records, keys.

A centroid is a mean over records, so it tells something about them and outlives their erasure until the next
training. No centroid therefore stands for fewer than ``centroid_members_min`` records: a mean of one is that record.

Sources: RaBitQ (Gao and Long, SIGMOD 2024) asks for a random rotation; the distribution is uniform over the orthogonal
matrices by Mezzadri, "How to generate random matrices from the classical compact groups" (2007).
"""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Self

import numpy as np
import numpy.typing as npt

from secure_embed.errors import IntegrityFailure, InvalidRequest
from secure_embed.index._exact import exact_product
from secure_embed.types import Vectors

__all__ = ["Codebook", "bits_for", "lists_for", "sample_for", "should_retrain"]

Floats = npt.NDArray[np.float32]
RandomBytes = Callable[[int], bytes]

codebook_magic = b"SE-CODES"
codebook_format = 1
# magic, format, bits a dimension, reserved, version, dimension, lists, records trained on; little end first
codebook_header = struct.Struct("<8sHBBIIIQ")

dimension_max = 4_096  # a rotation of 64 MiB
lists_max = 65_536
bits_max = 4
one_bit_dimension_min = 128
version_max = 2**32 - 1
trained_on_max = 2**63 - 1
orthogonality_error_max = 1e-3  # float32, 4,096 dimensions: rounding alone stays below 1e-4

# Measured (384-d, one thread): one list of 20,000 takes 0.3 ms, 64 lists 0.06 ms and find more of the best. Below
# 10,000 the scan is a fifth of what opening 200 candidates costs, and lists gain nothing.
one_list_records_max = 10_000
records_per_list = 400
training_rounds = 10
samples_per_list_max = 256
centroid_members_min = 16
retrain_growth = 4
# Lists of a codebook that the collection has outgrown threefold hold three times as many codes to look at.
retrain_growth_at_leisure = 1.5
retrain_records_min = 1_000  # up to here every record is opened anyway (see _asking.exhaustive_max)


def _refused(what: str) -> IntegrityFailure:
    return IntegrityFailure(f"a codebook is not what was written: {what}", code="codebook_invalid")


def _frozen(values: Floats, rows: int, columns: int) -> Floats:
    if values.dtype != np.float32 or values.shape != (rows, columns) or not np.isfinite(values).all():
        raise _refused("an array's shape or values")
    owned = np.array(values, dtype=np.float32, order="C", copy=True)
    owned.flags.writeable = False
    return owned


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Codebook:
    """Valid once it exists: the constructor raises ``IntegrityFailure`` (``codebook_invalid``) for anything else."""

    rotation: Floats = field(repr=False)  # (d, d) float32, orthogonal; a row vector v is turned to v @ rotation
    centroids: Floats = field(repr=False)  # (lists, d) float32, of turned vectors
    bits: int  # a dimension in a code, 1 to 4
    version: int  # counts from 1
    trained_on: int  # records that the centroids stand for; 0: none

    def __post_init__(self) -> None:
        if self.rotation.ndim != 2 or self.centroids.ndim != 2:
            raise _refused("an array's shape")
        dimension, lists = self.rotation.shape[1], self.centroids.shape[0]
        if not (1 <= dimension <= dimension_max and 1 <= lists <= lists_max and 1 <= self.bits <= bits_max):
            raise _refused("a size")
        if not (1 <= self.version <= version_max and 0 <= self.trained_on <= trained_on_max):
            raise _refused("a number")
        object.__setattr__(self, "rotation", _frozen(self.rotation, dimension, dimension))
        object.__setattr__(self, "centroids", _frozen(self.centroids, lists, dimension))
        _ensure_orthogonal(self.rotation)

    @property
    def dimension(self) -> int:
        return int(self.rotation.shape[0])

    @property
    def lists(self) -> int:
        return int(self.centroids.shape[0])

    @classmethod
    def draw(cls, dimension: int, *, bits: int = 1, random_bytes: RandomBytes = os.urandom) -> Self:
        """For an empty collection: a fresh secret rotation and one centroid at zero; version 1."""
        if not 1 <= dimension <= dimension_max:
            raise InvalidRequest(f"a vector has 1 to {dimension_max} dimensions here", code="dimension_invalid")
        centroid = np.zeros((1, dimension), np.float32)
        return cls(
            rotation=_draw_rotation(dimension, random_bytes), centroids=centroid, bits=bits, version=1, trained_on=0
        )

    @classmethod
    def train(
        cls,
        vectors: Vectors,
        *,
        version: int,
        rotation: Floats | None = None,
        records: int | None = None,
        lists: int | None = None,
        bits: int = 1,
        random_bytes: RandomBytes = os.urandom,
    ) -> Self:
        """Place the centroids by ``vectors`` ((n, d) float32, unit length, not turned; a sample will do).

        ``records``: how many the collection holds (default: n). ``lists``: at most so many (default: by ``records``);
        fewer come out when a list would stand for too few records. ``rotation``: kept from the codebook before, or
        drawn. Raises ``InvalidRequest`` (``vector_invalid``) for vectors that are empty or not finite.
        """
        if vectors.ndim != 2 or vectors.dtype != np.float32 or not len(vectors) or not np.isfinite(vectors).all():
            raise InvalidRequest("the vectors to train on are empty or not finite", code="vector_invalid")
        dimension = vectors.shape[1]
        if rotation is None:
            rotation = cls.draw(dimension, random_bytes=random_bytes).rotation
        if rotation.shape != (dimension, dimension):
            raise InvalidRequest("the vectors to train on are of another dimension", code="dimension_invalid")
        total = len(vectors) if records is None else max(records, len(vectors))
        seed = int.from_bytes(random_bytes(4), "little") >> 1
        # Turning changes no distance, so the means are turned and no turned copy of the sample is made.
        means = _place_centroids(vectors, lists_for(total) if lists is None else lists, seed)
        return cls(rotation=rotation, centroids=means @ rotation, bits=bits, version=version, trained_on=total)

    def turn_records(self, vectors: Vectors) -> Vectors:
        """(n, d) float32 of unit length -> (n, d) float32, C-contiguous: under the secret rotation, each the same
        whatever records come with it."""
        exact = exact_product(vectors, self.rotation)
        turned = exact.astype(np.float32)
        exact.fill(0)
        return turned

    def mark(self) -> bytes:
        """32 bytes by which codebooks are told apart; no secret to who has the codes.

        SHA-256 over the version, the rotation's first row and the first centroid: a new rotation is drawn with each
        codebook, and megabytes are not hashed at each start.
        """
        rows = self.rotation[0].astype("<f4").tobytes() + self.centroids[0].astype("<f4").tobytes()
        return sha256(struct.pack("<I", self.version) + rows).digest()

    def to_bytes(self) -> bytes:
        """Header, rotation, centroids: little end first, float32, row by row. Plaintext: the caller seals it."""
        header = codebook_header.pack(
            codebook_magic,
            codebook_format,
            self.bits,
            0,
            self.version,
            self.dimension,
            self.lists,
            self.trained_on,
        )
        return header + self.rotation.astype("<f4").tobytes() + self.centroids.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read what :meth:`to_bytes` wrote, to the last byte. Raises ``IntegrityFailure`` (``codebook_invalid``)."""
        if len(raw) < codebook_header.size:
            raise _refused("its length")
        magic, form, bits, reserved, version, dimension, lists, trained_on = codebook_header.unpack_from(raw)
        if magic != codebook_magic or form != codebook_format or reserved != 0:
            raise _refused("its header")
        # Sizes first: nothing is allocated for a length that the bytes do not bear out.
        if not (1 <= dimension <= dimension_max and 1 <= lists <= lists_max):
            raise _refused("a size")
        if len(raw) != codebook_header.size + 4 * dimension * (dimension + lists):
            raise _refused("its length")
        values = np.frombuffer(raw, "<f4", offset=codebook_header.size).astype(np.float32)
        return cls(
            rotation=values[: dimension * dimension].reshape(dimension, dimension),
            centroids=values[dimension * dimension :].reshape(lists, dimension),
            bits=bits,
            version=version,
            trained_on=trained_on,
        )


def lists_for(records: int) -> int:
    """How many lists a collection of this size is best cut into: one, or a power of two near ``records`` / 400."""
    if records <= one_list_records_max:
        return 1
    return int(min(2 ** round(np.log2(records / records_per_list)), lists_max))


def bits_for(dimension: int) -> int:
    """Bits a dimension for a new collection. The fewer dimensions, the more a code is off: docs/decisions/0020."""
    return 1 if dimension >= one_bit_dimension_min else 2


def sample_for(records: int) -> int:
    """How many vectors training uses for a collection of this size; more are not looked at."""
    return min(records, max(samples_per_list_max * lists_for(records), one_list_records_max))


def should_retrain(codebook: Codebook, records: int, *, at_leisure: bool = False) -> bool:
    """Whether the codebook was trained on so many fewer records than there are now that a new one finds more for less.
    ``at_leisure``: a smaller difference is worth it where nobody is ingesting."""
    growth = retrain_growth_at_leisure if at_leisure else retrain_growth
    return records > retrain_records_min and records >= growth * max(codebook.trained_on, 1)


def _draw_rotation(dimension: int, random_bytes: RandomBytes) -> Floats:
    """Normal values by Box and Muller from the system's random bytes, then QR with the signs of R's diagonal."""
    count = dimension * dimension
    uniform = (np.frombuffer(random_bytes(16 * count), "<u8") >> 11).astype(np.float64)
    radius = np.sqrt(-2 * np.log((uniform[:count] + 1) * 2.0**-53))
    normal = radius * np.cos(2 * np.pi * 2.0**-53 * uniform[count:])
    q, r = np.linalg.qr(normal.reshape(dimension, dimension))
    return np.ascontiguousarray(q * np.where(np.diag(r) < 0, -1.0, 1.0), dtype=np.float32)


def _ensure_orthogonal(rotation: Floats) -> None:
    """Rows of unit length, and turning there and back gives the same vector (a probe: the product would be cubic)."""
    probe = np.random.default_rng(0).standard_normal((8, rotation.shape[0])).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # absurd values overflow, and are refused by the comparison
        there_and_back = (probe @ rotation) @ rotation.T
        error = np.abs(there_and_back - probe).max()
        lengths = np.abs(np.linalg.norm(rotation, axis=1) - 1).max()
    if not (error <= orthogonality_error_max and lengths <= orthogonality_error_max):
        raise _refused("its rotation is none")


def _place_centroids(vectors: Floats, lists: int, seed: int) -> Floats:
    dimension = vectors.shape[1]
    if len(vectors) < centroid_members_min:
        return np.zeros((1, dimension), np.float32)
    mean: Floats = vectors.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
    lists = min(lists, len(vectors) // centroid_members_min)
    if lists <= 1:
        return mean
    import faiss

    clustering = faiss.Kmeans(
        dimension,
        lists,
        niter=training_rounds,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=samples_per_list_max,
    )
    clustering.train(vectors)
    centroids = np.array(clustering.centroids, np.float32).reshape(-1, dimension)
    _, nearest = clustering.index.search(vectors, 1)
    members = np.bincount(nearest[:, 0], minlength=len(centroids))
    kept = np.ascontiguousarray(centroids[(members >= centroid_members_min) & np.isfinite(centroids).all(axis=1)])
    return kept if len(kept) else mean
