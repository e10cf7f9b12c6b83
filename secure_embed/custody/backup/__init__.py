"""Copies of a deployment: what is in one, taken while the service answers, checked by opening it. Restoring is above."""

from secure_embed.custody.backup.manifest import Manifest, Part
from secure_embed.custody.backup.taking import Backups, BackupTaken

__all__ = ["BackupTaken", "Backups", "Manifest", "Part"]
