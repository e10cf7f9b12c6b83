"""The two sides of the main job, each a process of its own, behind the same four calls: start, ingest, query, stop.

Calls are timed here, on the driver's side, so that both sides pay for carrying the question and the answer: the
service's over TLS and HTTP, the plain one's over a pipe. Tokens and connections are made before the clock starts.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import psutil

from secure_embed.access import DevelopmentIssuer
from secure_embed.cli.client import Client
from secure_embed.cli.demo.corpus import DemoRecord
from secure_embed.cli.demo.service import Service, free_port
from secure_embed.deployment import load_from
from secure_embed.founding import create
from secure_embed.risk import load_profiles
from secure_embed.settings import Settings

__all__ = ["Plain", "SecureEmbed", "Side"]

Dtype = Literal["float32", "bfloat16"]
COLLECTION = "complaints"
ATTRIBUTES = {"department": "string", "sensitivity": "long", "country": "string"}
token_lifetime_s = 3_600  # the most that the service takes
token_renew_s = 1_800
hits_max = 10
budget_share = 0.8  # of a principal's day that this benchmark uses before it takes the next principal
MIB = 1024 * 1024


class Side(Protocol):
    def start(self) -> float:
        """Start the process. Returns ``time.perf_counter()`` of that moment."""
        ...

    def ingest(self, number: int, records: Sequence[DemoRecord]) -> tuple[float, float | None]:
        """Seconds until the batch was acknowledged, and of these the encoder's, where that is known."""
        ...

    def query(self, text: str) -> tuple[float, list[str]]:
        """Seconds until the answer was here, and the ids found, best first."""
        ...

    def memory(self) -> dict[str, float]: ...

    def stop(self) -> None: ...


def memory_of(process: psutil.Process) -> dict[str, float]:
    """MiB of the whole process now, without what is mapped from files, and at its peak (proc_pid_status(5))."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if "kB" in rest}
    return {
        "rss_mib": process.memory_info().rss / MIB,
        "anonymous_mib": kib["RssAnon"] / 1024,
        "peak_mib": kib["VmHWM"] / 1024,
    }


def stored_bytes(folder: Path) -> int:
    """Bytes that the file system has given to the files below ``folder``."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


