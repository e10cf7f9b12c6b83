"""The layout of a sentence-transformers folder: which files it has and what their settings ask for.

Only transformer, pooling (mean or CLS) and normalising are built; a folder that asks for anything else is refused,
because its vectors would silently be others than its authors'. Pure reading of JSON; nothing is loaded or imported.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from secure_embed.embed.model_manifest import ModelManifest
from secure_embed.embed.verify import measure_file
from secure_embed.errors import ConfigurationError

__all__ = ["Layout", "ensure_layout", "measure_manifest", "read_layout"]

_KINDS = ("Transformer", "Pooling", "Normalize")
_ARCHITECTURES = ("bert", "xlm-roberta")  # those that the tests here cover
# transformers follows a kernel named in config.json (to a hub, and runs it) even where the caller names another.
_CODE_MEMBERS = ("attn_implementation", "auto_map", "quantization_config")
_POOLINGS = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}  # before sentence-transformers 5
_REQUIRED = ("config.json", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "tokenizer.json")
_OPTIONAL = (
    "colbert_linear.pt",
    "config_sentence_transformers.json",
    "sentencepiece.bpe.model",
    "sparse_linear.pt",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "vocab.txt",
)
_WEIGHTS = (  # the first kind that is there is taken: safetensors before pickles
    re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?\Z"),
    re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin(\.index\.json)?\Z"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the folder's own settings say."""

    pooling: Literal["mean", "cls"]
    dimension: int
    tokens_max: int


def read_layout(folder: Path) -> Layout:
    """Raises ``ConfigurationError`` (``model_unsupported``) for what is not built, and for what names code."""
    modules = _json(folder, "modules.json", list)
    kinds = [str(m.get("type", "")).rpartition(".")[2] if isinstance(m, dict) else "" for m in modules]
    if tuple(kinds) not in (_KINDS, _KINDS[:2]):
        raise _unsupported("its modules are not transformer, pooling and normalising")
    pooling = _json(folder, "1_Pooling/config.json", dict)
    modes = [mode for key, mode in _POOLINGS.items() if pooling.get(key)]
    modes += ["other" for key in pooling if key.startswith("pooling_mode_") and key not in _POOLINGS and pooling[key]]
    mode = pooling.get("pooling_mode", modes[0] if len(modes) == 1 else None)
    if mode not in ("mean", "cls") or not pooling.get("include_prompt", True):
        raise _unsupported("its pooling is neither mean nor CLS")
    sentence = _json(folder, "sentence_bert_config.json", dict)
    if sentence.get("do_lower_case"):
        raise _unsupported("it lower-cases outside its tokenizer")
    config = _json(folder, "config.json", dict)
    if config.get("model_type") not in _ARCHITECTURES:
        raise _unsupported("its architecture is neither BERT nor XLM-RoBERTa")
    if any(member in key for key in config for member in _CODE_MEMBERS):
        raise _unsupported("its config.json asks for code")
    dimension, positions = config.get("hidden_size"), config.get("max_position_embeddings")
    tokens_max = sentence.get("max_seq_length") or _json(folder, "tokenizer_config.json", dict).get("model_max_length")
    if not all(isinstance(n, int) for n in (dimension, positions, tokens_max)) or tokens_max > positions:
        raise _unsupported("its hidden size or longest input is missing or contradictory")
    return Layout(pooling=cast("Literal['mean', 'cls']", mode), dimension=dimension, tokens_max=tokens_max)


def ensure_layout(folder: Path, manifest: ModelManifest) -> None:
    """Raise ``ConfigurationError`` (``model_unsupported``) unless the folder's settings agree with the manifest."""
    layout = read_layout(folder)
    if (layout.pooling, layout.dimension) != (manifest.pooling, manifest.dimension):
        raise _unsupported("its pooling or dimension is not its manifest's")
    if layout.tokens_max < manifest.tokens_max:
        raise _unsupported("its manifest allows more tokens than the model")


def measure_manifest(
    folder: Path,
    *,
    name: str,
    source: str,
    revision: str,
    licence: str,
    query_prefix: str = "",
    document_prefix: str = "",
) -> ModelManifest:
    """A manifest for a model of one's own, from its files as they lie in ``folder`` now: measure a folder you trust.

    Files that no encoder needs are left out. Raises ``IntegrityFailure`` (``model_file_missing``) and
    ``ConfigurationError`` (``model_unsupported``, ``manifest_invalid``).
    """
    layout = read_layout(folder)
    present = sorted(entry.name for entry in folder.iterdir())
    weights = next(filter(None, ([n for n in present if kind.match(n)] for kind in _WEIGHTS)), [])
    if not weights:
        raise _unsupported("it has neither model.safetensors nor pytorch_model.bin")
    paths = [*_REQUIRED, *(n for n in _OPTIONAL if n in present), *weights]
    return ModelManifest(
        name=name,
        source=source,
        revision=revision,
        licence=licence,
        dimension=layout.dimension,
        tokens_max=layout.tokens_max,
        pooling=layout.pooling,
        query_prefix=query_prefix,
        document_prefix=document_prefix,
        files={path: measure_file(folder, path) for path in paths},
    )


def _json(folder: Path, path: str, kind: type) -> Any:
    """A settings file of the model; these are small, tokenizer.json (which is not) is never read here."""
    try:
        value = json.loads((folder / path).read_bytes())
    except (OSError, ValueError, RecursionError):
        raise _unsupported(f"{path} is missing or is not JSON") from None
    if not isinstance(value, kind):
        raise _unsupported(f"{path} has another shape")
    return value


def _unsupported(why: str) -> ConfigurationError:
    return ConfigurationError(f"the model cannot be used: {why}", code="model_unsupported")
