"""Answers on real text: through codes and sealed vectors, beside exact search over the float32 vectors of the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from search_data import exact, overlap
from search_ours import DEPTH, DEPTHS, Ours, open_or_make
from search_sections import K, Sizes
from search_texts import Embedding, Judged, judged_sets, paragraphs

from secure_embed.cli.demo.evaluation import ndcg_at_k, recall_at_k
from secure_embed.index import Effort

__all__ = ["quality"]

Floats = npt.NDArray[np.float32]
held_out = 300  # paragraphs that are asked for by their first words, and not stored
words_of_query = 12


@dataclass(frozen=True)
class Stored:
    """Vectors in a collection of ours and beside it in the plain."""

    ours: Ours
    vectors: Floats

    @classmethod
    def made(cls, folder: Path, vectors: Floats) -> "Stored":
        ours, _ = open_or_make(folder, lambda: iter([vectors]), np.zeros(len(vectors), np.int64))
        return cls(ours, vectors)

    def exact(self, queries: Floats) -> npt.NDArray[np.int64]:
        return exact(iter([self.vectors]), queries, K, {"all": np.ones(len(self.vectors), np.bool_)})["all"]

    def found(self, queries: Floats, depth: int) -> list[npt.NDArray[np.int64]]:
        return [self.ours.search(query, K, effort=Effort(candidates=depth)) for query in queries]


def quality(folders: Sequence[Path], sizes: Sizes, folder: Path) -> dict[str, Any]:
    """Each judged set alone, all of them together among paragraphs that nobody judged, and the paragraphs alone."""
    embedding, sets = Embedding(), judged_sets(folders)
    texts = paragraphs(sizes.paragraphs)
    others = embedding.of(texts)
    results = {one.name: judged(one, embedding, np.zeros((0, others.shape[1]), np.float32), folder) for one in sets}
    among = {one.name: judged(one, embedding, others[held_out:], folder) for one in sets}
    everything = [*results.values(), *among.values()]
    return {
        "model": "all-minilm-l6-v2, float32",
        "candidates": DEPTH,
        "judged": results,
        "judged_among_paragraphs": among,
        "ndcg_at_10_furthest_from_exact": max((one["ndcg_at_10"]["ours_minus_exact"] for one in everything), key=abs),
        "paragraphs": unjudged(texts, others, embedding, folder),
    }


def judged(one: Judged, embedding: Embedding, others: Floats, folder: Path) -> dict[str, Any]:
    """``others``: vectors that are stored too and that no query is judged for."""
    vectors = np.concatenate([embedding.of(one.texts), others])
    queries = embedding.of(list(one.queries.values()))
    name = sha256(vectors.tobytes()).hexdigest()[:16]
    stored = Stored.made(folder / "quality" / name, vectors)
    ids = [*one.ids, *(f"other-{n}" for n in range(len(others)))]
    right, found = stored.exact(queries), stored.found(queries, DEPTH)

    def run(rows: Sequence[npt.NDArray[np.int64]]) -> Mapping[str, list[str]]:
        return {query: [ids[at] for at in row] for query, row in zip(one.queries, rows, strict=True)}

    figures: dict[str, Any] = {"records": len(ids), "queries": len(queries), "lists": stored.ours.codes()["lists"]}
    for measure, of in (("ndcg_at_10", ndcg_at_k), ("recall_at_10", recall_at_k)):
        plain, ours = of(run(list(right)), one.qrels, K), of(run(found), one.qrels, K)
        figures[measure] = {"exact": plain, "ours": ours, "ours_minus_exact": ours - plain}
    stored.ours.close()
    return figures | {"of_the_exact_ten": overlap(found, right)}


def unjudged(texts: Sequence[str], vectors: Floats, embedding: Embedding, folder: Path) -> dict[str, Any]:
    """How much of the exact ten comes back; asked with the first words of paragraphs that are not stored."""
    queries = embedding.of([" ".join(text.split()[:words_of_query]) for text in texts[:held_out]])
    stored = Stored.made(folder / "quality" / f"paragraphs-{len(texts)}", vectors[held_out:])
    right = stored.exact(queries)
    figures = {
        "what": "paragraphs of docstrings of the installed packages; the first twelve words of others as queries",
        "sha256": sha256("\0".join(texts).encode()).hexdigest(),
        "records": len(texts) - held_out,
        "characters_median": float(np.median([len(text) for text in texts])),
        "queries": len(queries),
        "lists": stored.ours.codes()["lists"],
        "of_the_exact_ten": {str(depth): overlap(stored.found(queries, depth), right) for depth in DEPTHS},
    }
    stored.ours.close()
    return figures