class SecureEmbed:
    """`secure-embed serve` with everything on, as ``secure-embed init --dev`` leaves it, over TLS on loopback."""

    folders = ("data", "keys", "log")

    def __init__(self, root: Path, *, records: int, threads: int, dtype: Dtype) -> None:
        os.environ["SECURE_EMBED_ENCODER__THREADS"] = str(threads)
        self._root = root
        port = free_port()
        self._url = f"https://localhost:{port}"
        # float32 like the plain side, so that what is compared is protection and not arithmetic.
        create(root, dev=True, model="all-minilm-l6-v2", dtype=dtype, port=port)
        self._service = Service(root, port)
        self._issuer = DevelopmentIssuer(root / "development-issuer")
        self._process: psutil.Process
        self._writer: tuple[Client, float] | None = None
        self._analyst: Client | None = None
        self._analysts = 0
        self._asked = 0
        self._queries_each = self._queries_allowed(records)
        self._limited = 0

    def _queries_allowed(self, records: int) -> int:
        """Queries of one principal, so that the day's distinct records never run out: those are refused, not slow."""
        distinct = load_profiles(self._root / "policies" / "risk", development=False)["standard"].distinct
        assert distinct is not None
        day = min(max(records * distinct.share_day_per_mille // 1_000, distinct.day_min), distinct.day_max)
        return int(budget_share * day / hits_max)

    def start(self) -> float:
        self._next_analyst(connect=False)
        before = {child.pid for child in psutil.Process().children()}
        began = time.perf_counter()
        self.ready_s = self._service.start()
        (self._process,) = (child for child in psutil.Process().children() if child.pid not in before)
        return began

    def create_collection(self) -> None:
        self._writing().call("POST", "/v1/collections", {"name": COLLECTION, "attributes": ATTRIBUTES}).value()

    def ingest(self, number: int, records: Sequence[DemoRecord]) -> tuple[float, float | None]:
        writer = self._writing()
        batch = [{"id": r.id, "text": r.text, "subject": r.subject, "attributes": dict(r.attributes)} for r in records]
        began = time.perf_counter()
        done = writer.call(
            "POST", f"/v1/collections/{COLLECTION}/records", {"records": batch}, {"Idempotency-Key": f"batch-{number}"}
        ).value()
        seconds = time.perf_counter() - began
        assert done["records"] == len(records)
        return seconds, None

    def query(self, text: str) -> tuple[float, list[str]]:
        if self._asked >= self._queries_each:
            self._next_analyst()
        assert self._analyst is not None
        self._asked += 1
        body = {"text": text, "k": hits_max}
        began = time.perf_counter()
        found = self._analyst.call("POST", f"/v1/collections/{COLLECTION}/query", body).value()
        seconds = time.perf_counter() - began
        self._limited += found["limited"]
        return seconds, [hit["id"] for hit in found["hits"]]

    def _writing(self) -> Client:
        if self._writer is None or time.monotonic() - self._writer[1] > token_renew_s:
            self._writer = self._client("svc-ingest", ["collections:admin", "records:write"]), time.monotonic()
            self._connect(self._writer[0])
        return self._writer[0]

    def _next_analyst(self, *, connect: bool = True) -> None:
        if self._analyst is not None:
            self._analyst.close()
        self._analysts += 1
        self._asked = 0
        self._analyst = self._client(f"analyst-{self._analysts}", ["query"])
        if connect:
            self._connect(self._analyst)

    def _client(self, subject: str, scopes: Sequence[str]) -> Client:
        # A client application for each principal: one application's principals together have a budget as well.
        token = self._issuer.mint(
            subject=subject,
            client_id=f"benchmark-{subject}",
            scopes=scopes,
            audience=self._url,
            lifetime_s=token_lifetime_s,
            claims={"department": "quality", "clearance": 3, "purposes": ["quality"]},
        )
        return Client(self._url, token=token, ca=self._root / "tls" / "certificate.pem", purpose="quality")

    @staticmethod
    def _connect(client: Client) -> None:
        """The TLS handshake, by a call that needs no token."""
        client.call("GET", "/.well-known/oauth-protected-resource").value()

    def encoder(self) -> Any:
        """The service's encoder once more, in this process: what embedding alone costs it."""
        return load_from(Settings.load(self._root, dev=True))

    @property
    def limited(self) -> int:
        """Answers so far that the risk profile cut short or left without scores."""
        return self._limited

    def memory(self) -> dict[str, float]:
        assert not self._process.children()  # or they would have to be counted
        return memory_of(self._process)

    def disk(self) -> dict[str, int]:
        """Bytes of each folder that grows with records."""
        return {name: stored_bytes(self._root / name) for name in self.folders}

    def stop(self) -> None:
        for client in (self._analyst, self._writer[0] if self._writer else None):
            if client is not None:
                client.close()
        self._analyst = self._writer = None
        self._service.stop()


class Plain:
    """`plain_baseline.py` over a pipe."""

    def __init__(self, folder: Path, *, threads: int, dtype: Dtype, waits_passively: bool) -> None:
        folder.mkdir()
        self._folder = folder
        self._dtype = dtype
        self._log = folder.parent / f"{folder.name}.log"
        # Defaults, but for a hub that is never asked, and as many threads as the service has.
        self._environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
        if waits_passively:
            self._environment["OMP_WAIT_POLICY"] = "PASSIVE"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> float:
        command = [sys.executable, str(Path(__file__).with_name("plain_baseline.py")), str(self._folder), self._dtype]
        began = time.perf_counter()
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=self._environment
            )
        return began

    def _ask(self, **asked: Any) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"the plain side ended; see {self._log}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ingest(self, number: int, records: Sequence[DemoRecord]) -> tuple[float, float | None]:  # noqa: ARG002 - Side
        batch = [{"id": r.id, "text": r.text, "metadata": {"subject": r.subject, **r.attributes}} for r in records]
        began = time.perf_counter()
        done = self._ask(do="ingest", records=batch)
        seconds = time.perf_counter() - began
        assert done["records"] == len(records)
        return seconds, done["encode_s"]

    def query(self, text: str) -> tuple[float, list[str]]:
        began = time.perf_counter()
        found = self._ask(do="query", text=text, k=hits_max)
        seconds = time.perf_counter() - began
        self.last_encode_s = found["encode_s"]
        self.last_scores = [hit["score"] for hit in found["hits"]]
        return seconds, [hit["id"] for hit in found["hits"]]

    def scores(self, text: str, ids: Sequence[str]) -> list[float]:
        """Exact scores of the records ``ids``."""
        scores: list[float] = self._ask(do="scores", text=text, ids=list(ids))["scores"]
        return scores

    def memory(self) -> dict[str, float]:
        assert self._process is not None
        process = psutil.Process(self._process.pid)
        assert not process.children()
        return memory_of(process)

    def disk(self) -> int:
        return stored_bytes(self._folder)

    def stop(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(30)
            self._process = None
