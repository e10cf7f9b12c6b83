"""index/: codes in memory, exact scores from sealed vectors. See ``protocol`` for its door.

What may not be in here: keys, sealed bytes, SQL, or a record's text. FAISS loads with the first shard, not before.
"""

from secure_embed.index._asking import exhaustive_max, openings_max
from secure_embed.index._chunks import chunk_bytes, wipe
from secure_embed.index.codebook import Codebook, bits_for, lists_for, sample_for, should_retrain
from secure_embed.index.protocol import (
    Added,
    Candidates,
    Effort,
    Erased,
    Forgotten,
    OpenVectors,
    Scored,
    Selection,
    Shard,
    every_list,
    lists_untuned,
)
from secure_embed.index.shard import Footprint, RabitqShard

__all__ = [
    "Added",
    "Candidates",
    "Codebook",
    "Effort",
    "Erased",
    "Footprint",
    "Forgotten",
    "OpenVectors",
    "RabitqShard",
    "Scored",
    "Selection",
    "Shard",
    "bits_for",
    "chunk_bytes",
    "every_list",
    "exhaustive_max",
    "lists_for",
    "lists_untuned",
    "openings_max",
    "sample_for",
    "should_retrain",
    "wipe",
]
