"""A collection, opened: its keys, rows and codes joined; all of them; what seals their values anew. Who may ask is not known here."""

from secure_embed.collection.holding import Holding
from secure_embed.collection.holdings import Holdings, Memory
from secure_embed.collection.opening import Progress
from secure_embed.collection.pace import short_turns
from secure_embed.collection.pause import Pause
from secure_embed.collection.rows import Meta
from secure_embed.collection.saved_codes import CodesOrigin
from secure_embed.collection.tuned import Asked, Measured, Tuned, Tuning
from secure_embed.collection.tunings import TuningProgress, Tunings
from secure_embed.collection.warming import Warmed, Warming

__all__ = [
    "Asked",
    "CodesOrigin",
    "Holding",
    "Holdings",
    "Measured",
    "Memory",
    "Meta",
    "Pause",
    "Progress",
    "Tuned",
    "Tuning",
    "TuningProgress",
    "Tunings",
    "Warmed",
    "Warming",
    "short_turns",
]
