"""Tuning a collection: how far its searches go, measured on it. What is answered are means; no record, score or vector."""

from collections.abc import Sequence
from uuid import UUID

import numpy as np

from secure_embed.answers import TuningView
from secure_embed.collection import Asked, Tunings
from secure_embed.embed import Encoder
from secure_embed.errors import InvalidRequest
from secure_embed.risk import normalise_query
from secure_embed.trail import Call
from secure_embed.types import Action, Vectors
from secure_embed.vault.entrance import Entrance, in_space

__all__ = ["CollectionTunings"]

# Fewer would let one text be asked about alone: a mean over twenty different ones says nothing of any of them.
texts_min, texts_max = 20, 200


class CollectionTunings:
    def __init__(self, way: Entrance, tunings: Tunings, *, encoder: Encoder) -> None:
        self._way = way
        self._tunings = tunings
        self._encoder = encoder

    def begin(self, call: Call, name: str, asked: Asked, texts: Sequence[str]) -> TuningView:
        """Begin a tuning; it goes on in the background, and its end stands in the log as well."""
        with self._way.begin(call, Action.COLLECTION_TUNE) as trail:
            self._way.enter(trail, name)
            holding = self._way.holding(trail, name)
            different = _ensure_texts(texts)
            openings = self._tunings.openings(holding.uuid, asked, len(different))
            trail.note(k=asked.k)
            trail.detail(texts=len(different), apply=asked.apply, target_permille=round(1_000 * asked.target))
            trail.intend(openings_max=openings)
            trail.ticket().require(Action.COLLECTION_TUNE, openings=openings)
            if different:
                in_space(holding, self._encoder)
            vectors = self._encoded(different)
            try:
                tuning = self._tunings.begin(holding.uuid, asked, texts=vectors)
            except BaseException:
                vectors.fill(0)
                raise
            trail.detail(tuning=tuning.id)
            receipt = trail.done()
            found, progress = self._tunings.state(holding.uuid, UUID(tuning.id))
            return TuningView(collection=name, tuning=found, progress=progress, receipt=receipt)

    def show(self, call: Call, name: str, identifier: UUID) -> TuningView:
        """How far it is, or what it found. Only the newest one of a collection is kept."""
        with self._way.begin(call, Action.COLLECTION_TUNE) as trail:
            self._way.enter(trail, name)
            found, progress = self._tunings.state(self._way.holdings.collection(name).uuid, identifier)
            return TuningView(collection=name, tuning=found, progress=progress, receipt=trail.done())

    def _encoded(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self._encoder.space.dimension), np.float32)
        for n, text in enumerate(texts):
            vectors[n] = self._encoder.encode_query(text)[0]
        return vectors


def _ensure_texts(texts: Sequence[str]) -> list[str]:
    """Each once, as a query would be normalised. Raises ``InvalidRequest`` (``text_invalid``, ``tuning_invalid``)."""
    different = list(dict.fromkeys(normalise_query(text) for text in texts))
    if "" in different:
        raise InvalidRequest("a query's text is blank", code="text_invalid")
    if texts and not texts_min <= len(different) <= texts_max:
        raise InvalidRequest(
            f"a tuning takes {texts_min} to {texts_max} different texts, or none", code="tuning_invalid"
        )
    return different
