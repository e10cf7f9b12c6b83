"""The tamper-evident log: events, Merkle tree, signed checkpoints, receipts, storage. Format: docs/log-format.md.

What may not be in here: who may do what, what a record holds, HTTP. The auditors' verifier (audit/verify) shares no code
with this package.
"""

from secure_embed.audit.check import Verified, end_key, verify_folder, verify_reader
from secure_embed.audit.events import AuditEvent, Caller, EventDecision, Phase, collection_label, label
from secure_embed.audit.export import export_folder
from secure_embed.audit.handover import HandOver, KeySpan, parse_verifiers
from secure_embed.audit.log import AuditLog
from secure_embed.audit.merkle import leaf_hash, verify_consistency, verify_inclusion
from secure_embed.audit.note import Checkpoint, NoteSigner, NoteVerifier, sign_note, verify_note
from secure_embed.audit.posix import PosixLogStorage
from secure_embed.audit.protocol import Head, LogFull, LogReader, LogStorage
from secure_embed.audit.tiles import parse_tile_path
from secure_embed.audit.tree import require_root
from secure_embed.audit.view import open_view

__all__ = [
    "AuditEvent",
    "AuditLog",
    "Caller",
    "Checkpoint",
    "EventDecision",
    "HandOver",
    "Head",
    "KeySpan",
    "LogFull",
    "LogReader",
    "LogStorage",
    "NoteSigner",
    "NoteVerifier",
    "Phase",
    "PosixLogStorage",
    "Verified",
    "collection_label",
    "end_key",
    "export_folder",
    "label",
    "leaf_hash",
    "open_view",
    "parse_tile_path",
    "parse_verifiers",
    "require_root",
    "sign_note",
    "verify_consistency",
    "verify_folder",
    "verify_inclusion",
    "verify_note",
    "verify_reader",
]
