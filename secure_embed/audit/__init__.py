"""The tamper-evident log: events, Merkle tree, signed checkpoints, receipts, storage. Format: docs/log-format.md.

What may not be in here: who may do what, what a record holds, HTTP. The auditors' verifier (audit/verify) shares no code
with this package.
"""

from secure_embed.audit.check import verify_folder, verify_reader
from secure_embed.audit.events import AuditEvent, Caller, EventDecision, Phase, collection_label, label
from secure_embed.audit.export import export_folder
from secure_embed.audit.log import AuditLog
from secure_embed.audit.merkle import leaf_hash, verify_consistency, verify_inclusion
from secure_embed.audit.note import Checkpoint, NoteSigner, NoteVerifier, sign_note, verify_note
from secure_embed.audit.posix import PosixLogStorage
from secure_embed.audit.protocol import Head, LogReader, LogStorage
from secure_embed.audit.tiles import parse_tile_path
from secure_embed.audit.view import open_view

__all__ = [
    "AuditEvent",
    "AuditLog",
    "Caller",
    "Checkpoint",
    "EventDecision",
    "Head",
    "LogReader",
    "LogStorage",
    "NoteSigner",
    "NoteVerifier",
    "Phase",
    "PosixLogStorage",
    "collection_label",
    "export_folder",
    "label",
    "leaf_hash",
    "open_view",
    "parse_tile_path",
    "sign_note",
    "verify_consistency",
    "verify_folder",
    "verify_inclusion",
    "verify_note",
    "verify_reader",
]
