"""`make crash`: kill the real service with SIGKILL at random moments under load, and see what is left each time.

One life is: start, check what the last one left, load, SIGKILL at a random moment of any of these, check the log's folder as it
lies there. Exit status 1 when something was found that must not be. A run is repeated with its `--seed`: what is sent and
when it is killed are then the same, while threads and the disk take their own time.
"""

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from campaigns.checks import check_log, check_service
from campaigns.driver import Driver
from campaigns.history import Defect
from campaigns.operations import OPERATIONS, CreateCollection, Operation, World
from campaigns.results import write
from campaigns.service import Service, Zygote
from campaigns.stage import found
from campaigns.zygote import STDERR
from secure_embed.cli.demo.service import free_port

clients = 6
load_s_max = 0.6
moments = {"start": 0.2, "check": 0.1, "load": 0.35, "operation": 0.35}  # when the kill falls, and how often


class Kill:
    """One life's end, planned before it begins."""

    def __init__(self, chance: random.Random) -> None:
        (self.moment,) = chance.choices(list(moments), list(moments.values()))
        self._share = chance.random()
        kinds = [kind.kind for _, kind in OPERATIONS]
        self._kind = chance.choice(kinds)
        self._skip = chance.randrange(4)
        self._lock = threading.Lock()
        self._planned = False
        self.service: Service | None = None
        self.hit = ""  # the operation it was aimed at

    def begins(self, moment: str, lasts_s: float) -> None:
        """``lasts_s``: about how long this part of a life is."""
        if moment == self.moment:
            self._after(self._share * lasts_s)

    def watch(self, operation: Operation, usual_s: float) -> None:
        """Falls into the next operation of the chosen kind, after a few were let by."""
        if self.moment != "operation" or operation.kind != self._kind:
            return
        with self._lock:
            self._skip -= 1
            due = self._skip < 0 and not self._planned
        if due:
            self.hit = operation.kind
            self._after(self._share * usual_s * 1.2)

    def _after(self, seconds: float) -> None:
        with self._lock:
            if self._planned or self.service is None:
                return
            self._planned = True
        timer = threading.Timer(seconds, self.service.kill)
        timer.daemon = True
        timer.start()

    def at_last(self) -> None:
        """What it was aimed at did not come."""
        self._after(0.0)


class House:
    """One deployment and its lives."""

    def __init__(self, zygote: Zygote, folder: Path, name: str) -> None:
        self.root = folder / "deployment"
        port = free_port()
        found(self.root, port)
        self._zygote = zygote
        self.world = World(name)
        self.driver = Driver(self.root, port, clients=clients)
        self.start_s: list[float] = []
        self.check_s: list[float] = [0.3]
        self._since = 0
        self.lives = 0

    def live(self, seed: str) -> str:
        """One life; where the kill fell."""
        chance = random.Random(seed)
        self.lives += 1
        kill = Kill(chance)
        since = self.world.history.tick()
        kill.service = service = Service(self._zygote, self.root)
        kill.begins("start", statistics.median(self.start_s) * 1.1 if self.start_s else 0.3)
        if service.ready():
            self.start_s.append(time.monotonic() - service.began)
            if self._checked(kill, chance):
                self._since = since
                self._load(kill, chance)
        status = service.wait()
        if status != -9:
            self.driver.defects.append(Defect("died", f"the service ended by itself, with {status}"))
        self.driver.defects += check_log(self.root, self.driver, self.world)
        return kill.hit or kill.moment

    def _checked(self, kill: Kill, chance: random.Random) -> bool:
        kill.begins("check", statistics.median(self.check_s))
        began = time.monotonic()
        whole = check_service(self.driver, self.world, chance, self._since)
        if whole:
            self.check_s.append(time.monotonic() - began)
        return whole

    def _load(self, kill: Kill, chance: random.Random) -> None:
        driver = self.driver
        if not self.world.collections and not driver.all([CreateCollection(self.world, f"c{self.world.name}-first")]):
            return
        driver.watch = lambda operation: kill.watch(operation, driver.seconds.get(operation.kind, 0.02))
        kill.begins("load", load_s_max)
        last = threading.Timer(load_s_max * 1.5, kill.at_last)
        last.start()
        driver.load(self.world, chance.getrandbits(64))
        last.cancel()
        driver.watch = lambda _: None

    def end(self) -> None:
        """The last life: everything is looked at, and the service is asked to stop."""
        service = Service(self._zygote, self.root)
        if not service.ready():
            self.driver.defects.append(Defect("died", f"the last start ended with {service.wait()}"))
            return
        check_service(self.driver, self.world, random.Random(0), self._since, everything=True)
        if service.stop() != 0:
            self.driver.defects.append(Defect("died", "the service did not end well when asked"))
        self.driver.defects += check_log(self.root, self.driver, self.world)
        self.driver.defects += self._spoken()

    def _spoken(self) -> list[Defect]:
        """What the service wrote to its standard error: no text, no id, and nothing that nobody expected."""
        said = (self.root.parent / STDERR).read_text()
        lines = said.splitlines()
        wrong = [Defect("stderr", line[:200]) for line in lines if "Traceback" in line or "ERROR" in line][:5]
        name = self.world.name
        leaks = [line for line in lines if f"r{name}-" in line or f"number{name}x" in line or f"s{name}-" in line]
        return wrong + [Defect("leak", "a line of the service's log names a record")] * len(leaks)


