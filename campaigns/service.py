"""One service process after the other on one deployment: started from the zygote, killed, waited for."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

__all__ = ["Service", "Zygote"]

start_s_max = 60.0
stop_s_max = 40.0
REPOSITORY = Path(__file__).parents[1]


class Zygote:
    """The process that forks services; see zygote.py."""

    def __init__(self, encoder: str, folder: Path) -> None:
        """``folder``: where the socket lies on which services say that they are ready."""
        self.stderr = folder / "stderr"  # what services write to it, one after the other
        self._ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = folder / "ready.socket"
        self._ready.bind(str(path))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "campaigns.zygote", encoder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, "NOTIFY_SOCKET": str(path), "OMP_NUM_THREADS": "1"},
        )

    def ask(self, **command: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def forget_news(self) -> None:
        self._ready.settimeout(0)
        while True:
            try:
                self._ready.recv(256)
            except (BlockingIOError, TimeoutError):
                return

    def news(self, wait_s: float) -> bytes:
        """What a service says of itself (sd_notify(3)), or nothing."""
        self._ready.settimeout(wait_s)
        try:
            return self._ready.recv(256)
        except (BlockingIOError, TimeoutError):
            return b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._ready.close()


class Service:
    """One life of the service."""

    def __init__(self, zygote: Zygote, root: Path) -> None:
        self._zygote = zygote
        zygote.forget_news()
        self.began = time.monotonic()
        self.pid: int = zygote.ask(start=str(root), log=str(zygote.stderr))["pid"]
        self.exit_status: int | None = None  # negative: the signal that ended it

    def ready(self) -> bool:
        """Wait until it answers; False when it ended instead."""
        ends = time.monotonic() + start_s_max
        while time.monotonic() < ends:
            if b"READY=1" in self._zygote.news(0.02):
                return True
            if self.ended():
                return False
        raise RuntimeError("the service neither started nor ended")

    def ended(self) -> bool:
        if self.exit_status is None:
            self.exit_status = self._zygote.ask(poll=self.pid)["status"]
        return self.exit_status is not None

    def freeze(self) -> None:
        """SIGSTOP, and wait until no thread runs: what a call to the kernel has begun is through, and nothing is answered
        from here on."""
        if self.exit_status is not None:
            return
        os.kill(self.pid, signal.SIGSTOP)
        ends = time.monotonic() + stop_s_max
        while not _states(self.pid) <= {"T", "Z"}:
            if time.monotonic() > ends:
                raise RuntimeError("the service was not stopped")
            time.sleep(0.0005)

    def kill(self) -> None:
        """SIGKILL; only to be called while it has not been waited for, so that the pid is still its own."""
        if self.exit_status is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        if self.exit_status is None:
            self.exit_status = self._zygote.ask(wait=self.pid)["status"]
        assert self.exit_status is not None
        return self.exit_status

    def stop(self) -> int:
        """Ask it to end, and wait."""
        if self.exit_status is None:
            os.kill(self.pid, signal.SIGTERM)
        ends = time.monotonic() + stop_s_max
        while not self.ended():
            if time.monotonic() > ends:
                raise RuntimeError("the service did not stop when asked")
            time.sleep(0.01)
        return self.wait()


def _states(pid: int) -> set[str]:
    """Of its threads: proc_pid_stat(5)."""
    found = set()
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            found.add((task / "stat").read_text().rpartition(")")[2].split()[0])
        except OSError:
            continue  # it has ended
    return found
