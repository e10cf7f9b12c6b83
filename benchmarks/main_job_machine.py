"""Where and with what a benchmark ran, how quiet the machine was meanwhile, and what a row of figures comes to."""

import os
import platform
import resource
import sqlite3
import statistics
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

__all__ = ["OthersShare", "machine", "medium_of", "quantile", "rounded", "spread", "versions"]

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("torch", "transformers", "sentence-transformers", "faiss-cpu", "numpy", "sqlcipher3", "uvicorn", "httpx")
syncs = 100


def medium_of(folder: Path) -> dict[str, Any]:
    """The file system, and what one durable write of 4 KiB costs there: both sides wait for it."""
    within = [p for p in psutil.disk_partitions(all=True) if folder.resolve().is_relative_to(p.mountpoint)]
    taken = []
    handle = os.open(folder / "sync", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for _ in range(syncs):
        began = time.perf_counter()
        os.write(handle, bytes(4_096))
        os.fdatasync(handle)
        taken.append(1_000 * (time.perf_counter() - began))
    os.close(handle)
    return {
        "file_system": max(within, key=lambda p: len(p.mountpoint)).fstype if within else "?",
        "fdatasync_ms": spread(taken),
    }


def machine(medium: dict[str, Any]) -> dict[str, Any]:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": psutil.virtual_memory().total / 2**30,
        "kernel": platform.release(),
        **medium,
    }


def versions() -> dict[str, str]:
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False)
    return {
        "secure_embed": version("secure-embed"),
        "commit": commit.stdout.strip() or "?",
        "python": platform.python_version(),
        "sqlite_of_plain": sqlite3.sqlite_version,
        **{package: version(package) for package in PACKAGES},
    }


class OthersShare:
    """Which share of the machine's cores programs that are not this benchmark's had. Its processes have ended by then."""

    def __init__(self) -> None:
        self._before = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        """Seconds since some moment; seconds of core time that others took since another."""
        times = psutil.cpu_times()
        busy = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return time.monotonic(), busy - sum(one.ru_utime + one.ru_stime for one in used)

    def since_last(self) -> float:
        (then, before), (now, after) = self._before, self._now()
        self._before = now, after
        return max(0.0, after - before) / ((now - then) * psutil.cpu_count())


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[round(share * (len(values) - 1))]


def spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": statistics.median(values),
        "p10": quantile(values, 0.1),
        "p90": quantile(values, 0.9),
        "min": min(values),
        "max": max(values),
        "n": len(values),
    }


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
