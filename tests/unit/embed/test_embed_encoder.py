"""The encoder, on a small random model in bge-m3's layout: right vectors, in order, or an error."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_embed.embed import Encoder, ModelManifest, SentenceTransformerEncoder, load_encoder
from secure_embed.embed import encoder as encoder_module
from secure_embed.errors import ConfigurationError, IntegrityFailure, InvalidRequest, SecureEmbedError, Unavailable

Measure = Callable[[Path], ModelManifest]
TEXTS = [
    "the heart",
    "a bank letter",
    "x",
    "the patient claimed the claim " * 3,
    "é ü ﬁ",
    "a bank letter",
    "word " * 80,
]


def altered(m: ModelManifest, **members: object) -> ModelManifest:
    return ModelManifest(**{name: getattr(m, name) for name in m.__dataclass_fields__} | members)


def test_vectors_keep_the_contract(tiny_encoder: Encoder) -> None:
    for vectors, n in ((tiny_encoder.encode_documents(TEXTS), len(TEXTS)), (tiny_encoder.encode_query("x"), 1)):
        assert (vectors.shape, vectors.dtype, vectors.flags.c_contiguous) == ((n, 32), np.float32, True)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_texts_give_no_vectors(tiny_encoder: Encoder) -> None:
    assert tiny_encoder.encode_documents([]).shape == (0, 32)
    assert tiny_encoder.truncated([]) == []


def test_dense_is_the_first_token_normalised(tiny: Path, tiny_encoder: Encoder) -> None:
    """Computed here from the published recipe: CLS of the last hidden state, divided by its length."""
    import torch
    from tokenizers import Tokenizer
    from transformers import XLMRobertaModel

    reference = XLMRobertaModel.from_pretrained(tiny, local_files_only=True).eval()
    tokenizer = Tokenizer.from_file(str(tiny / "tokenizer.json"))
    for text, vector in zip(TEXTS[:6], tiny_encoder.encode_documents(TEXTS[:6]), strict=True):
        with torch.inference_mode():
            hidden = reference(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state
        expected = hidden[0, 0].numpy()
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("weights", ["pickle", "safetensors"])
def test_it_equals_sentence_transformers_own_loading(
    make_model: Callable[..., Path], measure: Measure, tmp_path: Path, pooling: str, weights: str
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = make_model(tmp_path / "model", pooling=pooling, weights=weights)
    ours = load_encoder(measure(folder), folder, threads=1)
    theirs = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    expected = theirs.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(ours.encode_documents(TEXTS), expected, atol=1e-5)


def test_a_text_alone_and_in_a_batch_give_one_vector(tiny_encoder: Encoder) -> None:
    """Padding must not leak in, and the batches' own order must not come out."""
    together = tiny_encoder.encode_documents(TEXTS * 20)
    for i, text in enumerate(TEXTS):
        np.testing.assert_allclose(
            together[i :: len(TEXTS)], np.repeat(tiny_encoder.encode_query(text), 20, 0), atol=1e-5
        )
    distinct = np.unique(np.round(together[: len(TEXTS)], 3), axis=0)
    assert len(distinct) == len(set(TEXTS))


def test_loading_twice_gives_the_same_vectors(tiny: Path, measure: Measure, tiny_encoder: Encoder) -> None:
    again = load_encoder(measure(tiny), tiny, threads=1)
    assert again.space == tiny_encoder.space
    np.testing.assert_array_equal(again.encode_documents(TEXTS), tiny_encoder.encode_documents(TEXTS))


def test_truncated_counts_special_tokens(tiny_encoder: Encoder) -> None:
    """64 tokens at most, two of them special; a letter of this tokenizer is a token, and a blank before it one more."""
    fits, too_long = "x" * 61, "x" * 62
    assert tiny_encoder.truncated([too_long, fits, ""]) == [True, False, False]
    same = tiny_encoder.encode_documents([too_long, too_long + " bank"])
    np.testing.assert_allclose(same[0], same[1], atol=1e-6)


