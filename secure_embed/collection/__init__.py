"""A collection, opened: its keys, rows and codes joined; all of them; what seals their values anew. Who may ask is not known here."""

from secure_embed.collection.holding import Holding
from secure_embed.collection.holdings import Holdings
from secure_embed.collection.pause import Pause
from secure_embed.collection.rows import Meta
from secure_embed.collection.saved_codes import CodesOrigin
from secure_embed.collection.tuned import Asked, Measured, Tuned, Tuning
from secure_embed.collection.tunings import Progress, Tunings

__all__ = [
    "Asked",
    "CodesOrigin",
    "Holding",
    "Holdings",
    "Measured",
    "Meta",
    "Pause",
    "Progress",
    "Tuned",
    "Tuning",
    "Tunings",
]
