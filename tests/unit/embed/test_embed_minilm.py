"""all-minilm-l6-v2 as its package carries it: the published model, right vectors."""

import numpy as np
import pytest

from secure_embed.embed import Encoder, embedded_model_folder, load_encoder, manifest, verify_model

pytestmark = pytest.mark.model

SENTENCES = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(manifest("all-minilm-l6-v2"), embedded_model_folder(), threads=1)


def test_the_package_carries_the_published_files() -> None:
    verify_model(embedded_model_folder(), manifest("all-minilm-l6-v2"))


def test_the_space_is_the_manifest(encoder: Encoder) -> None:
    assert encoder.space == manifest("all-minilm-l6-v2").space
    assert (encoder.space.dimension, encoder.tokens_max) == (384, 256)


def test_similarities_are_the_published_ones(encoder: Encoder) -> None:
    """The example of sentence-transformers' own documentation for this model, to its four digits."""
    vectors = encoder.encode_documents(SENTENCES)
    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(vectors @ vectors.T, published, atol=1e-4)


def test_it_equals_sentence_transformers_own_loading(encoder: Encoder) -> None:
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(embedded_model_folder()), device="cpu", local_files_only=True)
    texts = [*SENTENCES, "Der Patient klagt über Herzrasen.", "患者の記録", "", "word " * 400, "a" * 5_000]
    expected = theirs.encode(texts, show_progress_bar=False)
    np.testing.assert_allclose(encoder.encode_documents(texts), expected, atol=1e-5)


def test_a_text_alone_and_in_a_batch_give_one_vector(encoder: Encoder) -> None:
    texts = [("The patient was seen in cardiology. " * n)[: 40 * n] for n in range(1, 41)]
    together = encoder.encode_documents(texts)
    for i in range(0, 40, 8):
        np.testing.assert_allclose(encoder.encode_query(texts[i])[0], together[i], atol=1e-5)
        np.testing.assert_allclose(encoder.encode_documents([texts[i]])[0], together[i], atol=1e-5)


def test_truncated_is_beyond_256_tokens(encoder: Encoder) -> None:
    """Two of them are [CLS] and [SEP]; "word" is one token."""
    assert encoder.truncated(["word " * 255, "word " * 254, "word"]) == [True, False, False]
