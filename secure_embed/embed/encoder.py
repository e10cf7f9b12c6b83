"""The encoder on sentence-transformers: token ids in, checked unit vectors out. Loading is in ``loading.py``.

Nothing is logged here, and no error carries a text. What may run at once is bounded: one batch of an ingest and a few
queries, so that a query never waits behind a whole ingest. torch is imported when an encoder is used, not before.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import numpy as np

from secure_embed.embed.model_manifest import ModelManifest
from secure_embed.embed.tokens import Tokens, batches, tokenize
from secure_embed.errors import IntegrityFailure, SecureEmbedError, Unavailable
from secure_embed.types import Space, Vectors

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

__all__ = ["SentenceTransformerEncoder"]

batch_texts_max = 64
batch_tokens_max = 4_096  # padded; a longer text goes alone
queries_at_once_max = 2
wait_seconds_max = 300.0

_UNIT_TOLERANCE = 1e-3


class _Model(Protocol):
    """A sentence-transformers model, as far as it is used here."""

    def forward(self, features: dict[str, "torch.Tensor"]) -> Mapping[str, "torch.Tensor"]: ...


class SentenceTransformerEncoder:
    """Implements ``Encoder``. Make one with ``load_encoder``, which verifies the files first."""

    def __init__(
        self, *, manifest: ModelManifest, model: _Model, tokenizer: "Tokenizer", pad_id: int, device: str
    ) -> None:
        """``model`` maps input_ids and attention_mask, (n, t) int64 each, to sentence_embedding, (n, d) float."""
        self._manifest = manifest
        self._space = manifest.space
        self._model = model
        self._tokenizer = tokenizer
        self._pad_id = pad_id
        self._device = device
        self._documents = threading.BoundedSemaphore(1)
        self._queries = threading.BoundedSemaphore(queries_at_once_max)

    @property
    def space(self) -> Space:
        return self._space

    @property
    def tokens_max(self) -> int:
        return self._manifest.tokens_max

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """(n, d) float32, C-contiguous, unit length, in the order given.

        Raises ``InvalidRequest`` (``text_invalid``), ``Unavailable`` (``encoder_busy``), ``SecureEmbedError``
        (``encoder_failed``) when the device gives up, ``IntegrityFailure`` (``encoder_output_invalid``).
        """
        tokens = tokenize(self._tokenizer, texts, prefix=self._manifest.document_prefix)
        vectors = np.empty((len(tokens), self._space.dimension), dtype=np.float32)
        lengths = [len(t.ids) for t in tokens]
        for batch in batches(lengths, tokens_max=batch_tokens_max, texts_max=batch_texts_max):
            with _turn(self._documents):
                vectors[batch] = self._encode([tokens[i] for i in batch])
        return vectors

    def encode_query(self, text: str) -> Vectors:
        """(1, d) float32, C-contiguous, unit length. Raises what ``encode_documents`` raises."""
        tokens = tokenize(self._tokenizer, [text], prefix=self._manifest.query_prefix)
        with _turn(self._queries):
            return self._encode(tokens)

    def truncated(self, texts: Sequence[str]) -> Sequence[bool]:
        """Which of the documents, prefix and special tokens included, are longer than ``tokens_max`` tokens."""
        return [t.truncated for t in tokenize(self._tokenizer, texts, prefix=self._manifest.document_prefix)]

    def _encode(self, batch: Sequence[Tokens]) -> Vectors:
        import torch

        longest = max(len(tokens.ids) for tokens in batch)
        ids = np.full((len(batch), longest), self._pad_id, dtype=np.int64)
        mask = np.zeros((len(batch), longest), dtype=np.int64)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens.ids)] = tokens.ids
            mask[row, : len(tokens.ids)] = 1
        try:
            with torch.inference_mode():
                features = {
                    "input_ids": torch.from_numpy(ids).to(self._device),
                    "attention_mask": torch.from_numpy(mask).to(self._device),
                }
                found = self._model.forward(features)["sentence_embedding"].float().cpu().numpy()
        except RuntimeError as fault:  # out of memory on the device, among others; torch's messages hold shapes only
            raise SecureEmbedError("the encoder's device failed", code="encoder_failed") from fault
        return self._checked(found, len(batch))

    def _checked(self, found: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]", count: int) -> Vectors:
        vectors = np.ascontiguousarray(found, dtype=np.float32)
        if vectors.shape != (count, self._space.dimension):
            raise IntegrityFailure("the encoder gave vectors of a wrong shape", code="encoder_output_invalid")
        # NaN fails the comparison too: what is not near 1 is refused.
        if not bool(np.all(np.abs(np.linalg.norm(vectors, axis=1) - 1) < _UNIT_TOLERANCE)):
            raise IntegrityFailure(
                "the encoder gave vectors that are not of unit length", code="encoder_output_invalid"
            )
        return vectors


@contextmanager
def _turn(semaphore: threading.BoundedSemaphore) -> Iterator[None]:
    if not semaphore.acquire(timeout=wait_seconds_max):
        raise Unavailable("the encoder has too much to do", code="encoder_busy")
    try:
        yield
    finally:
        semaphore.release()
