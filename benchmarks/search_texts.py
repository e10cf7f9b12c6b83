"""Real texts for search.py, and their vectors: sets with judgements in BEIR's layout, and paragraphs of documentation.

The paragraphs are the docstrings of the packages that this project installs: English prose about software, written by
hundreds of people, there without any download. Vectors are kept in build/, since embedding takes most of the time.
"""

import ast
import hashlib
import json
import random
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from secure_embed.embed import Encoder, embedded_model_folder, load_encoder, manifest

__all__ = ["Embedding", "Judged", "judged_sets", "paragraphs"]

Floats = npt.NDArray[np.float32]
repository = Path(__file__).parents[1]
demo_data = repository / "secure_embed/cli/demo/data"
kept = repository / "build/search-texts"
documented = (
    "huggingface_hub",
    "matplotlib",
    "networkx",
    "numpy",
    "scipy",
    "sentence_transformers",
    "sklearn",
    "sympy",
    "torch",
    "transformers",
)
paragraph_characters = range(120, 1_001)
letters_least = 0.85  # of a paragraph's characters: no tables, no code
part_texts = 500  # embedded and kept together


@dataclass(frozen=True, kw_only=True)
class Judged:
    name: str
    ids: Sequence[str]
    texts: Sequence[str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]  # query id -> record id -> grade


def judged_sets(folders: Sequence[Path]) -> list[Judged]:
    """The demo's sets, and one for each file of judgements in the folders."""
    return [one for folder in (*sorted(demo_data.iterdir()), *folders) for one in _judged(folder)]


def _judged(folder: Path) -> Iterator[Judged]:
    corpus, asked = _lines(folder / "corpus.jsonl"), _lines(folder / "queries.jsonl")
    files = sorted((folder / "qrels").glob("*.tsv"))
    assert files, f"{folder} has no qrels/*.tsv"
    for file in files:
        qrels: dict[str, dict[str, int]] = {}
        for line in file.read_text(encoding="utf-8").splitlines()[1:]:
            query, record, grade = line.split("\t")
            qrels.setdefault(query, {})[record] = int(grade)
        yield Judged(
            name=folder.name if len(files) == 1 else f"{folder.name}/{file.stem}",
            ids=[one["_id"] for one in corpus],
            texts=[f"{one.get('title', '')} {one['text']}".strip() for one in corpus],
            queries={one["_id"]: one["text"] for one in asked if one["_id"] in qrels},
            qrels=qrels,
        )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def paragraphs(count: int) -> list[str]:
    """So many of them, in an order that has nothing to do with where they stand; fewer where there are no more."""
    file = kept / "paragraphs.json"
    if not file.exists():
        found = sorted(set(_docstring_paragraphs()))
        random.Random(1).shuffle(found)
        kept.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found), encoding="utf-8")
    every: list[str] = json.loads(file.read_text(encoding="utf-8"))
    return every[:count]


def _docstring_paragraphs() -> Iterator[str]:
    packages = Path(np.__file__).parents[1]
    warnings.simplefilter("ignore", SyntaxWarning)
    for path in (path for name in documented for path in sorted((packages / name).rglob("*.py"))):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                for part in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
                    text = " ".join(part.split())
                    letters = sum(c.isalpha() or c == " " for c in text)
                    if len(text) in paragraph_characters and letters >= letters_least * len(text):
                        yield text


class Embedding:
    """The embedded MiniLM; what it has embedded once is read from build/ the next time."""

    @cached_property
    def encoder(self) -> Encoder:
        return load_encoder(manifest("all-minilm-l6-v2"), embedded_model_folder(), dtype="float32", threads=2)

    def of(self, texts: Sequence[str]) -> Floats:
        """(n, d) float32, unit length."""
        return np.concatenate([self._part(texts[at : at + part_texts]) for at in range(0, len(texts), part_texts)])

    def _part(self, texts: Sequence[str]) -> Floats:
        digest = hashlib.sha256("\0".join(["all-minilm-l6-v2 float32", *texts]).encode()).hexdigest()
        file = kept / f"{digest[:32]}.npy"
        if not file.exists():
            kept.mkdir(parents=True, exist_ok=True)
            np.save(file, self.encoder.encode_documents(texts))
        vectors: Floats = np.load(file)
        return vectors
