"""A model's folder as an attack: code in pickles, files put beside the weights, configurations that name code or hubs.

Each model here passes its manifest's digests, unless a test says otherwise: what is tried is what remains when someone
hands in a bad model together with a manifest that fits it.
"""

import io
import json
import os
import pickle
import runpy
import shutil
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_embed.embed import ModelManifest, load_encoder, measure_manifest, write_manifest
from secure_embed.embed.verify import measure_file
from secure_embed.errors import ConfigurationError, IntegrityFailure


def measured(folder: Path) -> ModelManifest:
    return measure_manifest(folder, name="tiny", source="tests", revision="1", licence="MIT")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["HF_HUB_OFFLINE"] = "1"
    make = runpy.run_path(str(Path(__file__).parents[1] / "tiny_model.py"))["make_tiny_model"]
    folder: Path = make(tmp_path_factory.mktemp("made") / "model")
    return folder


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "own"))


class _Touch:
    """Unpickling this makes a file: the mark that code ran."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.mkdir, (str(self.mark),))


def _bare(path: Path, payload: object) -> None:
    path.write_bytes(pickle.dumps({"weights": payload}, protocol=2))


def _in_torch_zip(path: Path, payload: object) -> None:
    """As torch.save writes it, with the payload beside the real weights."""
    import torch

    state = torch.load(path, weights_only=True)
    torch.save({**state, "extra": payload}, path)


def _in_replaced_zip_member(path: Path, payload: object) -> None:
    import torch

    torch.save({}, path)
    source = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for member in source.namelist():
            raw = pickle.dumps(payload, protocol=2) if member.endswith("data.pkl") else source.read(member)
            target.writestr(member, raw)


@pytest.mark.parametrize("plant", [_bare, _in_torch_zip, _in_replaced_zip_member])
def test_code_in_pickled_weights_does_not_run(
    own: Path, tmp_path: Path, plant: Callable[[Path, object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the environment asks torch to open pickles without care."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    mark = tmp_path / "ran"
    plant(own / "pytorch_model.bin", _Touch(mark))
    with pytest.raises(IntegrityFailure) as caught:
        load_encoder(measured(own), own)
    assert caught.value.code == "model_unloadable"
    assert isinstance(caught.value.__cause__, pickle.UnpicklingError)  # refused as a pickle, not for another reason
    assert not mark.exists()


def test_the_planted_pickle_would_have_run(tmp_path: Path) -> None:
    """The attack is real: an open unpickler runs it."""
    _bare(tmp_path / "w.bin", _Touch(tmp_path / "ran"))
    pickle.loads((tmp_path / "w.bin").read_bytes())
    assert (tmp_path / "ran").exists()


def test_files_that_the_manifest_does_not_name_have_no_influence(own: Path, made: Path, tmp_path: Path) -> None:
    """Each of these would be taken by the libraries if it lay in the folder they read."""
    from safetensors.torch import save_file

    m = measured(own)
    expected = load_encoder(m, made).encode_query("the heart")
    import torch

    state = torch.load(own / "pytorch_model.bin", weights_only=True)
    save_file({k: torch.zeros_like(v) for k, v in state.items()}, own / "model.safetensors", metadata={"format": "pt"})
    (own / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x/y"}))
    (own / "modeling_own.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})")
    (own / "added_tokens.json").write_text(json.dumps({"the": 5}))
    (own / "2_Normalize").mkdir()
    (own / "2_Normalize" / "config.json").write_text("{}")
    np.testing.assert_array_equal(load_encoder(m, own).encode_query("the heart"), expected)
    assert not (tmp_path / "ran").exists()


def test_weights_rewritten_after_loading_do_not_reach_the_encoder(own: Path) -> None:
    """The libraries keep weights mapped; had they mapped the folder's file, this would change the vectors."""
    encoder = load_encoder(measured(own), own)
    before = encoder.encode_query("the heart")
    size = (own / "pytorch_model.bin").stat().st_size
    with (own / "pytorch_model.bin").open("r+b") as file:
        file.write(b"\0" * size)
    np.testing.assert_array_equal(encoder.encode_query("the heart"), before)


def _edit(path: Path, **members: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))


