"""`make crash`: kill the real service with SIGKILL at random moments under load, and see what is left each time.

One life is: start, check what the last one left, load, SIGKILL at a random moment of any of these, check the log's folder as it
lies there. Exit status 1 when something was found that must not be. A run is repeated with its `--seed`: what is sent and
when it is killed are then the same, while threads and the disk take their own time.
"""

import argparse
import random
import re
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from campaigns.checks import check_backup, check_log, check_service
from campaigns.driver import Driver
from campaigns.history import Defect
from campaigns.load import OPERATIONS
from campaigns.operations import CreateCollection
from campaigns.operations_custody import ListKeys
from campaigns.results import write
from campaigns.service import Service, Zygote
from campaigns.small_disk import Disk, NoDisk, small_disk
from campaigns.stage import found
from campaigns.world import Operation, World
from secure_embed.cli.demo.service import free_port

clients = 6
sweep_s = 1  # records past their end go this often
rotates_s_max = 30.0
restored_max = 3  # backups of each deployment
cut_share = 0.7  # of the lives on a disk of their own: power cut in place of SIGKILL alone
disk_mebibytes = 256
# What SQLCipher itself says of a page that does not open: when the power is gone, or when two keys are tried.
_FAILED_READ = re.compile("ERROR CORE sql(cipher|ite3Codec)")
REFUSALS = (
    "storage_full",
    "storage_read_only",
    "storage_unavailable",
    "audit_unavailable",
    "database_unreadable",
)  # of a disk that is going
load_s_max = 0.6
shown_max = 20
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
        self.end: Callable[[], None] | None = None
        self._timer: threading.Timer | None = None
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
            if self._planned or self.end is None:
                return
            self._planned = True
        self._timer = threading.Timer(seconds, self.end)
        self._timer.start()

    def at_last(self) -> None:
        """What it was aimed at did not come."""
        self._after(0.0)

    def over(self) -> None:
        """The life has ended: nothing may hit the next one."""
        with self._lock:
            self._planned = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()


class House:
    """One deployment and its lives."""

    def __init__(self, zygote: Zygote, folder: Path, name: str, disk: Disk | None) -> None:
        """``disk``: of its own, whose power is cut in some lives."""
        self.root = folder / "deployment"
        port = free_port()
        backups_to = folder / "backups"
        (backups_to / "keys").mkdir(parents=True, mode=0o700)
        found(self.root, port, backups_to=backups_to, sweep_s=sweep_s)
        self._disk = disk
        self._zygote = zygote
        self.world = World(name)
        self.world.backups_to = backups_to
        self.driver = Driver(self.root, port, clients=clients, tolerated=() if disk is None else REFUSALS)
        self.start_s: list[float] = []
        self.check_s: list[float] = [0.3]
        self._since = 0
        self.lives = 0

    def live(self, seed: str) -> str:
        """One life; where the kill fell."""
        chance = random.Random(seed)
        self.lives += 1
        kill = Kill(chance)
        cut = self._disk is not None and chance.random() < cut_share
        since = self.world.history.tick()
        service = Service(self._zygote, self.root)
        kill.end = partial(self._end, service, cut)
        kill.begins("start", statistics.median(self.start_s) * 1.1 if self.start_s else 0.3)
        try:
            if service.ready():
                self.start_s.append(time.monotonic() - service.began)
                if self._checked(kill, chance):
                    self._since = since
                    self._load(kill, chance)
        except BaseException:  # a fault of the campaign, or an interruption: nothing may run on
            service.kill()
            raise
        status = service.wait()
        kill.over()
        if cut:
            assert self._disk is not None
            self._disk.mend()
        elif status != -signal.SIGKILL:
            self.driver.defects.append(Defect("died", f"the service ended by itself, with {status}"))
        self.driver.defects += check_log(self.root, self.driver, self.world, cut=cut)
        return ("power cut, " if cut else "") + (kill.hit or kill.moment)

    def _end(self, service: Service, cut: bool) -> None:
        if cut:
            assert self._disk is not None
            # A machine without power answers nobody. Under a process that runs on, a sync that the cut interrupts may
            # report success: 1 in 200 cuts lost what a bare write and fdatasync had acknowledged.
            service.freeze()
            self._disk.cut_power()
        service.kill()

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
        self._let_rotate()
        if service.stop() != 0:
            self.driver.defects.append(Defect("died", "the service did not end well when asked"))
        self.driver.defects += check_log(self.root, self.driver, self.world)
        self.driver.defects += self._spoken()
        chance = random.Random(0)
        for backup in chance.sample(self.world.backups, min(restored_max, len(self.world.backups))):
            self.driver.defects += check_backup(self.world, self.root, backup, chance)

    def _let_rotate(self) -> None:
        """What was cut off goes on, and comes to an end."""
        ends = time.monotonic() + rotates_s_max
        while True:
            listing = ListKeys(self.world)
            if not self.driver.all([listing]) or listing.running == 0:
                return
            if time.monotonic() > ends:
                self.driver.defects.append(Defect("rotation", f"{listing.running} do not come to an end"))
                return
            time.sleep(0.1)

    def _spoken(self) -> list[Defect]:
        """What the service wrote to its standard error: no text, no id, and nothing that nobody expected."""
        said = self._zygote.stderr.read_text()
        self._zygote.stderr.unlink()
        lines = [line for line in said.splitlines() if not _FAILED_READ.search(line)]
        wrong = [Defect("stderr", line[:200]) for line in lines if "Traceback" in line or "ERROR" in line][:5]
        name = self.world.name
        leaks = [line for line in lines if f"r{name}-" in line or f"number{name}x" in line or f"s{name}-" in line]
        return wrong + [Defect("leak", "a line of the service's log names a record")] * len(leaks)


