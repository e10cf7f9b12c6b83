"""Erasures: their states and receipts, what brings them to their end, and the legal holds that stand in their way."""

from secure_embed.erasure.erasing import Erasing, ErasureState, Kind, What
from secure_embed.erasure.holds import Hold, Holds

__all__ = ["Erasing", "ErasureState", "Hold", "Holds", "Kind", "What"]
