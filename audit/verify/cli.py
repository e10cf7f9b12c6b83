"""The command line. Exit status: 0 intact, 1 tampered, 2 usage or unreadable."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .check import LogCheck, NotALog, Questions, Receipt
from .keys import parse_keys
from .notes import Key, KeyInvalid
from .vectors import check_vectors

INTACT, TAMPERED, UNREADABLE = 0, 1, 2


def _receipt(text: str) -> Receipt:
    index, _, leaf = text.partition(":")
    if not (index.isascii() and index.isdigit()) or len(leaf) != 64:
        raise argparse.ArgumentTypeError("a receipt is INDEX:LEAFHASH, the hash as 64 hex digits")
    try:
        return Receipt(int(index), bytes.fromhex(leaf))
    except ValueError:
        raise argparse.ArgumentTypeError("a receipt is INDEX:LEAFHASH, the hash as 64 hex digits") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="verify",
        description="Check an audit log from its files and the public key alone.",
        epilog="Exit status: 0 intact, 1 tampered, 2 usage or unreadable. Check a copy, an export or a stopped service's log.",
    )
    parser.add_argument("log", nargs="?", type=Path, metavar="LOGDIR", help="folder with checkpoint, tile/ and journal")
    parser.add_argument(
        "--key",
        metavar="VKEY_OR_FILE",
        help="the log's first verifier key, name+hash+base64, or a file with it; later ones may follow, a line each",
    )
    parser.add_argument("--receipt", action="append", default=[], type=_receipt, metavar="INDEX:LEAFHASH")
    parser.add_argument(
        "--earlier", action="append", default=[], type=Path, metavar="FILE", help="checkpoint kept earlier"
    )
    parser.add_argument("--erasure-receipt", action="append", default=[], type=Path, metavar="FILE")
    parser.add_argument(
        "--journal", action="store_true", help="there must be a journal (where there is one, it is checked)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--vectors", type=Path, metavar="DIR", help="check this program against log-*.json, and no log")
    return parser


def main(arguments: Sequence[str]) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.vectors is not None:
        return _vectors(options.vectors)
    if options.log is None or options.key is None:
        parser.error("LOGDIR and --key are needed")
    try:
        keys = _keys(options.key)
        questions = Questions(
            receipts=options.receipt,
            earlier=[_text(path) for path in options.earlier],
            erasure_receipts=[_text(path) for path in options.erasure_receipt],
            journal_required=options.journal,
        )
        report = LogCheck(options.log, keys, questions).run()
    except (KeyInvalid, NotALog, OSError) as fault:
        print(f"cannot check: {fault}", file=sys.stderr)
        return UNREADABLE
    print(json.dumps(report.as_json(), indent=1) if options.json else report.as_text())
    return INTACT if report.intact else TAMPERED


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")


def _keys(given: str) -> list[Key]:
    """A key string, or the keys in a file, one a line."""
    try:
        return [Key.parse(given)]
    except KeyInvalid:
        path = Path(given)
        if "\0" in given or not path.is_file():
            raise KeyInvalid("--key is neither a verifier key nor a file with one") from None
    return parse_keys(_text(path))


def _vectors(folder: Path) -> int:
    try:
        faults, count = check_vectors(folder)
    except (OSError, ValueError, KeyError) as error:
        print(f"cannot check: {error}", file=sys.stderr)
        return UNREADABLE
    for fault in faults:
        print(f"WRONG     {fault}")
    print(f"Vectors   {count - len(faults):,} of {count:,} as expected")
    return INTACT if count and not faults else TAMPERED
