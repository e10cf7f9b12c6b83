"""`secure-embed collection|ingest|query`: the commands that work on a running service, over HTTP."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import click

from secure_embed.cli.client import Client, client_options
from secure_embed.cli.output import as_json, emit
from secure_embed.cli.tuning import tune
from secure_embed.errors import InvalidRequest

__all__ = ["collection", "ingest", "query"]

_collection_option = click.option("--collection", "-C", "name", required=True, help="The collection's name.")


@click.group()
def collection() -> None:
    """Create, list, show and tune collections."""


collection.add_command(tune)


@collection.command("create")
@click.argument("name")
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="NAME:TYPE",
    help="An attribute that filters and policies may use; TYPE is string, long or bool. May stand several times.",
)
@click.option(
    "--bits",
    type=click.IntRange(1, 4),
    help="Of each dimension in the codes. Default: 1 from 128 dimensions on, 2 below.",
)
@client_options
@as_json
def create_collection(client: Client, name: str, attributes: tuple[str, ...], bits: int | None, json_: bool) -> None:
    """Create a collection in the embedding space of the loaded model."""
    declared = dict(a.partition(":")[::2] for a in attributes)
    asked = {"name": name, "attributes": declared} | ({} if bits is None else {"bits": bits})
    made = client.call("POST", "/v1/collections", asked).value()
    emit(made, json_, [f"{made['name']}: {made['model']}, {made['dimension']} dimensions"])


@collection.command("list")
@client_options
@as_json
def list_collections(client: Client, json_: bool) -> None:
    """List the collections that you may read."""
    listed = client.call("GET", "/v1/collections").value()
    emit(listed, json_, [_line(c) for c in listed["collections"]])


@collection.command("show")
@click.argument("name")
@client_options
@as_json
def show_collection(client: Client, name: str, json_: bool) -> None:
    """Describe a collection."""
    shown = client.call("GET", f"/v1/collections/{quote(name, safe='')}").value()
    emit(
        shown,
        json_,
        [_line(shown), *_searched(shown), *(f"  {name}: {kind}" for name, kind in shown["attributes"].items())],
    )


def _searched(shown: dict[str, Any]) -> list[str]:
    """How far its searches go, and since when."""
    effort, tuned = shown["effort"], shown["tuned"]
    line = f"  codes of {shown['bits']} bits a dimension, up to {effort['candidates']} candidates opened"
    if tuned is None:
        return [line + ", never tuned"]
    records = "" if tuned["records"] is None else f" with {tuned['records']} records"
    return [
        line,
        f"  tuned {tuned['at']}{records}: recall@{tuned['k']} {tuned['recall']:.3f}, target {tuned['target']:g}",
    ]


def _line(shown: dict[str, Any]) -> str:
    records = "" if shown["records"] is None else f", {shown['records']} records"
    return (
        f"{shown['name']}: {shown['model']}, {shown['dimension']} dimensions{records}, profile {shown['risk_profile']}"
    )


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_collection_option
@click.option("--batch", default=200, show_default=True, type=click.IntRange(1, 1_000), help="Records in one request.")
@client_options
@as_json
def ingest(client: Client, file: Path, name: str, batch: int, json_: bool) -> None:
    """Ingest records from FILE, a JSON object on each line: id, text, subject, attributes, metadata, expires_at."""
    from rich.console import Console
    from rich.progress import track

    batches = list(_batches(file, batch))
    run = uuid4().hex  # so that a batch that is sent again after a lost answer is written once
    path = f"/v1/collections/{quote(name, safe='')}/records"
    total = truncated = 0
    for number, records in enumerate(
        track(batches, description="ingesting", console=Console(stderr=True), disable=json_ or not sys.stderr.isatty())
    ):
        answer = client.call("POST", path, {"records": records}, {"Idempotency-Key": f"{run}-{number}"}).value()
        total += answer["records"]
        truncated += answer["truncated"]
    lines = [f"{total} records ingested into {name}"]
    if truncated:
        lines.append(f"{truncated} texts were longer than the model reads")
    emit({"collection": name, "records": total, "truncated": truncated, "batches": len(batches)}, json_, lines)


def _batches(file: Path, size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    with file.open() as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                batch.append(json.loads(line))
            except ValueError:
                raise InvalidRequest(f"line {number} is not JSON", code="malformed_json") from None
            if len(batch) == size:
                yield batch
                batch = []
    if batch:
        yield batch


@click.command()
@click.argument("text")
@_collection_option
@click.option("-k", default=10, show_default=True, type=click.IntRange(1), help="How many records.")
@click.option("--text/--no-text", "include_text", default=False, help="Show texts (needs the scope records:read).")
@client_options
@as_json
def query(client: Client, text: str, name: str, k: int, include_text: bool, json_: bool) -> None:
    """Search a collection with TEXT ('-': read it from standard input, so that no process listing shows it)."""
    asked = {"text": sys.stdin.read() if text == "-" else text, "k": k, "include_text": include_text}
    found = client.call("POST", f"/v1/collections/{quote(name, safe='')}/query", asked).value()
    lines = []
    for hit in found["hits"]:
        score = "     " if hit["score"] is None else f"{hit['score']:.2f} "
        lines.append(f"{hit['rank']:>2}. {score} {hit['id']}" + (f"\n    {hit['text']}" if hit["text"] else ""))
    if found["limited"]:
        lines.append("(limited by the risk profile)")
    emit(found, json_, lines)
