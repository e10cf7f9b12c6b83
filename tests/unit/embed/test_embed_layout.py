"""A folder that asks for what is not built is refused; a folder of one's own gets a manifest."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secure_embed.embed import ModelManifest, verify_model
from secure_embed.embed.layout import ensure_layout, read_layout
from secure_embed.errors import ConfigurationError, IntegrityFailure

Measure = Callable[[Path], ModelManifest]


@pytest.fixture
def own(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "own"))


def change(path: Path, **members: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))


def test_a_measured_folder_verifies(tiny: Path, measure: Measure) -> None:
    m = measure(tiny)
    verify_model(tiny, m)
    assert (m.dimension, m.tokens_max, m.pooling) == (32, 64, "cls")
    assert {"pytorch_model.bin", "sparse_linear.pt", "colbert_linear.pt", "1_Pooling/config.json"} <= m.files.keys()


def test_what_no_encoder_needs_is_left_out(own: Path, measure: Measure) -> None:
    before = measure(own)
    for extra in ("README.md", "modeling_own.py", "adapter_config.json", ".gitattributes"):
        (own / extra).write_text("{}")
    assert measure(own) == before


def test_safetensors_go_before_pickles(own: Path, measure: Measure) -> None:
    (own / "model.safetensors").write_bytes(b"x")
    assert "model.safetensors" in measure(own).files
    assert "pytorch_model.bin" not in measure(own).files


def test_a_folder_without_weights_or_settings_is_refused(own: Path, measure: Measure) -> None:
    (own / "pytorch_model.bin").unlink()
    with pytest.raises(ConfigurationError, match=r"neither model\.safetensors"):
        measure(own)
    (own / "modules.json").unlink()
    with pytest.raises(ConfigurationError, match=r"modules\.json"):
        measure(own)


def test_a_folder_without_its_tokenizer_is_refused(own: Path, measure: Measure) -> None:
    (own / "tokenizer.json").unlink()
    with pytest.raises(IntegrityFailure) as caught:
        measure(own)
    assert caught.value.members == {"file": "tokenizer.json"}


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"embedding_dimension": 32, "pooling_mode": "mean"}, "mean"),
        ({"embedding_dimension": 32, "pooling_mode": "cls", "include_prompt": True}, "cls"),
        ({"pooling_mode_cls_token": True, "pooling_mode_max_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
    ],
)
def test_both_spellings_of_pooling_are_read(own: Path, pooling: dict[str, Any], expected: str) -> None:
    (own / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    assert read_layout(own).pooling == expected


@pytest.mark.parametrize(
    "pooling",
    [
        {},
        {"pooling_mode": "lasttoken"},
        {"pooling_mode": ["cls", "mean"]},
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
        {"pooling_mode_max_tokens": True},
        {"pooling_mode": "mean", "include_prompt": False},
        [],
    ],
)
def test_other_poolings_are_refused(own: Path, pooling: object) -> None:
    (own / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(ConfigurationError) as caught:
        read_layout(own)
    assert caught.value.code == "model_unsupported"


@pytest.mark.parametrize(
    "types",
    [
        [],
        ["sentence_transformers.models.Transformer"],
        ["a.Transformer", "a.Pooling", "a.Dense", "a.Normalize"],
        ["a.Transformer", "a.Normalize", "a.Pooling"],
    ],
)
def test_other_modules_are_refused(own: Path, types: list[str]) -> None:
    (own / "modules.json").write_text(json.dumps([{"path": "", "type": t} for t in types]))
    with pytest.raises(ConfigurationError, match="modules"):
        read_layout(own)


@pytest.mark.parametrize(
    ("file", "members"),
    [
        ("sentence_bert_config.json", {"do_lower_case": True}),
        ("sentence_bert_config.json", {"max_seq_length": 67}),
        ("sentence_bert_config.json", {"max_seq_length": "64"}),
        ("sentence_bert_config.json", {"max_seq_length": None}),  # and tokenizer_config.json says nothing either
        ("config.json", {"hidden_size": None}),
        ("config.json", {"max_position_embeddings": None}),
    ],
)
def test_contradictory_settings_are_refused(own: Path, file: str, members: dict[str, object]) -> None:
    change(own / file, **members)
    with pytest.raises(ConfigurationError) as caught:
        read_layout(own)
    assert caught.value.code == "model_unsupported"


def test_the_longest_input_may_stand_with_the_tokenizer(own: Path) -> None:
    """As sentence-transformers 6 writes it."""
    change(own / "sentence_bert_config.json", max_seq_length=None)
    change(own / "tokenizer_config.json", model_max_length=48)
    assert read_layout(own).tokens_max == 48


@pytest.mark.parametrize("member", [{"pooling": "mean"}, {"dimension": 31}, {"tokens_max": 65}])
def test_a_manifest_that_contradicts_its_folder_is_refused(
    tiny: Path, measure: Measure, member: dict[str, object]
) -> None:
    m = measure(tiny)
    other = ModelManifest(**{name: getattr(m, name) for name in m.__dataclass_fields__} | member)
    with pytest.raises(ConfigurationError) as caught:
        ensure_layout(tiny, other)
    assert caught.value.code == "model_unsupported"
