"""Sends operations to a service over TLS, keeps every receipt, and tells what was seen to be wrong."""

import http.client
import json
import random
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from campaigns.history import Defect
from campaigns.load import proposed
from campaigns.stage import headers
from campaigns.world import Answer, Ask, Operation, World

__all__ = ["Driver"]

timeout_s = 30.0


class Driver:
    """Of one deployment, through all lives of its service."""

    def __init__(self, root: Path, port: int, *, clients: int, tolerated: Collection[str] = ()) -> None:
        """``tolerated``: codes of 5xx answers that are to be expected here; what they answered may be there or not."""
        self._port = port
        self._tolerated = tolerated
        self.last: Answer | None = None
        self.receipts: list[tuple[int, str]] = []
        self.defects: list[Defect] = []
        self.sent: Counter[str] = Counter()
        self.acknowledged: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.unanswered: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}  # how long the last one of a kind took
        self.watch: Callable[[Operation], None] = lambda _: None  # told of each operation that is about to be sent
        self._tls = ssl.create_default_context(cafile=str(root / "tls" / "certificate.pem"))
        self._headers = headers(root, f"https://localhost:{port}")
        self._clients = clients
        self._lock = threading.Lock()

    def client(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("localhost", self._port, context=self._tls, timeout=timeout_s)

    def do(self, client: http.client.HTTPSConnection, operation: Operation) -> bool:
        """Whether it was answered."""
        operation.begin()
        self.watch(operation)
        self._count(self.sent, operation)
        ask = operation.ask()
        began = time.monotonic()
        try:
            answer = self._answer(client, ask)
        except (OSError, http.client.HTTPException):
            operation.unanswered()
            self._count(self.unanswered, operation)
            return False
        self.seconds[operation.kind] = time.monotonic() - began
        self._keep(operation, answer)
        return True

    def _keep(self, operation: Operation, answer: Answer) -> None:
        self.last = answer
        if answer.code in self._tolerated:
            operation.unanswered()
            self._count(self.refused, operation)
            return
        if answer.status >= 500:
            operation.unanswered()
            found = [Defect("answer", f"{operation.kind} was answered {answer.status} {answer.code}")]
        else:
            found = operation.answered(answer)
        self._count(self.acknowledged if answer.status < 400 else self.refused, operation)
        with self._lock:
            self.defects += found
            if answer.receipt is not None:
                self.receipts.append(answer.receipt)
            else:
                self.defects.append(Defect("receipt", f"{operation.kind} was answered {answer.status} without one"))

    def _count(self, counter: Counter[str], operation: Operation) -> None:
        with self._lock:
            counter[operation.kind] += 1

    def all(self, operations: Iterable[Operation]) -> bool:
        """Send each once, by several clients. False: the service went away meanwhile."""
        waiting = list(operations)
        shares = [waiting[n :: self._clients] for n in range(self._clients)]
        with ThreadPoolExecutor(self._clients) as pool:
            return all(pool.map(self._some, shares))

    def _some(self, operations: list[Operation]) -> bool:
        if not operations:
            return True
        with closing(self.client()) as client:
            return all(self.do(client, operation) for operation in operations)

    def load(self, world: World, seed: int) -> None:
        """Random operations from all clients until the service goes away."""
        with ThreadPoolExecutor(self._clients) as pool:
            for done in [pool.submit(self._load, world, random.Random(f"{seed}-{n}")) for n in range(self._clients)]:
                done.result()

    def _load(self, world: World, chance: random.Random) -> None:
        with closing(self.client()) as client:
            while self.do(client, proposed(world, chance)):
                pass

    def _answer(self, client: http.client.HTTPSConnection, ask: Ask) -> Answer:
        """The receipt stands in the header of a problem, and in the body of an answer."""
        content = None if ask.body is None else json.dumps(ask.body)
        given_headers = {**self._headers, "Content-Type": "application/json", **ask.headers}
        client.request(ask.method, ask.path, content, given_headers)
        given = client.getresponse()
        body = json.loads(given.read())
        header = (given.getheader("Audit-Receipt") or "").split(" ")
        if len(header) == 3:
            receipt = (int(header[1]), header[2])
        elif isinstance(body, dict) and body.get("receipt"):
            receipt = (int(body["receipt"]["index"]), str(body["receipt"]["leaf_hash"]))
        else:
            receipt = None
        return Answer(status=given.status, body=body, receipt=receipt)
