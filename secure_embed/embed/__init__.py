"""embed/: texts to vectors, on this machine, with a model whose every file is known. Light to import: see loading.py.

What may not be in here: records, collections, keys, or any other store's idea. Texts come in, vectors go out.
"""

from secure_embed.embed.encoder import SentenceTransformerEncoder
from secure_embed.embed.layout import measure_manifest
from secure_embed.embed.loading import EncoderDtype, embedded_model_folder, load_encoder
from secure_embed.embed.model_manifest import (
    FileDigest,
    ModelManifest,
    manifest,
    manifests,
    read_manifest,
    write_manifest,
)
from secure_embed.embed.protocol import Encoder
from secure_embed.embed.verify import verify_model

__all__ = [
    "Encoder",
    "EncoderDtype",
    "FileDigest",
    "ModelManifest",
    "SentenceTransformerEncoder",
    "embedded_model_folder",
    "load_encoder",
    "manifest",
    "manifests",
    "measure_manifest",
    "read_manifest",
    "verify_model",
    "write_manifest",
]
