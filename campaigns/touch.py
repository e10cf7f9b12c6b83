"""Start a deployment in a process of its own, ask it everything, stop it, and have the auditors' verifier read its log."""

import hashlib
import json
import multiprocessing
import os
import signal
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from campaigns.auditing import findings
from campaigns.inside import Inside
from campaigns.outcome import Seen, Touched, seen_of
from campaigns.specimen import Question, Specimen
from campaigns.world import Answer
from secure_embed.errors import SecureEmbedError

__all__ = ["touch"]

seconds_max = 120


def touch(root: Path, specimen: Specimen, state: str, vkeys: list[str]) -> Touched:
    """``root``: a copy that may be changed; ``vkeys``: the verifier's keys, from elsewhere than from the copy."""
    said = root.parent / "said"
    process = multiprocessing.get_context("fork").Process(target=_child, args=(root, specimen, said))
    process.start()
    process.join(seconds_max)
    if process.exitcode is None:
        process.kill()
        process.join()
        return Touched(fell="hung")
    stderr = _text(root.parent / "stderr")
    if process.exitcode != 0:
        what = signal.Signals(-process.exitcode).name if process.exitcode < 0 else "no result"
        return Touched(fell=what, leaked=_leaks(stderr, specimen))
    told = json.loads(said.read_text())
    leaked = _leaks(stderr + json.dumps(told["details"]) + str(told["refused"]), specimen)
    touched = Touched(
        refused=told["refused"],
        fell=told["fell"],
        answers={name: Seen(*seen) for name, seen in told["answers"].items()},
        details=tuple(detail.replace(f"{root}/", "") for detail in told["details"]),
        leaked=leaked,
    )
    if touched.refused or touched.fell:
        return touched
    return replace(touched, findings=_findings(root, specimen, state, vkeys))


def _leaks(said: str, specimen: Specimen) -> bool:
    return any(secret in said for secret in specimen.secrets)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _findings(root: Path, specimen: Specimen, state: str, vkeys: list[str]) -> tuple[str, ...]:
    wrong = findings(root / "log", vkeys, receipts=specimen.receipts[state], earlier=[specimen.checkpoint[state]])
    return tuple(wrong[:3])


# --- in the child ----------------------------------------------------------------------------------------------------


def _child(root: Path, specimen: Specimen, said: Path) -> None:
    log = os.open(root.parent / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    told: dict[str, Any] = {"refused": None, "fell": None, "answers": {}, "details": []}
    try:
        _ask_all(root, specimen, told)
    except SecureEmbedError as refused:
        if told["answers"]:  # all was answered, and closing failed
            told["details"].append(f"{refused.code}: {refused.detail}")
        else:
            told["refused"] = refused.code
            told["details"].append(f"{refused.code}: {refused.detail}")
    except BaseException as fault:  # noqa: BLE001 - whatever it was, the campaign has to hear of it
        traceback.print_exc()
        told["fell"] = f"{type(fault).__name__} at {_place(fault)}"
    said.write_text(json.dumps(told))


def _place(fault: BaseException) -> str:
    last = traceback.extract_tb(fault.__traceback__)[-1]
    ours = [f for f in traceback.extract_tb(fault.__traceback__) if "secure_embed" in f.filename]
    frame = ours[-1] if ours else last
    return f"{Path(frame.filename).name}:{frame.name}"


def _ask_all(root: Path, specimen: Specimen, told: dict[str, Any]) -> None:
    with Inside(root, caller=specimen.caller) as inside:
        answers = inside.ask_all([question.ask for question in specimen.questions])
        for question, answer in zip(specimen.questions, answers, strict=True):
            seen = seen_of(answer.status, answer.body, _digest(question, answer))
            told["answers"][question.name] = [seen.status, seen.code, seen.digest]
            if answer.status >= 400 and isinstance(answer.body, dict):
                detail = f"{answer.body.get('code')}: {answer.body.get('detail')}"
                if detail not in told["details"]:
                    told["details"].append(detail)


def _digest(question: Question, answer: Answer) -> str:
    body = answer.body
    if isinstance(body, Mapping):
        left_out = {"receipt"} | ({"id", "note"} if question.ask.path == "/v1/erasures" else set())
        body = {name: value for name, value in body.items() if name not in left_out}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