def test_prefixes_are_part_of_the_text(tiny: Path, measure: Measure, tiny_encoder: Encoder) -> None:
    prefixed = load_encoder(altered(measure(tiny), query_prefix="the ", document_prefix="bank "), tiny, threads=1)
    np.testing.assert_allclose(prefixed.encode_query("heart"), tiny_encoder.encode_query("the heart"), atol=1e-6)
    np.testing.assert_allclose(
        prefixed.encode_documents(["letter"]), tiny_encoder.encode_documents(["bank letter"]), atol=1e-6
    )
    assert prefixed.truncated(["x" * 61]) == [True]
    assert prefixed.space != tiny_encoder.space


def test_bfloat16_is_near_and_still_float32_of_unit_length(tiny: Path, measure: Measure, tiny_encoder: Encoder) -> None:
    half = load_encoder(measure(tiny), tiny, dtype="bfloat16", threads=1)
    vectors, exact = half.encode_documents(TEXTS), tiny_encoder.encode_documents(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.sum(vectors * exact, axis=1).min() > 0.98
    assert not np.array_equal(vectors, exact)


def test_threads_share_one_encoder(tiny_encoder: Encoder) -> None:
    expected = tiny_encoder.encode_documents(TEXTS)
    wrong: list[int] = []

    def work(n: int) -> None:
        for _ in range(10):
            documents = tiny_encoder.encode_documents(TEXTS)
            query = tiny_encoder.encode_query(TEXTS[n])
            cut = tiny_encoder.truncated(TEXTS)
            if not np.allclose(documents, expected, atol=1e-5) or not np.allclose(query, expected[[n]], atol=1e-5):
                wrong.append(n)
            if cut != [False] * 6 + [True]:
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_text_that_is_no_unicode_is_refused_without_repeating_it(tiny_encoder: Encoder) -> None:
    for call in (tiny_encoder.encode_documents, tiny_encoder.truncated):
        with pytest.raises(InvalidRequest) as caught:
            call(["fine", "secret \ud800"])
        assert caught.value.code == "text_invalid"
        assert "secret" not in repr(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"device": "cuda:99"}, "device_unavailable"),
        ({"device": "toaster"}, "device_unavailable"),
        ({"dtype": "float16"}, "encoder_settings_invalid"),
        ({"threads": 0}, "encoder_settings_invalid"),
    ],
)
def test_settings_that_cannot_be_are_refused(tiny: Path, measure: Measure, arguments: Any, code: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_encoder(measure(tiny), tiny, **arguments)
    assert caught.value.code == code


def _changed_weights(tiny: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    import torch

    shutil.copytree(tiny, target)
    state = torch.load(target / "pytorch_model.bin", weights_only=True)
    change(state)
    torch.save(state, target / "pytorch_model.bin")
    return target


def test_weights_that_lack_a_part_are_refused(tiny: Path, measure: Measure, tmp_path: Path) -> None:
    """transformers would fill in random numbers and say so in a log line only."""
    folder = _changed_weights(tiny, tmp_path / "own", lambda s: s.pop("encoder.layer.1.output.dense.weight"))
    with pytest.raises(ConfigurationError) as caught:
        load_encoder(measure(folder), folder)
    assert caught.value.code == "model_unsupported"


def test_weights_may_lack_the_pooler_which_is_not_used(
    tiny: Path, measure: Measure, tmp_path: Path, tiny_encoder: Encoder
) -> None:
    def drop(state: dict[str, Any]) -> None:
        del state["pooler.dense.weight"], state["pooler.dense.bias"]

    folder = _changed_weights(tiny, tmp_path / "own", drop)
    encoder = load_encoder(measure(folder), folder, threads=1)
    np.testing.assert_array_equal(encoder.encode_query("the heart"), tiny_encoder.encode_query("the heart"))


def test_weights_that_give_nan_do_not_load(tiny: Path, measure: Measure, tmp_path: Path) -> None:
    folder = _changed_weights(tiny, tmp_path / "own", lambda s: s["embeddings.LayerNorm.weight"].fill_(float("nan")))
    with pytest.raises(IntegrityFailure) as caught:
        load_encoder(measure(folder), folder)
    assert caught.value.code == "encoder_output_invalid"


@pytest.mark.parametrize("file", ["pytorch_model.bin", "tokenizer.json"])
def test_files_that_no_library_can_read_are_one_error(tiny: Path, measure: Measure, tmp_path: Path, file: str) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "own"))
    (folder / file).write_bytes(b"neither weights nor tokens")
    with pytest.raises(IntegrityFailure) as caught:
        load_encoder(measure(folder), folder)
    assert caught.value.code == "model_unloadable"


