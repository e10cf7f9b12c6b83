"""The document, the code and the auditors' checker agree on every vector of tests/vectors/sealing-*.json."""

import base64
import json
import shutil
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from secure_embed.errors import SealedValueUnreadable
from secure_embed.keys import (
    CatalogueKeys,
    CatalogueValue,
    IndexValue,
    Keyring,
    LockedMemory,
    PassphraseProvider,
    Secret,
    TagKind,
    rows_key,
)
from secure_embed.keys.root import Root
from secure_embed.keys.row_tree import Leaf, Owner, RowMacs
from secure_embed.keys.sealing import Place, open_bound
from secure_embed.keys.tags import tag
from secure_embed.keys.wrapping import unwrap_key
from secure_embed.types import Field, Space

root = Path(__file__).parents[3]
folder = root / "tests" / "vectors"
checker = root / "audit" / "check_vectors.py"
fields = {1: Field.VECTOR, 2: Field.TEXT, 3: Field.META}
others = {16: IndexValue.CODEBOOK, 32: CatalogueValue.DESCRIPTOR, 33: CatalogueValue.ERASURE}


def vectors(kind: str) -> list[Any]:
    document = json.loads((folder / f"sealing-{kind}.json").read_text())
    return [pytest.param(v, id=v["name"]) for v in document["vectors"]]


def outcome(attempt: Any) -> tuple[str, bytes]:
    try:
        return "ok", attempt()
    except SealedValueUnreadable as refused:
        return refused.code, b""


@pytest.mark.parametrize("v", vectors("values"))
def test_sealed_values(v: dict[str, Any]) -> None:
    place, number = Place(UUID(v["collection"])), v["field"]
    if number in fields:
        additional = place.record(v["position"], fields[number], bytes.fromhex(v["space"]))
    elif number in {17, 18}:
        additional = place.codes(v["position"], last=number == 18)
    else:
        additional = place.other(others[number])
    found = outcome(lambda: open_bound(bytes.fromhex(v["key"]), bytes.fromhex(v["sealed"]), additional, where="vector"))
    assert found == (v["expect"], bytes.fromhex(v.get("plaintext", "")))
    assert v["expect"] != "ok" or additional.hex() == v["additional_data"]


@pytest.mark.parametrize("v", vectors("wraps"))
def test_wrapped_keys(v: dict[str, Any]) -> None:
    wrapping = bytes.fromhex(v["wrapping_key"])
    found = outcome(lambda: unwrap_key(wrapping, bytes.fromhex(v["wrapped"]), where="vector"))
    assert found == (v["expect"], bytes.fromhex(v.get("key", "")))
    if v["expect"] == "ok":
        assert aes_key_wrap(wrapping, bytes.fromhex(v["key"])).hex() == v["wrapped"]


class KnownRoot(PassphraseProvider):
    """The real provider around the vectors' root key."""

    def __init__(self, key: bytes) -> None:
        super().__init__(bytearray(key), "vectors", (65_536, 3, 4))


@pytest.mark.parametrize("v", vectors("root-wraps"))
def test_keys_wrapped_by_the_root(v: dict[str, Any], tmp_path: Path) -> None:
    provider, wrapped = KnownRoot(bytes.fromhex(v["root"])), bytes.fromhex(v["wrapped"])
    Keyring.create(tmp_path / "own.json", provider)
    document = json.loads((tmp_path / "own.json").read_text())
    if v["kind"] == "secret":
        # The other secrets of a keyring for that deployment, and the vector's in its place.
        document["deployment_id"] = v["deployment"]
        document["secrets"] = {name.value: wrapped_secret(provider, UUID(v["deployment"]), name) for name in Secret}
        document["secrets"][v["secret"]] = base64.b64encode(wrapped).decode()
        (tmp_path / "keyring.json").write_text(json.dumps(document))
        found = outcome(lambda: Keyring.open(tmp_path / "keyring.json", provider).secret(Secret(v["secret"])))
    else:
        found = outcome(
            lambda: Root(provider, UUID(v["deployment"])).unwrap_collection_key(
                wrapped, UUID(v["collection"]), v["version"]
            )
        )
    assert found == (v["expect"], bytes.fromhex(v.get("key", "")))


def wrapped_secret(provider: PassphraseProvider, deployment: UUID, name: Secret) -> str:
    context = b"secure_embed/wrap/v1\x01" + deployment.bytes + name.value.encode()
    return base64.b64encode(provider.wrap(bytes(32), context)).decode()


@pytest.mark.parametrize("v", vectors("tags"))
def test_tags(v: dict[str, Any]) -> None:
    found = tag(bytes.fromhex(v["key"]), TagKind(v["kind"]), *v["parts"]).hex()
    assert (found == v["tag"]) == (v["expect"] == "ok")