@pytest.mark.parametrize(
    "members",
    [
        {"auto_map": {"AutoModel": "modeling_own.Own", "AutoConfig": "configuration_own.Own"}},
        {"auto_map": {"AutoModel": "modeling_own.Own"}, "model_type": "own"},
        {"auto_map": {"AutoModel": "someone/repository--modeling_own.Own"}},
        {"_attn_implementation": "someone/kernel"},  # transformers fetches it from a hub and runs it
        {"attn_implementation": "someone/kernel"},
        {"_attn_implementation_internal": "someone/kernel"},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"model_type": "timm_wrapper"},
        {"model_type": ["bert"]},
    ],
)
def test_a_configuration_that_names_code_is_refused(own: Path, made: Path, tmp_path: Path, members: Any) -> None:
    """When it is measured, and when someone else has measured it."""
    for name in ("modeling_own.py", "configuration_own.py"):
        (own / name).write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})\n")
    before = measured(made)
    _edit(own / "config.json", **members)
    with pytest.raises(ConfigurationError) as caught:
        measured(own)
    assert caught.value.code == "model_unsupported"
    files = {**before.files, "config.json": measure_file(own, "config.json")}
    forged = ModelManifest(**{n: getattr(before, n) for n in before.__dataclass_fields__} | {"files": files})
    with pytest.raises(ConfigurationError) as caught:
        load_encoder(forged, own)
    assert caught.value.code == "model_unsupported"
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_class_is_not_imported(own: Path, made: Path, tmp_path: Path) -> None:
    (own / "tokenization_own.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})\n")
    _edit(own / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_own.Own", None]})
    vector = load_encoder(measured(own), own).encode_query("x")
    np.testing.assert_array_equal(vector, load_encoder(measured(made), made).encode_query("x"))
    assert not (tmp_path / "ran").exists()


def test_a_class_named_in_modules_json_is_not_imported(
    own: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even one that lies on Python's path."""
    (tmp_path / "hostile_package.py").write_text(
        f"import os; os.mkdir({str(tmp_path / 'ran')!r})\nTransformer = dict\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    modules = json.loads((own / "modules.json").read_text())
    modules[0]["type"] = "hostile_package.Transformer"
    (own / "modules.json").write_text(json.dumps(modules))
    vector = load_encoder(measured(own), own).encode_query("x")
    np.testing.assert_array_equal(vector, load_encoder(measured(made), made).encode_query("x"))
    assert not (tmp_path / "ran").exists()


_CHILD = """
    import socket, sys
    from pathlib import Path

    tried = []

    def refuse(self, address, *rest):
        if self.family != socket.AF_UNIX:
            tried.append(address)
            raise OSError("no network here")

    def no_lookup(host, *rest, **more):
        tried.append(host)
        raise socket.gaierror("no network here")

    socket.socket.connect = socket.socket.connect_ex = refuse
    socket.getaddrinfo = no_lookup
    {first}
    from secure_embed.embed import load_encoder, read_manifest
    import threading

    encoder = load_encoder(read_manifest(Path(sys.argv[1])), Path(sys.argv[2]), threads=1)
    vectors = encoder.encode_documents(["the confidential heart letter of Ada Example " * 30, "short"])
    encoder.encode_query("confidential question of Ada Example")
    for thread in threading.enumerate():  # a library's background download would live in one
        if thread is not threading.main_thread():
            thread.join(10)
    print(vectors.shape[0], len(tried))
"""


@pytest.mark.parametrize(
    ("first", "silent"),
    [
        pytest.param("", True, id="as the service does it"),
        pytest.param(
            "import huggingface_hub, logging, transformers; logging.basicConfig(level=logging.DEBUG)",
            False,
            id="the libraries loaded before, online, and everything logged",
        ),
    ],
)
def test_no_network_is_tried_and_no_text_is_printed(own: Path, tmp_path: Path, first: str, silent: bool) -> None:
    write_manifest(measured(own), tmp_path / "manifest.json")
    code = textwrap.dedent(_CHILD).replace("{first}", first)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    ran = subprocess.run(
        [sys.executable, "-W", "default", "-c", code, str(tmp_path / "manifest.json"), str(own)],
        capture_output=True,
        text=True,
        env={**environment, "HF_HOME": str(tmp_path / "hub")},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["2", "0"]
    assert "Ada" not in ran.stderr
    assert "confidential" not in ran.stderr
    assert not silent or ran.stderr == ""