class _Broken:
    """Stands in for a device that gives up or computes nonsense, which no real model does on request."""

    def __init__(self, answer: Callable[[int], Any]) -> None:
        self._answer = answer

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return {"sentence_embedding": self._answer(len(features["input_ids"]))}


def broken(tiny: Path, m: ModelManifest, answer: Callable[[int], Any]) -> SentenceTransformerEncoder:
    from secure_embed.embed.tokens import read_tokenizer

    tokenizer = read_tokenizer(tiny / "tokenizer.json", tokens_max=m.tokens_max)
    return SentenceTransformerEncoder(manifest=m, model=_Broken(answer), tokenizer=tokenizer, pad_id=1, device="cpu")


@pytest.mark.parametrize("kind", ["nan", "infinite", "zero", "long", "narrow", "few", "flat"])
def test_wrong_output_raises(tiny: Path, measure: Measure, kind: str) -> None:
    import torch

    unit = torch.eye(32)
    answers = {
        "nan": lambda n: torch.full((n, 32), float("nan")),
        "infinite": lambda n: torch.full((n, 32), float("inf")),
        "zero": lambda n: torch.zeros(n, 32),
        "long": lambda n: unit[:n] * 1.01,
        "narrow": lambda n: torch.eye(31)[:n],
        "few": lambda n: unit[: n - 1],
        "flat": lambda n: unit[0],
    }
    encoder = broken(tiny, measure(tiny), answers[kind])
    for call in (lambda: encoder.encode_query("x"), lambda: encoder.encode_documents(["x", "y"])):
        with pytest.raises(IntegrityFailure) as caught:
            call()
        assert caught.value.code == "encoder_output_invalid"


def test_a_failing_device_is_our_error_and_frees_its_turn(tiny: Path, measure: Measure) -> None:
    def fail(_: int) -> None:
        raise RuntimeError("out of memory")

    encoder = broken(tiny, measure(tiny), fail)
    for _ in range(5):  # more often than turns there are
        with pytest.raises(SecureEmbedError) as caught:
            encoder.encode_query("x")
        assert caught.value.code == "encoder_failed"


def test_a_query_does_not_wait_for_an_ingest_and_work_is_bounded(
    tiny: Path, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(encoder_module, "wait_seconds_max", 0.05)
    inside, go_on = threading.Event(), threading.Event()

    def slow(n: int) -> Any:
        if n == 2:  # the ingest
            inside.set()
            assert go_on.wait(30)
        return torch.eye(32)[:n]

    encoder = broken(tiny, measure(tiny), slow)
    ingest = threading.Thread(target=encoder.encode_documents, args=(["x", "y"],))
    ingest.start()
    try:
        assert inside.wait(30)
        assert encoder.encode_query("x").shape == (1, 32)
        with pytest.raises(Unavailable) as caught:
            encoder.encode_documents(["z"])
        assert caught.value.code == "encoder_busy"
    finally:
        go_on.set()
        ingest.join()


def test_the_verified_copy_is_gone_while_the_encoder_works(tiny: Path, measure: Measure, tmp_path: Path) -> None:
    encoder = load_encoder(measure(tiny), tiny, threads=1, scratch=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert encoder.encode_query("x").shape == (1, 32)
    assert os.environ["HF_HUB_OFFLINE"] == "1"
