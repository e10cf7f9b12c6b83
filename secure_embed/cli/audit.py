"""`secure-embed audit`: the log, read from its files; no key but the public one is needed. Auditors, who do not have to trust
this package, use `audit/verify` instead.
"""

import json
from pathlib import Path

import click

from secure_embed.cli.output import as_json, emit, root_option

__all__ = ["audit"]


@click.group()
def audit() -> None:
    """Verify, show and export the audit log, read from its files."""


@audit.command()
@root_option
@as_json
def verify(root: Path, json_: bool) -> None:
    """Compute the whole tree again from the entries and compare; follow the signing keys from the first on."""
    from secure_embed.audit import parse_verifiers, verify_folder
    from secure_embed.layout import LOG, VERIFIER_KEY

    verified = verify_folder(root / LOG, parse_verifiers((root / VERIFIER_KEY).read_text(encoding="utf-8")))
    head = verified.head
    ends = [head.size if span.end is None else span.end for span in verified.keys]
    keys = [
        {"key": str(span.verifier), "first": span.first, "end": end}
        for span, end in zip(verified.keys, ends, strict=True)
    ]
    lines = [f"{head.size} entries, root {head.root.hex()}: as signed"]
    lines += [
        f"entries {span.first} to {end - 1}: {span.verifier}" for span, end in zip(verified.keys, ends, strict=True)
    ]
    emit({"size": head.size, "root": head.root.hex(), "keys": keys}, json_, lines)


@audit.command()
@root_option
@click.option("--start", default=0, show_default=True, type=click.IntRange(0))
@click.option("--count", default=20, show_default=True, type=click.IntRange(1, 10_000))
@as_json
def show(root: Path, start: int, count: int, json_: bool) -> None:
    """Print events, one JSON object a line; with --json one array."""
    from secure_embed.audit import open_view
    from secure_embed.layout import LOG

    view = open_view(root / LOG)
    there = max(0, min(count, view.head().size - start))
    entries = [entry.decode() for entry in view.entries(start, there)] if there else []
    emit([json.loads(entry) for entry in entries], json_, entries)


@audit.command()
@root_option
@click.option("--to", "folder", required=True, type=click.Path(path_type=Path, file_okay=False), help="A new folder.")
@as_json
def export(root: Path, folder: Path, json_: bool) -> None:
    """Copy the log for an auditor. Of a running service: what was committed when the copy was made."""
    from secure_embed.audit import export_folder
    from secure_embed.layout import LOG

    size = export_folder(root / LOG, folder).size
    emit({"folder": str(folder), "size": size}, json_, [f"{size} entries in {folder}"])
