"""What a security officer looks after: keys replaced while the service answers, copies, older states noticed."""

from secure_embed.custody.backup import Backups, BackupTaken, Manifest
from secure_embed.custody.rollback import Rollback, rollback_codes
from secure_embed.custody.rotating import Kind as RotationKind
from secure_embed.custody.rotating import Rotating, Rotation
from secure_embed.custody.succession import DATABASE_SECRETS, Successions, log_signer, settle

__all__ = [
    "DATABASE_SECRETS",
    "BackupTaken",
    "Backups",
    "Manifest",
    "Rollback",
    "Rotating",
    "Rotation",
    "RotationKind",
    "Successions",
    "log_signer",
    "rollback_codes",
    "settle",
]