class Tally:
    """What all deployments of a run come to."""

    def __init__(self, seed: int, encoder: str) -> None:
        self._began = time.monotonic()
        self._named = {"seed": seed, "encoder": encoder}
        self._counted: dict[str, Counter[str]] = {
            n: Counter() for n in ("sent", "acknowledged", "refused", "unanswered")
        }
        self._kills: Counter[str] = Counter()
        self._starts: list[float] = []
        self.defects: list[dict[str, object]] = []
        self.no_disk = ""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def lives(self) -> int:
        return self._kills.total()

    def life(self, hit: str, house: House) -> None:
        self._take(house)
        self._kills[hit] += 1

    def house(self, house: House) -> None:
        self._take(house)
        for name in self._counted:
            self._counted[name] += getattr(house.driver, name)
        self._starts += house.start_s
        things, receipts = len(house.world.history.known()), len(house.driver.receipts)
        what = f"{things} things, {receipts} receipts, {len(self.defects)} defects"
        print(f"  {self.lives} lives, {self.seconds:.0f} s, {what}", flush=True)

    def _take(self, house: House) -> None:
        for defect in house.driver.defects:
            self.defects.append({"life": self.lives, "kind": defect.kind, "what": defect.what})
            if len(self.defects) <= shown_max:
                print(f"  DEFECT in life {self.lives}: {defect.kind}: {defect.what}", flush=True)
        house.driver.defects.clear()

    def result(self) -> dict[str, object]:
        return {
            "campaign": "crash",
            **self._named,
            "kills": self.lives,
            "power_cuts": sum(n for hit, n in self._kills.items() if hit.startswith("power cut")),
            "no_power_cuts_because": self.no_disk,
            "kills_by_moment": dict(sorted(self._kills.items())),
            "operations": {name: dict(counted) for name, counted in self._counted.items()},
            "start_s_median": round(statistics.median(self._starts), 3) if self._starts else None,
            "seconds": round(self.seconds, 1),
            "defects": len(self.defects),
            "defects_first": self.defects[:100],
        }


@contextmanager
def _disk(within: Path, tally: Tally, *, wanted: bool) -> Iterator[Disk | None]:
    """A disk whose power can be cut, where one can be had."""
    if not wanted or tally.no_disk:
        yield None
        return
    try:
        with small_disk(within, mebibytes=disk_mebibytes) as disk:
            if not disk.cuts:
                raise NoDisk("no loop device for an ext4")
            yield disk
    except NoDisk as why:
        tally.no_disk = str(why)
        yield None


def main() -> int:
    options = _options()
    tally = Tally(options.seed, options.encoder)
    print(f"crash: {options.rounds} lives, seed {options.seed}, encoder {options.encoder}", flush=True)
    with tempfile.TemporaryDirectory(prefix="campaign-") as made, Zygote(options.encoder, Path(made)) as zygote:
        number = 0
        while tally.lives < options.rounds and tally.seconds < options.seconds_max:
            within = Path(made) / f"house-{number}"
            within.mkdir()
            with _disk(within, tally, wanted=number % 2 == 1) as disk:
                house = House(zygote, within if disk is None else disk.folder, f"{number}", disk)
                for _ in range(min(options.lives, options.rounds - tally.lives)):
                    tally.life(house.live(f"{options.seed}-{tally.lives}"), house)
                house.end()
                tally.house(house)
            number += 1
    write(options.out, tally.result())
    print(f"crash: {tally.lives} kills, {len(tally.defects)} defects, {tally.seconds:.0f} s")
    return 1 if tally.defects else 0


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
