"""Builds the model of a verified folder. Imports torch, transformers and sentence-transformers: load it when needed.

No code of a model runs: the modules are this file's, whatever modules.json names; ``trust_remote_code`` is off; pickles
open with ``weights_only``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

from secure_embed.embed.encoder import SentenceTransformerEncoder
from secure_embed.embed.model_manifest import ModelManifest
from secure_embed.embed.tokens import read_tokenizer
from secure_embed.errors import ConfigurationError

__all__ = ["build_encoder"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def build_encoder(
    folder: Path, manifest: ModelManifest, *, device: str, dtype: str, threads: int
) -> SentenceTransformerEncoder:
    """``folder`` holds the manifest's files, verified, and nothing else."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(threads)
    _ensure_device(device)
    transformer, report = AutoModel.from_pretrained(
        str(folder),
        local_files_only=True,
        trust_remote_code=False,
        weights_only=True,
        use_safetensors=any(path.endswith(".safetensors") for path in manifest.files),
        attn_implementation="sdpa",
        dtype=_DTYPES[dtype],
        output_loading_info=True,
    )
    _ensure_complete(report)
    tokenizer = read_tokenizer(folder / "tokenizer.json", tokens_max=manifest.tokens_max)
    if tokenizer.get_vocab_size(with_added_tokens=True) > transformer.config.vocab_size:
        raise ConfigurationError("the tokenizer has more tokens than the model", code="model_unsupported")
    pooling = Pooling(manifest.dimension, pooling_mode=manifest.pooling)
    model = SentenceTransformer(modules=[_TokenVectors(transformer), pooling, Normalize()], device=device)
    return SentenceTransformerEncoder(
        manifest=manifest,
        model=model.eval(),
        tokenizer=tokenizer,
        pad_id=transformer.config.pad_token_id,
        device=device,
    )


class _TokenVectors(torch.nn.Module):
    """The transformer as a module of sentence-transformers. Pooling and length are computed in float32 always."""

    def __init__(self, transformer: torch.nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Adds token_embeddings, (n, t, d) float32."""
        found = self.transformer(input_ids=features["input_ids"], attention_mask=features["attention_mask"])
        return {**features, "token_embeddings": found.last_hidden_state.float()}


def _ensure_device(device: str) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):  # torch asserts that it was built with CUDA
        raise ConfigurationError("the encoder's device is not there", code="device_unavailable") from None


def _ensure_complete(report: Mapping[str, Any]) -> None:
    """transformers fills what the file lacks with random numbers. The pooler's may be missing: it is not used."""
    missing = [key for key in report["missing_keys"] if not key.startswith("pooler.")]
    if missing or report["mismatched_keys"] or report["error_msgs"]:
        raise ConfigurationError("its weights are not those of its architecture", code="model_unsupported")