@pytest.mark.parametrize("v", vectors("catalogue"))
def test_catalogue_keys(v: dict[str, Any]) -> None:
    keys, uuid = CatalogueKeys(bytes.fromhex(v["secret"])), UUID(int=5)
    sealed = keys.seal(CatalogueValue.DESCRIPTOR, uuid, b"descriptor")
    additional = Place(uuid).other(CatalogueValue.DESCRIPTOR)
    assert open_bound(bytes.fromhex(v["seal_key"]), sealed, additional, where="vector") == b"descriptor"
    expected = tag(bytes.fromhex(v["tag_key"]), TagKind.COLLECTION_NAME, "notes")
    assert keys.tag(TagKind.COLLECTION_NAME, "notes") == expected
    assert rows_key(bytes.fromhex(v["secret"])).hex() == v["rows_key"]


@pytest.mark.parametrize("v", vectors("rows"))
def test_hashes_over_rows(v: dict[str, Any]) -> None:
    macs = RowMacs(v["file"], LockedMemory().hold(bytes.fromhex(v["key"])))
    if v["what"] == "leaf":
        rows = [[bytes.fromhex(c["hex"]) if isinstance(c, dict) else c for c in row] for row in v["rows"]]
        found = macs.leaf(Leaf(Owner(v["table"], v["owner"]), v["block"]), rows)
    elif v["what"] == "table":
        blocks = array("q", [leaf["block"] for leaf in v["leaves"]])
        joined = b"".join(bytes.fromhex(leaf["mac"]) for leaf in v["leaves"])
        found = macs.node(Owner(v["table"], v["owner"]), blocks, joined)
    else:
        tables = [(Owner(table["table"], table["owner"]), bytes.fromhex(table["mac"])) for table in v["tables"]]
        found = macs.top(v["generation"], tables)
    assert (found.hex() == v["mac"]) == (v["expect"] == "ok")


@pytest.mark.parametrize("v", vectors("spaces"))
def test_space_digests(v: dict[str, Any]) -> None:
    members = {name: v[name] for name in ("model", "revision", "manifest_sha256", "pooling", "dimension")}
    assert Space(**members).digest.hex() == v["digest"]


@pytest.mark.parametrize("v", vectors("roots"))
def test_root_files(v: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "root.json").write_text(json.dumps(v["file"]))
    passphrase = tmp_path / "passphrase"
    passphrase.write_bytes(bytes.fromhex(v["passphrase"]))
    passphrase.chmod(0o600)

    def root_opens() -> bytes:
        provider = PassphraseProvider.open(tmp_path / "root.json", passphrase)
        assert KnownRoot(bytes.fromhex(v["root"])).unwrap(provider.wrap(bytes(32), b"c"), b"c") == bytes(32)
        return b"opened"

    assert outcome(root_opens) == (v["expect"], b"opened" if v["expect"] == "ok" else b"")


def test_the_generator_writes_the_vectors_that_are_committed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, folder / "generate_sealing.py", tmp_path], check=True, capture_output=True)
    made = {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}
    assert made == {path.name: path.read_bytes() for path in folder.glob("sealing-*.json")}


def check(where: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, checker, where], capture_output=True, text=True, check=False)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for path in folder.glob("sealing-*.json"):
        shutil.copy(path, tmp_path)
    return tmp_path


def test_the_checker_accepts_the_vectors_and_names_what_it_passes_over(copied: Path) -> None:
    (copied / "log-leaves.json").write_text("not even JSON")
    result = check(copied)
    assert result.returncode == 0, result.stdout
    assert "sealing-values.json: 25 vectors, 16 of them to be refused, 0 failed" in result.stdout
    assert "log-leaves.json: passed over" in result.stdout


@pytest.mark.parametrize("kind", ["values", "wraps", "root-wraps", "tags", "catalogue", "rows", "spaces", "roots"])
def test_the_checker_fails_for_a_vector_that_does_not_hold(kind: str, copied: Path) -> None:
    path = copied / f"sealing-{kind}.json"
    document = json.loads(path.read_text())
    document["vectors"][0]["expect"] = "sealed_value_unreadable"
    path.write_text(json.dumps(document))
    result = check(copied)
    assert result.returncode == 1
    assert f"{path.name}: FAILED {document['vectors'][0]['name']!r}" in result.stdout


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("sealing-unknown.json", '{"format": "secure_embed/vectors/v1", "kind": "unknown", "vectors": []}'),
        ("sealing-tags.json", "{"),
        ("sealing-tags.json", "[]"),
        ("sealing-tags.json", '{"format": "secure_embed/vectors/v1", "kind": "tags", "vectors": [{}]}'),
        ("sealing-tags.json", None),
    ],
)
def test_the_checker_fails_for_a_file_that_it_cannot_check(name: str, content: str | None, copied: Path) -> None:
    (copied / name).unlink(missing_ok=True)
    if content is not None:
        (copied / name).write_text(content)
    result = check(copied)
    assert result.returncode == 1
    assert f"{name}: FAILED" in result.stdout


def test_the_checker_loads_nothing_of_the_service() -> None:
    program = (
        "import runpy, sys; sys.argv[1:] = [sys.argv[2]]\n"
        f"try: runpy.run_path({str(checker)!r}, run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not [name for name in sys.modules if name.startswith('secure_embed')]"
    )
    subprocess.run([sys.executable, "-c", program, "-", folder], check=True, capture_output=True)
