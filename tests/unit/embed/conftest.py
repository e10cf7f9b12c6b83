"""Tiny models for the tests of embed/."""

import os
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from secure_embed.embed import Encoder, ModelManifest, load_encoder, measure_manifest

MakeModel = Callable[..., Path]


def measured(folder: Path) -> ModelManifest:
    return measure_manifest(folder, name="tiny", source="tests/tiny_model.py", revision="1", licence="Apache-2.0")


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    os.environ["HF_HUB_OFFLINE"] = "1"  # the helper imports transformers before load_encoder does
    make: MakeModel = runpy.run_path(str(Path(__file__).parents[2] / "tiny_model.py"))["make_tiny_model"]
    return make


@pytest.fixture(scope="session")
def measure() -> Callable[[Path], ModelManifest]:
    return measured


@pytest.fixture(scope="session")
def tiny(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in bge-m3's layout. Shared: tests must not change it."""
    return make_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_encoder(tiny: Path) -> Encoder:
    return load_encoder(measured(tiny), tiny, threads=1)
