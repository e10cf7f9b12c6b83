"""Ours beside other systems on the same vectors: each in a process of its own, two at a time, by turns.

For each: the quickest effort that finds 0.99 of the exact ten, else the most thorough one; then p50, memory, cold start,
insert rate, disk. A system that is not installed is reported as absent, one that breaks as failed, with its words.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from threading import Timer
from typing import Any, Self

import numpy as np
from main_job_machine import spread
from search_data import Clustered, exact, overlap
from search_peer_child import SYSTEMS
from search_sections import K, Sizes

__all__ = ["peers"]

recall_wanted = 0.99
answer_s_max = 1_200  # building is the longest
# Not LANCE_IO_THREADS: with one of those LanceDB 0.40.0 hangs while it builds.
threads_of = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "TOKIO_WORKER_THREADS", "LANCE_CPU_THREADS")
one_thread = dict.fromkeys(threads_of, "1")


class Broke(Exception):
    """The other system could not do it; the words are its own."""


class Running:
    """One system's process."""

    def __init__(self, name: str, folder: Path, data: Path, python: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        ours = name in ("ours", "flat")
        command = [str(sys.executable if ours else python), str(Path(__file__).with_name("search_peer_child.py"))]
        self._process = subprocess.Popen(
            [*command, name, str(folder), str(data)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | one_thread,
        )
        self.hello = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        limit = Timer(answer_s_max, self._process.kill)
        limit.start()
        line = self._process.stdout.readline()
        limit.cancel()
        if not line:
            raise Broke(f"its process ended with status {self._process.wait()}, perhaps after {answer_s_max} s")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise Broke(answer["failed"])
        return answer

    def ask(self, do: str, **how: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **how}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._process.poll() is None and "absent" not in self.hello:
                self.ask("close")
        except (Broke, BrokenPipeError):
            pass
        finally:
            self._process.kill()
            self._process.wait()


class Beside:
    """Everything that is measured in one run on the same vectors."""

    def __init__(self, sizes: Sizes, folder: Path, python: Path) -> None:
        self.sizes, self.python, self.folder = sizes, python, folder
        self.data = Clustered.sized(sizes.peer_records, sizes.dimension, sizes.data("easy").noise)
        self.data_folder = folder / "data"
        self.data_folder.mkdir(parents=True, exist_ok=True)
        np.save(self.data_folder / "vectors.npy", np.concatenate(list(self.data.blocks())))
        queries = self.data.queries(sizes.queries + 1)  # the last is the first that a new process answers
        np.save(self.data_folder / "queries.npy", queries)
        masks = {"all": np.ones(self.data.records, np.bool_)}
        self.right = exact(self.data.blocks(), queries[: sizes.recall_queries], K, masks)["all"]

    def running(self, name: str) -> Running:
        return Running(name, self.folder / name, self.data_folder, self.python)

    def built(self, name: str) -> dict[str, Any]:
        """The system's own account of itself, and how long building took; absent where it is not installed."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        with self.running(name) as child:
            if "absent" in child.hello:
                return child.hello
            taken = child.ask("build")["seconds"]
        files = [file for file in (self.folder / name).rglob("*") if file.is_file()]
        return child.hello | {
            "records_per_s": self.data.records / taken,
            "disk_bytes_a_record": sum(file.stat().st_size for file in files) / self.data.records,
        }

    def tuned(self, child: Running) -> dict[str, Any]:
        """The quickest effort that finds enough; the one that finds most where none does."""
        tried: list[dict[str, Any]] = []
        for effort in child.hello["efforts"]:
            told = child.ask("turn", first=0, end=len(self.right), effort=effort)
            recall = overlap(told["found"], self.right)
            tried.append({"effort": effort, "recall_at_10": recall, "p50_ms": statistics.median(told["ms"])})
            enough = [one for one in tried if one["recall_at_10"] >= recall_wanted]
            if enough and tried[-1] is enough[-1] and tried[-1]["p50_ms"] > min(one["p50_ms"] for one in enough):
                break  # the more thorough ones that follow are slower still
        if enough:
            best = min(enough, key=lambda one: float(one["p50_ms"]))
        else:
            best = max(tried, key=lambda one: float(one["recall_at_10"]))
        return {"effort": best["effort"], "recall_at_10": best["recall_at_10"], "tried": tried}

    def by_turns(self, name: str) -> dict[str, Any]:
        """``name`` and ours answer the same queries by turns, and say what they hold in memory then."""
        with self.running("ours") as ours, self.running(name) as other:
            children = {"ours": ours, name: other}
            tuned = {}
            for each, child in children.items():
                child.ask("open", effort=child.hello["efforts"][0])
                tuned[each] = self.tuned(child)
            medians: Mapping[str, list[float]] = {each: [] for each in children}
            shares: Mapping[str, list[float]] = {each: [] for each in children}
            for number in range(self.sizes.turns):
                first = number * self.sizes.each
                for each in list(children) if number % 2 else list(reversed(children)):
                    asked = {"first": first, "end": first + self.sizes.each, "effort": tuned[each]["effort"]}
                    told = children[each].ask("turn", **asked)
                    medians[each].append(statistics.median(told["ms"]))
                    shares[each].append(told["processor_share"])
            held = {each: child.ask("memory")["bytes"] / self.data.records for each, child in children.items()}
        ratios = [mine / theirs for mine, theirs in zip(medians["ours"], medians[name], strict=True)]
        return {
            **tuned[name],
            "ours_recall_at_10": tuned["ours"]["recall_at_10"],
            "p50_ms": spread(medians[name]),
            "ours_p50_ms": spread(medians["ours"]),
            "ours_over_it": spread(ratios),
            "processor_share": statistics.median(shares[name]),
            "memory_bytes_a_record": held[name],
            "ours_memory_bytes_a_record": held["ours"],
            "ours_memory_over_it": held["ours"] / held[name],
        }

    def cold(self, name: str, effort: list[Any]) -> dict[str, Any]:
        """From a process that has imported everything to its first answer; files in the page cache."""
        taken: dict[str, list[float]] = {"ours": [], name: []}
        for number in range(self.sizes.rounds):
            for each in list(taken) if number % 2 else list(reversed(taken)):
                with self.running(each) as child:
                    how = effort if each == name else child.hello["efforts"][0]
                    taken[each].append(child.ask("open", effort=how)["seconds"])
        ratios = [mine / theirs for mine, theirs in zip(taken["ours"], taken[name], strict=True)]
        return {
            "cold_s": spread(taken[name]),
            "ours_cold_s": spread(taken["ours"]),
            "ours_cold_over_it": spread(ratios),
        }


def peers(sizes: Sizes, folder: Path, *, python: Path, only: str) -> dict[str, Any]:
    beside = Beside(sizes, folder / "peers", python)
    ours = beside.built("ours")
    wanted = [name for name in SYSTEMS if name != "ours" and (not only or name in only.split(","))]
    found = {}
    for name in wanted:
        print(f"    {name}", file=sys.stderr, flush=True)
        figures: dict[str, Any] = {}
        try:
            figures |= beside.built(name)
            if "absent" not in figures:
                figures |= beside.by_turns(name)
                figures |= beside.cold(name, figures["effort"])
        except Broke as error:
            figures["failed"] = str(error)
        found[name] = figures
    return {"data": beside.data.described(), "ours": ours, "peers": found}
