"""Writes the figures of docs/sizing.md from what was measured, between its two marks.

    python benchmarks/search_sizing.py [--results benchmarks/results/search.json] [--print]

What is read is in ``Measured``, what is computed in ``row``; docs/sizing.md says the same in words. How many lists there
are, and on how many vectors they are trained, is asked of the code itself.
"""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from secure_embed.collection.figures import sample_sizes, training_bytes
from secure_embed.index import lists_for

__all__ = ["Measured", "Start", "filled", "row"]

repository = Path(__file__).parents[1]
page = repository / "docs/sizing.md"
begin, end = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"
sizes = (10_000, 100_000, 1_000_000, 10_000_000)
key_bytes, presence_bytes, tag_bytes = 41, 33, 16  # a record: keys/wrapped_table.py, store/_memory.py
float_bytes = 4
mib, gib = 2**20, 2**30
later = "not measured yet"


@dataclass(frozen=True, kw_only=True)
class Start:
    """A start's parts in seconds, at ``records``."""

    records: int
    keys_s: float
    store_s: float
    codes_s: float
    first_answer_s: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    dimension: int
    code_bytes: float  # a record, with positions and attributes
    disk_bytes: float  # a record, texts of 200 characters
    ingest_records_per_s: float
    start: Start | None  # None: not measured yet
    p50_ms: tuple[tuple[int, float], tuple[int, float]] | None  # at two sizes: records, ms

    @classmethod
    def read(cls, search: dict[str, Any], store: dict[str, Any]) -> Self:
        sections = search["sections"]
        start = p50 = None
        if "cold" in sections:
            parts = {f"{name}_s": each["median"] for name, each in sections["cold"]["warm"]["ours_parts_s"].items()}
            start = Start(records=sections["cold"]["data"]["records"], **parts)
        if "easy" in sections and "million" in sections:
            few, many = (
                (sections[name]["data"]["records"], sections[name]["by_turns"]["ours"]["p50_ms"]["median"])
                for name in ("easy", "million")
            )
            p50 = (few, many)
        return cls(
            dimension=sections["memory"]["data"]["dimension"],
            code_bytes=sections["memory"]["codes"]["bytes_a_record"],
            disk_bytes=sections["memory"]["disk_bytes_a_record"]["ours"],
            ingest_records_per_s=store["sealed"]["records_per_s"]["median"],
            start=start,
            p50_ms=p50,
        )


def row(measured: Measured, records: int) -> dict[str, float]:
    """One deployment of so many records in one collection. Bytes, seconds, milliseconds; NaN: not measured yet."""
    vector = float_bytes * measured.dimension
    lists, samples = lists_for(records), sample_sizes(records, measured.dimension)
    codebook = (float_bytes + 1) * measured.dimension * (measured.dimension + lists)  # and once more as bytes
    codes, keys = records * measured.code_bytes, records * key_bytes
    rows = records * (presence_bytes + tag_bytes)
    return {
        "lists": lists,
        "codes": codes,
        "keys": keys,
        "rows": rows,
        "codebook": codebook,
        "memory": codes + keys + rows + codebook,
        "flat": records * vector,
        "disk": records * measured.disk_bytes,
        "start_s": start_s(measured.start, records),
        "p50_ms": p50_ms(measured.p50_ms, records),
        "ingest_s": records / measured.ingest_records_per_s,
        "training": training_bytes(samples[0], measured.dimension, lists=lists),
        "training_least": training_bytes(samples[-1], measured.dimension, lists=lists),
    }


def start_s(start: Start | None, records: int) -> float:
    if start is None:
        return math.nan
    return records / start.records * (start.keys_s + start.store_s + start.codes_s) + start.first_answer_s


def p50_ms(measured: tuple[tuple[int, float], tuple[int, float]] | None, records: int) -> float:
    """A line through two sizes; below the smaller one its own time."""
    if measured is None:
        return math.nan
    (few, few_ms), (many, many_ms) = measured
    slope = max(0.0, (many_ms - few_ms) / (many - few))
    return few_ms + slope * max(0, records - few)


def filled(text: str, figures: str) -> str:
    """The page with these figures between its marks."""
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    assert found, "docs/sizing.md has lost its first mark"
    assert found_end, "docs/sizing.md has lost its second mark"
    return before + begin + figures + end + after


def figures(measured: Measured) -> str:
    rows = {records: row(measured, records) for records in sizes}
    put_in = [
        f"{measured.code_bytes:.0f} bytes of codes and {measured.disk_bytes:,.0f} bytes of disk a record",
        f"{measured.ingest_records_per_s:,.0f} records/s of ingest",
    ]
    if measured.p50_ms is not None:
        put_in += [f"p50 {ms:.2f} ms at {records:,}" for records, ms in measured.p50_ms]
    if (start := measured.start) is not None:
        parts = {"keys": start.keys_s, "the store": start.store_s, "codes": start.codes_s}
        parts["the first answer"] = start.first_answer_s
        told_parts = ", ".join(f"{1_000 * taken:.0f} ms for {name}" for name, taken in parts.items())
        put_in += [f"a start at {start.records:,}: {told_parts}"]
    head = f"| {measured.dimension:,} dimensions | " + " | ".join(f"{records:,}" for records in sizes) + " |"
    lines = [f"Put in: {'; '.join(put_in)}.", "", head, "|---|" + "---|" * len(sizes)]
    told: tuple[tuple[str, str, Any], ...] = (
        ("lists", "lists", lambda v: f"{v:,.0f}"),
        ("memory: codes, positions, attributes", "codes", size),
        ("memory: wrapped record keys", "keys", size),
        ("memory: which records are there, tags", "rows", size),
        ("memory: codebook", "codebook", size),
        ("**memory of the collection**", "memory", lambda v: f"**{size(v)}**"),
        ("float32 vectors in memory would be", "flat", size),
        ("**disk**", "disk", lambda v: f"**{size(v)}**"),
        (
            "**start to first answer**, without the model",
            "start_s",
            lambda v: f"**{seconds(v)}**" if not math.isnan(v) else later,
        ),
        (
            "**p50 of a query**, without the model",
            "p50_ms",
            lambda v: f"**{v:.1f} ms**" if not math.isnan(v) else later,
        ),
        ("ingest, without the model", "ingest_s", seconds),
        ("memory while codes are trained, on top", "training", size),
        ("the same where there is no room for that", "training_least", size),
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