def main() -> int:
    options = _options()
    began = time.monotonic()
    total: dict[str, Counter[str]] = {
        name: Counter() for name in ("sent", "acknowledged", "refused", "unanswered", "kills")
    }
    defects: list[dict[str, object]] = []
    starts: list[float] = []
    print(f"crash: {options.rounds} lives, seed {options.seed}, encoder {options.encoder}", flush=True)
    with tempfile.TemporaryDirectory(prefix="campaign-") as made, Zygote(options.encoder, Path(made)) as zygote:
        done = 0
        while done < options.rounds and time.monotonic() - began < options.seconds_max:
            folder = Path(made) / f"house-{done}"
            folder.mkdir()
            house = House(zygote, folder, f"{done}")
            for _ in range(min(options.lives, options.rounds - done)):
                total["kills"][house.live(f"{options.seed}-{done}")] += 1
                defects += [{"life": done, "kind": d.kind, "what": d.what} for d in house.driver.defects]
                house.driver.defects.clear()
                done += 1
            house.end()
            defects += [{"life": done, "kind": d.kind, "what": d.what} for d in house.driver.defects]
            for name in ("sent", "acknowledged", "refused", "unanswered"):
                total[name] += getattr(house.driver, name)
            starts += house.start_s
            records = len(house.world.history.known())
            print(
                f"  {done} lives, {time.monotonic() - began:.0f} s, {records} things, {len(house.driver.receipts)} receipts, {len(defects)} defects",
                flush=True,
            )
    for defect in defects[:20]:
        print(f"  DEFECT {defect}")
    write(
        options.out,
        {
            "campaign": "crash",
            "seed": options.seed,
            "encoder": options.encoder,
            "kills": done,
            "kills_by_moment": dict(total.pop("kills")),
            "operations": {name: dict(counted) for name, counted in total.items()},
            "start_s_median": round(statistics.median(starts), 3) if starts else None,
            "seconds": round(time.monotonic() - began, 1),
            "defects": len(defects),
            "defects_first": defects[:100],
        },
    )
    print(f"crash: {done} kills, {len(defects)} defects, {time.monotonic() - began:.0f} s")
    return 1 if defects else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=300, help="kills")
    parser.add_argument("--lives", type=int, default=50, help="kills for each deployment")
    parser.add_argument("--seconds-max", type=float, default=float("inf"), help="begin no new deployment after these")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--encoder", choices=("words", "minilm"), default="words")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "crash.json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
