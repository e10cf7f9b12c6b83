"""Figures said before anything is loaded are not below what it takes then, and not far above."""

import numpy as np
import pytest

from secure_embed.collection import figures
from secure_embed.index import Codebook, RabitqShard, lists_for, sample_for
from secure_embed.keys.wrapped_table import WrappedTable
from tests.one_holding import SCHEMA, unit_vectors

KINDS = {"string": "s", "long": 5, "bool": True}


def filled(records: int, dimension: int, bits: int, schema: dict, batch: int) -> tuple[RabitqShard, Codebook]:
    vectors = unit_vectors(1, records, dimension)
    codebook = Codebook.train(vectors, version=1, bits=bits)
    shard = RabitqShard(
        codebook=codebook, schema=schema, tag_attribute=lambda _, __: bytes(32), open_vectors=lambda *_: None
    )
    values = {name: KINDS[kind] for name, kind in schema.items()}
    for start in range(0, records, batch):
        here = np.arange(start, min(start + batch, records), dtype=np.int64)
        shard.load(here, vectors[here], [values] * len(here))
    return shard, codebook


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize(
    ("records", "dimension", "batch"), [(3_000, 64, 1_000), (30_000, 96, 2_000), (20_500, 384, 500)]
)
@pytest.mark.parametrize("schema", [{}, SCHEMA], ids=["bare", "attributes"])
def test_codes_take_no_more_than_was_said_and_not_much_less(records, dimension, batch, bits, schema):
    shard, codebook = filled(records, dimension, bits, schema, batch)
    found = shard.footprint()
    taken = found.codes + found.positions + found.attributes + found.codebook
    said = figures.codes_bytes(
        records, dimension=dimension, bits=bits, lists=codebook.lists, attributes=schema.values()
    )
    assert 0.95 * taken <= said <= 1.75 * taken
    assert codebook.lists <= lists_for(records)


@pytest.mark.parametrize("records", [10, 5_000, 100_000])
def test_keys_take_no_more_than_was_said(records):
    """A table that has just grown by half, and so have the store's 33 bytes a position; 16 a record beside them."""
    table = WrappedTable(records * 3 // 2)
    taken = table.capacity * (figures.wrapped_key_bytes + 33) + 16 * records
    assert taken <= figures.keys_bytes(records, records) <= 1.5 * taken + 2 * figures.fixed_bytes


@pytest.mark.parametrize("dimension", [384, 1_024])
def test_a_training_looks_at_what_k_means_takes_or_where_there_is_no_room_at_64_a_list(dimension):
    assert figures.sample_sizes(50_000, dimension) == [sample_for(50_000)]
    for records in (1_000_000, 10_000_000):
        best, *_, least = sizes = figures.sample_sizes(records, dimension)
        assert len(sizes) > 1
        assert sizes == sorted(sizes, reverse=True)
        assert best == sample_for(records) == 256 * lists_for(records)
        assert least == max(64 * lists_for(records), figures.sample_bytes_min // (4 * dimension))


def test_mebibytes_are_rounded_up():
    assert [figures.mib(n) for n in (0, 1, 1 << 20, (1 << 20) + 1)] == [0, 1, 1, 2]
