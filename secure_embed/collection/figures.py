"""What an open collection takes of memory, in bytes: said before anything is loaded, from numbers that the store has.

Figures are for the worst case that growing by half leads to, and leave out what many different strings in one attribute
add (their keyed hashes): once codes are there, what they take counts instead.
"""

from collections.abc import Iterable, Sequence

from secure_embed.index import sample_for
from secure_embed.types import AttributeType

__all__ = ["codes_bytes", "keys_bytes", "mib", "sample_sizes", "training_bytes"]

grown = 1.5  # arrays and lists grow by half when they are full
slot_bytes = 8 + 2 + 8 + 1  # its id in a list, which list, its position, whether it is there
attribute_bytes = {"string": 1 + 4, "long": 1 + 8, "bool": 1 + 1}
wrapped_key_bytes = 41
presence_bytes, tag_bytes = 33, 16  # of the store, for a position and for a record
fixed_bytes = 256 * 1024  # of a collection without a record
sample_bytes_min = 512 * 1024 * 1024


def mib(size: float) -> int:
    """Rounded up."""
    return int(-(-size // (1024 * 1024)))


def keys_bytes(positions: int, records: int) -> int:
    """Wrapped record keys, and what the store holds of the records: who is there, and where each id is."""
    return int((wrapped_key_bytes + presence_bytes) * grown * positions + tag_bytes * records) + fixed_bytes


def codes_bytes(records: int, *, dimension: int, bits: int, lists: int, attributes: Iterable[AttributeType]) -> int:
    """Codes, places and attributes of so many records, and the codebook with a coarse copy."""
    code = -(-dimension * bits // 8) + (8 if bits == 1 else 24)
    record = code + slot_bytes + sum(attribute_bytes[kind] for kind in attributes)
    return int(record * records * grown) + 5 * dimension * (dimension + lists)


def sample_sizes(records: int, dimension: int) -> Sequence[int]:
    """How many vectors a training looks at, the best first: as many as k-means takes; where there is no room for that,
    half of them or a quarter (64 a list), but never fewer than fill 512 MiB."""
    whole = sample_for(records)
    least = min(whole, sample_bytes_min // (4 * dimension))
    return sorted({whole, max(whole // 2, least), max(whole // 4, least)}, reverse=True)


def training_bytes(sample: int, dimension: int, *, lists: int) -> int:
    """What a training on so many vectors takes while it lasts: they in plaintext, and what k-means compares at once."""
    return 4 * dimension * sample + 4 * min(sample, 4_096) * min(lists, 1_024)
