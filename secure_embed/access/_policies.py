"""The policy folder: read, checked in every way we know, hashed. Nothing starts on policies with a finding.

A folder holds ``schema.cedarschema`` and any number of ``*.cedar`` files, each policy with ``@id``, ``@owner`` and
``@rationale``. Sources: Cedar policy language 4; docs/decisions/0007-cedar-and-row-filters.md.
"""

import hashlib
import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secure_embed.access._residual import Untranslatable, ensure_translatable
from secure_embed.errors import ConfigurationError
from secure_embed.types import Action

if TYPE_CHECKING:
    import cedarpy

__all__ = ["RECORD_ACTIONS", "Policies", "load_policies"]

SCHEMA_FILE = "schema.cedarschema"
policy_bytes_max = 1024 * 1024  # the folder's files together
findings_shown_max = 5

RECORD_ACTIONS = frozenset({Action.QUERY, Action.RECORD_READ, Action.RECORD_ERASE, Action.VECTORS_EXPORT})
_OTHER_ACTIONS = frozenset(action.value for action in Action) - RECORD_ACTIONS

_POLICY_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")
_ANNOTATIONS = ("id", "owner", "rationale")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """Parsed once, reused for every decision: parsing for each would cost 15 to 20 times as much (decision 0007)."""

    handle: "cedarpy.PolicySet"
    schema: "cedarpy.Schema"
    digest: str  # hex SHA-256 over names and bytes of the files, in the order of their names


def load_policies(folder: Path) -> Policies:
    """Raises ``ConfigurationError`` (``policies_invalid``) with the first findings in its message."""
    import cedarpy

    files = _read(folder)
    schema_text = files[SCHEMA_FILE].decode()
    text = "\n".join(raw.decode() for name, raw in files.items() if name != SCHEMA_FILE)
    try:
        schema = cedarpy.Schema.from_str(schema_text)
        handle = cedarpy.PolicySet.from_str(text)
        found = cedarpy.validate_policies(text, schema)
        written = json.loads(cedarpy.policies_to_json_str(text))
    except (ValueError, RecursionError) as fault:
        raise _invalid(f"they do not parse: {fault}") from None
    findings = [str(error) for error in found.errors] or ([] if found.validation_passed else ["validation failed"])
    findings += _findings(written)
    if findings:
        raise _invalid("; ".join(findings[:findings_shown_max]))
    return Policies(handle=handle, schema=schema, digest=_digest(files))


def _invalid(what: str) -> ConfigurationError:
    return ConfigurationError(f"the policies are refused: {what}", code="policies_invalid")


def _read(folder: Path) -> dict[str, bytes]:
    try:
        paths = sorted([folder / SCHEMA_FILE, *folder.glob("*.cedar")], key=lambda path: path.name)
        if sum(path.stat().st_size for path in paths) > policy_bytes_max:
            raise _invalid("the files are larger than 1 MiB")
        files = {path.name: path.read_bytes() for path in paths}
        for raw in files.values():
            raw.decode()
    except (OSError, UnicodeDecodeError) as fault:
        raise _invalid(f"a file cannot be read ({type(fault).__name__})") from None
    if len(files) < 2:
        raise _invalid("there is no *.cedar file")
    return files


def _digest(files: dict[str, bytes]) -> str:
    h = hashlib.sha256(b"secure_embed/policies/v1\x00")
    for name, raw in files.items():
        for part in (name.encode(), raw):
            h.update(struct.pack(">Q", len(part)) + part)
    return h.hexdigest()


def _findings(written: dict[str, Any]) -> Iterator[str]:
    """What Cedar's own validation does not ask for: annotations, and that row filters can follow every policy."""
    if written["templates"] or written["templateLinks"]:
        yield "templates are not supported"
    if not written["staticPolicies"]:
        yield "there is no policy"
    ids: set[str] = set()
    for place, policy in written["staticPolicies"].items():
        notes = policy.get("annotations", {})
        name = notes.get("id") or place
        if not all(notes.get(note) for note in _ANNOTATIONS):
            yield f"{name}: @id, @owner and @rationale are needed"
        elif not _POLICY_ID.match(name):
            yield f"{name}: an @id is a-z, 0-9 and '-'"
        if name in ids:
            yield f"{name}: the @id stands twice"
        ids.add(name)
        if _reaches_records(policy["action"]):
            try:
                ensure_translatable(policy)
            except Untranslatable:
                yield f"{name}: a condition on the record cannot become a row filter"


def _reaches_records(scope: dict[str, Any]) -> bool:
    """True unless every action of the scope is known to be about collections or the service."""
    entities = scope.get("entities") or ([scope["entity"]] if "entity" in scope else [])
    return not entities or any(entity["id"] not in _OTHER_ACTIONS for entity in entities)
