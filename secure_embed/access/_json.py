"""Strict JSON for what strangers send: one object, no member twice, no NaN, no nesting that exhausts the stack."""

import json
from typing import Any, NoReturn

__all__ = ["parse_object"]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):  # parsers differ in which one counts (RFC 8259 section 4)
        raise ValueError("a member stands twice")
    return members


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def parse_object(raw: bytes) -> dict[str, Any]:
    """The object in ``raw`` (UTF-8). Raises ``ValueError`` without a word of what it holds."""
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ValueError("not strict JSON") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value
