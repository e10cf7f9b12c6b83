"""The real service as a process of its own: started, waited for, ended or killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

from secure_embed.errors import Unavailable

__all__ = ["Service", "free_port"]

start_s_max = 90.0
stop_s_max = 20.0
poll_s = 0.1


def free_port() -> int:
    """A port that was free a moment ago, with the next one free too (the health listener's)."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


class Service:
    """`secure-embed serve` on a deployment."""

    def __init__(self, root: Path, port: int) -> None:
        self._root = root
        self._health = ("127.0.0.1", port + 1)
        self._log = root.parent / f"{root.name}-service.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it and wait until it is ready. Returns the seconds that took. Raises ``Unavailable``."""
        began = time.monotonic()
        command = [sys.executable, "-m", "secure_embed.cli", "serve", "--root", str(self._root), "--dev"]
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)  # noqa: S603 - ours
        while time.monotonic() - began < start_s_max:
            if self._process.poll() is not None:
                break
            if self._answers():
                return time.monotonic() - began
            time.sleep(poll_s)
        raise Unavailable(f"the service did not start; see {self._log}", code="service_not_started")

    def _answers(self) -> bool:
        try:
            with socket.create_connection(self._health, timeout=1.0) as connection:
                connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return b" 200 " in connection.recv(64)
        except OSError:
            return False

    def stop(self) -> Literal["asked", "killed"]:
        """Ask it to end (SIGTERM) and wait; one that does not end is killed."""
        if self._process is None:
            return "asked"
        self._process.send_signal(signal.SIGTERM)
        return self._wait()

    def kill(self) -> None:
        """SIGKILL: no warning, no last words."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._wait()

    def _wait(self) -> Literal["asked", "killed"]:
        assert self._process is not None
        try:
            self._process.wait(stop_s_max)
            return "asked"
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return "killed"
        finally:
            self._process = None
