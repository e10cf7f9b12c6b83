"""What an open collection takes of memory, in bytes: said before anything is loaded, from numbers that the store has.

Figures are for the worst case that growing by half leads to, and leave out what many different strings in one attribute
add (their keyed hashes): once codes are there, what they take counts instead.
"""

from collections.abc import Iterable

from secure_embed.index import lists_for, sample_for
from secure_embed.types import AttributeType

__all__ = ["codes_bytes", "keys_bytes", "mib", "sample_records", "training_bytes"]

grown = 1.5  # arrays and lists grow by half when they are full
slot_bytes = 8 + 4 + 8 + 1  # its id in a list, which list, its position, whether it is there
attribute_bytes = {"string": 1 + 4, "long": 1 + 8, "bool": 1 + 1}
wrapped_key_bytes = 41
presence_bytes, tag_bytes = 33, 16  # of the store, for a position and for a record
fixed_bytes = 256 * 1024  # of a collection without a record
sample_bytes_max = 512 * 1024 * 1024
samples_per_list_min = 64


def mib(size: float) -> int:
    """Rounded up."""
    return int(-(-size // (1024 * 1024)))


def keys_bytes(positions: int, records: int) -> int:
    """Wrapped record keys, and what the store holds of the records: who is there, and where each id is."""
    return int((wrapped_key_bytes + presence_bytes) * grown * positions + tag_bytes * records) + fixed_bytes


def codes_bytes(records: int, *, dimension: int, bits: int, lists: int, attributes: Iterable[AttributeType]) -> int:
    """Codes, places and attributes of so many records, and the codebook with the copy that FAISS has of it."""
    code = -(-dimension * bits // 8) + (8 if bits == 1 else 24)
    record = code + slot_bytes + sum(attribute_bytes[kind] for kind in attributes)
    return int(record * records * grown) + 4 * dimension * (dimension + 2 * lists)


def sample_records(records: int, dimension: int) -> int:
    """How many vectors a training looks at: as many as k-means takes, but so many that they fill 512 MiB at most, or
    64 a list."""
    least = max(sample_bytes_max // (4 * dimension), samples_per_list_min * lists_for(records))
    return min(sample_for(records), least)


def training_bytes(records: int, dimension: int) -> int:
    """Vectors that a training holds in plaintext while it lasts: the sample, and the sample turned."""
    return 2 * 4 * dimension * sample_records(records, dimension)
