"""The demo's corpus: two collections of invented records, with queries and who answers them, in BEIR's file layout.

``load`` reads what is bundled in data/; ``python -m secure_embed.cli.demo.corpus --out DIR`` makes the same files
anew, byte for byte. Why it is made so, and what it is not good for: docs/decisions/0010-demo-corpus.md.

Layout (Thakur et al., BEIR, 2021): COLLECTION/corpus.jsonl, COLLECTION/queries.jsonl, COLLECTION/qrels/test.tsv.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType

from secure_embed.cli.demo._generator import SEED, SIZE, generate, plans
from secure_embed.errors import IntegrityFailure
from secure_embed.types import Attributes

__all__ = ["COLLECTIONS", "Corpus", "DemoRecord", "load", "write"]

COLLECTIONS: tuple[str, ...] = tuple(plans)
qrels_header = "query-id\tcorpus-id\tscore"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRecord:
    """An invented record. ``subject`` is the invented person's number, ``person`` the name that the text carries."""

    id: str
    text: str = field(repr=False)
    subject: str = field(repr=False)
    person: str = field(repr=False)
    attributes: Attributes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """One collection.

    ``queries``: query id -> text. ``qrels``: query id -> record id -> grade (1 answers, 2 answers in the setting that
    the query names); what is not listed does not answer.
    """

    name: str
    records: tuple[DemoRecord, ...] = field(repr=False)
    queries: Mapping[str, str] = field(repr=False)
    qrels: Mapping[str, Mapping[str, int]] = field(repr=False)


def load(collection: str, *, root: Path | None = None) -> Corpus:
    """The bundled collection of that name, or the one under ``root`` as :func:`write` left it.

    Raises ``IntegrityFailure`` (``corpus_damaged``) for files that are missing, malformed or do not fit together.
    """
    source: Traversable = root if root is not None else resources.files("secure_embed.cli.demo") / "data"
    try:
        corpus = _read(collection, source / collection)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityFailure("the demo's corpus cannot be read", code="corpus_damaged") from error
    _validate(corpus)
    return corpus


def write(out: Path, *, records: int = SIZE, seed: int = SEED) -> None:
    """Make both collections under ``out``, ``records`` records each (``SIZE`` or more). Files that are there are replaced."""
    for name, plan in plans.items():
        made = generate(plan, records=records, seed=seed)
        folder = out / name
        (folder / "qrels").mkdir(parents=True, exist_ok=True)
        (folder / "corpus.jsonl").write_bytes(_lines(made.corpus))
        (folder / "queries.jsonl").write_bytes(_lines(made.queries))
        rows = [qrels_header, *(f"{query}\t{record}\t{grade}" for query, record, grade in made.qrels)]
        (folder / "qrels" / "test.tsv").write_bytes(("\n".join(rows) + "\n").encode())


def _lines(objects: Sequence[Mapping[str, object]]) -> bytes:
    return "".join(json.dumps(o, ensure_ascii=False) + "\n" for o in objects).encode()


def _read(collection: str, folder: Traversable) -> Corpus:
    # Not splitlines: it would also break at characters that JSON lets stand in a string.
    records = (json.loads(line) for line in _text(folder / "corpus.jsonl"))
    queries = (json.loads(line) for line in _text(folder / "queries.jsonl"))
    header, *judged = _text(folder / "qrels" / "test.tsv")
    if header != qrels_header:
        raise ValueError(header)
    qrels: dict[str, dict[str, int]] = {}
    for row in judged:
        query, record, grade = row.split("\t")
        qrels.setdefault(query, {})[record] = int(grade)
    return Corpus(
        name=collection,
        records=tuple(
            DemoRecord(
                id=raw["_id"],
                text=raw["text"],
                subject=raw["metadata"]["subject"],
                person=raw["metadata"]["person"],
                attributes=MappingProxyType(raw["metadata"]["attributes"]),
            )
            for raw in records
        ),
        queries=MappingProxyType({raw["_id"]: raw["text"] for raw in queries}),
        qrels=MappingProxyType({query: MappingProxyType(grades) for query, grades in qrels.items()}),
    )


def _text(file: Traversable) -> list[str]:
    return file.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def _validate(corpus: Corpus) -> None:
    ids = {record.id for record in corpus.records}
    judged = {record for grades in corpus.qrels.values() for record in grades}
    sound = (
        len(ids) == len(corpus.records) > 0
        and set(corpus.queries) == set(corpus.qrels)
        and judged <= ids
        and all(grade > 0 for grades in corpus.qrels.values() for grade in grades.values())
        and all(record.subject and record.person in record.text for record in corpus.records)
    )
    if not sound:
        raise IntegrityFailure("the demo's corpus does not fit together", code="corpus_damaged")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m secure_embed.cli.demo.corpus", description="make the demo's corpus"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder that the two collections go into")
    parser.add_argument("--records", type=int, default=SIZE, help=f"records in each collection (default {SIZE})")
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    if given.records < SIZE:
        parser.error(f"a collection has at least {SIZE} records")
    write(given.out, records=given.records, seed=given.seed)


if __name__ == "__main__":
    main()
