"""Writes the figures of docs/sizing.md from what was measured, between its two marks.

    python benchmarks/search_sizing.py [--results benchmarks/results/search.json] [--print]

What is read is in ``Measured``, what is computed in ``row``; docs/sizing.md says the same in words. How many lists there
are, and on how many vectors they are trained, is asked of the code itself.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from secure_embed.index import sample_for
from secure_embed.index.codebook import lists_for

__all__ = ["Measured", "filled", "row"]

repository = Path(__file__).parents[1]
page = repository / "docs/sizing.md"
begin, end = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"
sizes = (10_000, 100_000, 1_000_000, 10_000_000)
key_bytes, presence_bytes, tag_bytes = 41, 1, 16  # a record: keys/wrapped_table.py, store/_memory.py
float_bytes = 4
mib, gib = 2**20, 2**30


@dataclass(frozen=True, kw_only=True)
class Measured:
    dimension: int
    code_bytes: float  # a record, with positions and attributes
    disk_bytes: float  # a record, texts of 200 characters
    ingest_records_per_s: float
    keys_s: float  # a start's parts, at ``start_records``
    store_s: float
    codes_s: float
    first_answer_s: float
    start_records: int
    p50_ms: tuple[tuple[int, float], tuple[int, float]]  # at two sizes: records, ms

    @classmethod
    def read(cls, search: dict[str, Any], store: dict[str, Any]) -> Self:
        sections = search["sections"]
        parts = {name: each["median"] for name, each in sections["cold"]["warm"]["ours_parts_s"].items()}
        easy, million = (
            (sections[name]["data"]["records"], sections[name]["by_turns"]["ours"]["p50_ms"]["median"])
            for name in ("easy", "million")
        )
        return cls(
            dimension=sections["easy"]["data"]["dimension"],
            code_bytes=sections["memory"]["codes"]["bytes_a_record"],
            disk_bytes=sections["memory"]["disk_bytes_a_record"]["ours"],
            ingest_records_per_s=store["sealed"]["records_per_s"]["median"],
            keys_s=parts["keys"],
            store_s=parts["store"],
            codes_s=parts["codes"],
            first_answer_s=parts["first_answer"],
            start_records=sections["cold"]["data"]["records"],
            p50_ms=(easy, million),
        )


def row(measured: Measured, records: int) -> dict[str, float]:
    """One deployment of so many records in one collection. Bytes, seconds, milliseconds."""
    vector = float_bytes * measured.dimension
    lists = lists_for(records)
    codebook = float_bytes * measured.dimension**2 + 2 * lists * vector  # ours and FAISS' centroids
    codes, keys = records * measured.code_bytes, records * key_bytes
    rows = records * (presence_bytes + tag_bytes)
    (few, few_ms), (many, many_ms) = measured.p50_ms
    slope = max(0.0, (many_ms - few_ms) / (many - few))
    longer = records / measured.start_records
    trained_on = records // max(1, records // sample_for(records))  # every n-th record, n whole
    return {
        "lists": lists,
        "codes": codes,
        "keys": keys,
        "rows": rows,
        "codebook": codebook,
        "memory": codes + keys + rows + codebook,
        "flat": records * vector,
        "disk": records * measured.disk_bytes,
        "start_s": longer * (measured.keys_s + measured.store_s + measured.codes_s) + measured.first_answer_s,
        "p50_ms": few_ms + slope * (records - few) if records > few else few_ms,
        "ingest_s": records / measured.ingest_records_per_s,
        "training": 2 * trained_on * vector,
    }


def filled(text: str, figures: str) -> str:
    """The page with these figures between its marks."""
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    assert found, "docs/sizing.md has lost its first mark"
    assert found_end, "docs/sizing.md has lost its second mark"
    return before + begin + figures + end + after


def figures(measured: Measured) -> str:
    rows = {records: row(measured, records) for records in sizes}
    (few, few_ms), (many, many_ms) = measured.p50_ms
    put_in = (
        f"Put in: {measured.code_bytes:.0f} bytes of codes and {measured.disk_bytes:,.0f} bytes of disk a record; p50 "
        f"{few_ms:.2f} ms at {few:,} and {many_ms:.2f} ms at {many:,}; a start at {measured.start_records:,} "
        f"{1_000 * measured.keys_s:.0f} ms of keys, {1_000 * measured.store_s:.0f} of the store, "
        f"{1_000 * measured.codes_s:.0f} of codes, {1_000 * measured.first_answer_s:.0f} to the first answer; "
        f"{measured.ingest_records_per_s:,.0f} records/s of ingest."
    )
    head = f"| {measured.dimension:,} dimensions | " + " | ".join(f"{records:,}" for records in sizes) + " |"
    lines = [put_in, "", head, "|---|" + "---|" * len(sizes)]
    told: tuple[tuple[str, str, Any], ...] = (
        ("lists", "lists", lambda v: f"{v:,.0f}"),
        ("memory: codes, positions, attributes", "codes", size),
        ("memory: wrapped record keys", "keys", size),
        ("memory: which records are there, tags", "rows", size),
        ("memory: codebook", "codebook", size),
        ("**memory of the collection**", "memory", lambda v: f"**{size(v)}**"),
        ("float32 vectors in memory would be", "flat", size),
        ("**disk**", "disk", lambda v: f"**{size(v)}**"),
        ("**start to first answer**, without the model", "start_s", lambda v: f"**{seconds(v)}**"),
        ("**p50 of a query**, without the model", "p50_ms", lambda v: f"**{v:.1f} ms**"),
        ("ingest, without the model", "ingest_s", seconds),
        ("memory while codes are trained, on top", "training", size),
    )
    for words, name, shown in told:
        lines.append(f"| {words} | " + " | ".join(shown(rows[records][name]) for records in sizes) + " |")
    return "\n".join(lines) + "\n"


def size(value: float) -> str:
    return f"{value / gib:,.1f} GiB" if value >= gib else f"{value / mib:,.1f} MiB"


def seconds(value: float) -> str:
    return f"{value / 60:,.1f} min" if value >= 120 else f"{value:,.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=repository / "benchmarks/results/search.json")
    parser.add_argument("--print", action="store_true", help="show the figures, and leave the page as it is")
    asked = parser.parse_args()
    store = json.loads((repository / "benchmarks/results/store.json").read_text(encoding="utf-8"))
    made = figures(Measured.read(json.loads(asked.results.read_text(encoding="utf-8")), store))
    if asked.print:
        print(made)
    else:
        page.write_text(filled(page.read_text(encoding="utf-8"), made), encoding="utf-8")


if __name__ == "__main__":
    main()
