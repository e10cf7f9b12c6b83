"""A model of bge-m3's architecture and file layout, small and random: XLM-RoBERTa, CLS pooling, pickled weights.

Seeded, so that the same arguments give the same vectors. Made on the spot: nothing is downloaded.
"""

import json
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import XLMRobertaConfig, XLMRobertaModel

DIMENSION = 32
TOKENS_MAX = 64
_SPECIAL = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
_PIECES = ["▁the", "▁patient", "▁claim", "▁heart", "▁bank", "▁letter", "ing", "ed", "s", "▁", "é", "ü"]


def make_tiny_model(
    folder: Path,
    *,
    seed: int = 7,
    weights: Literal["pickle", "safetensors"] = "pickle",
    pooling: Literal["mean", "cls"] = "cls",
) -> Path:
    """Write the model's files into ``folder``, which is made; returns it."""
    (folder / "1_Pooling").mkdir(parents=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=DIMENSION,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=TOKENS_MAX + 2,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        initializer_range=0.5,  # random vectors that differ from text to text
    )
    write_json(folder / "config.json", {**config.to_dict(), "architectures": ["XLMRobertaModel"]})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = {name: value.contiguous() for name, value in XLMRobertaModel(config).state_dict().items()}
        sparse, colbert = torch.nn.Linear(DIMENSION, 1), torch.nn.Linear(DIMENSION, DIMENSION)
    if weights == "pickle":
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    torch.save(sparse.state_dict(), folder / "sparse_linear.pt")
    torch.save(colbert.state_dict(), folder / "colbert_linear.pt")
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    write_json(folder / "modules.json", listed)
    modes = {f"pooling_mode_{mode}_token{'s' if mode != 'cls' else ''}": mode == pooling for mode in ("cls", "mean")}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": DIMENSION, **modes})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": TOKENS_MAX, "do_lower_case": False})
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **_NAMES})
    write_json(folder / "special_tokens_map.json", _NAMES)
    return folder


_NAMES = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def _tokenizer() -> Tokenizer:
    letters = [(chr(code), -6.0) for code in range(ord("!"), ord("~") + 1)]
    pieces = [(piece, -2.0 - i / 10) for i, piece in enumerate(_PIECES)]
    tokenizer = Tokenizer(models.Unigram([*_SPECIAL, *pieces, *letters], unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens([name for name, _ in _SPECIAL])
    return tokenizer
