"""The codebook's written form: round trips, and nothing but a codebook is read as one."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_embed.errors import IntegrityFailure
from secure_embed.index import Codebook

HEADER_BYTES = 32


def drawn(dimension: int, lists: int, bits: int, version: int, trained_on: int, seed: int) -> Codebook:
    rng = np.random.default_rng(seed)
    return Codebook(
        rotation=Codebook.draw(dimension, random_bytes=rng.bytes).rotation,
        centroids=rng.standard_normal((lists, dimension)).astype(np.float32),
        bits=bits,
        version=version,
        trained_on=trained_on,
    )


codebooks = st.builds(
    drawn,
    dimension=st.integers(1, 24),
    lists=st.integers(1, 9),
    bits=st.integers(1, 4),
    version=st.integers(1, 2**32 - 1),
    trained_on=st.integers(0, 2**63 - 1),
    seed=st.integers(0, 2**32),
)


@given(codebook=codebooks)
def test_what_is_written_is_read_back(codebook: Codebook) -> None:
    read = Codebook.from_bytes(codebook.to_bytes())
    assert np.array_equal(read.rotation, codebook.rotation)
    assert np.array_equal(read.centroids, codebook.centroids)
    assert (read.bits, read.version, read.trained_on) == (codebook.bits, codebook.version, codebook.trained_on)
    assert read.to_bytes() == codebook.to_bytes()


def read_or_refused(raw: bytes) -> Codebook | None:
    try:
        return Codebook.from_bytes(raw)
    except IntegrityFailure as refused:
        if refused.code != "codebook_invalid":
            raise
        return None


@given(raw=st.binary(max_size=200))
def test_noise_is_refused(raw: bytes) -> None:
    assert read_or_refused(raw) is None


@settings(max_examples=300)
@given(codebook=codebooks, data=st.data())
def test_a_changed_byte_is_refused_or_means_exactly_what_it_says(codebook: Codebook, data: st.DataObject) -> None:
    raw = bytearray(codebook.to_bytes())
    at = data.draw(st.one_of(st.integers(0, HEADER_BYTES - 1), st.integers(0, len(raw) - 1)))
    raw[at] ^= data.draw(st.integers(1, 255))
    read = read_or_refused(bytes(raw))
    assert read is None or read.to_bytes() == bytes(raw)


@given(codebook=codebooks, data=st.data())
def test_cut_or_lengthened_is_refused(codebook: Codebook, data: st.DataObject) -> None:
    raw = codebook.to_bytes()
    assert read_or_refused(raw[: data.draw(st.integers(0, len(raw) - 1))]) is None
    assert read_or_refused(raw + data.draw(st.binary(min_size=1, max_size=9))) is None


def test_a_header_that_claims_gigabytes_is_refused_without_taking_them() -> None:
    raw = bytearray(Codebook.draw(2).to_bytes())
    raw[16:20] = (4_096).to_bytes(4, "little")
    raw[20:24] = (65_536).to_bytes(4, "little")
    assert read_or_refused(bytes(raw)) is None
