"""`make corrupt`: damage a deployment in thousands of ways and see that each is noticed, and that no answer is wrong.

A case: a copy of the specimen (specimen.py), one damage, a start, every question, a stop, and the auditors' verifier on the log. What
may come of it is in outcome.py. Exit status 1 when something came that must not.
"""

import argparse
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from campaigns.auditing import keys_of
from campaigns.damage_files import Damage, file_damages, rollbacks
from campaigns.damage_tables import table_damages
from campaigns.outcome import DEFECTS, Kind, Outcome, Seen, judge
from campaigns.results import write
from campaigns.specimen import STATES, Specimen, build
from campaigns.touch import touch

tries_max = 5  # to find a place that a damage changes
memory = Path("/dev/shm")
shown_max = 200


@dataclass(frozen=True, slots=True)
class Case:
    number: int
    state: str
    damage: Damage


@dataclass(frozen=True, slots=True)
class Told:
    number: int
    outcome: Outcome | None  # None: there was nothing to damage
    details: tuple[str, ...] = ()


class Bench:
    """The specimen, and what it answers while it is whole."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        self.specimen: Specimen = build(folder / "specimen")
        self.vkeys = {state: keys_of(self.specimen.state(state)) for state in STATES}
        self.after = {question.name: question.after for question in self.specimen.questions}
        self.right: dict[str, dict[str, Seen]] = {}
        self.details: set[str] = set()  # what is said of a deployment that is whole
        for state in STATES:
            for again in range(2):
                touched = touch(self._copy(state, f"whole-{again}"), self.specimen, state, self.vkeys[state])
                if touched.refused or touched.fell or touched.leaked or touched.findings:
                    raise RuntimeError(f"the specimen itself is not well: {touched}")
                if again and self.right[state] != touched.answers:
                    raise RuntimeError("the specimen does not answer twice alike")
                self.right[state] = dict(touched.answers)
                self.details |= set(touched.details)

    def _copy(self, state: str, name: str) -> Path:
        case = self.folder / name
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(self.specimen.state(state), case / "deployment")
        return case / "deployment"

    def damages(self, state: str) -> Iterator[Damage]:
        earlier = ("older", *STATES[: STATES.index(state)])
        older = [self.specimen.state(name) for name in earlier]
        root = self._copy(state, f"looked-at-{state}")
        before = self._copy(earlier[-1], f"before-{state}")
        keys = self.specimen.database_keys
        yield from rollbacks(root, older)
        yield from file_damages(root, older)
        yield from table_damages(root, before, keys[state], keys[earlier[-1]])

    def run(self, case: Case) -> Told:
        chance = random.Random(f"{self.seed}-{case.number}")
        name = f"case-{multiprocessing.current_process().pid}"
        root = self._copy(case.state, name)
        if not any(case.damage.apply(root, chance) for _ in range(tries_max)):
            return Told(case.number, None)
        touched = touch(root, self.specimen, case.state, self.vkeys[case.state])
        outcome = judge(touched, self.right[case.state], case.damage.family, self.after)
        return Told(case.number, outcome, tuple(set(touched.details) - self.details))


def _cases(bench: Bench, chance: random.Random, family: str | None) -> Iterator[Case]:
    """Every damage of every place once, in random order, and from the start again without end."""
    every = [(state, damage) for state in STATES for damage in bench.damages(state)]
    every = [(state, damage) for state, damage in every if family in {None, damage.family}]
    numbers = count()
    while True:
        chance.shuffle(every)
        for state, damage in every:
            yield Case(next(numbers), state, damage)
        every = [(state, damage) for state, damage in every if damage.family != "rollback"]  # the same again


_bench: Bench | None = None  # of this process; workers have both from before the fork
_cases_of: dict[int, Case] = {}


def _run(number: int) -> Told:
    assert _bench is not None
    return _bench.run(_cases_of[number])


def main() -> int:
    global _bench  # noqa: PLW0603 - damages hold functions, which only a fork carries to the workers
    options = _options()
    began = time.monotonic()
    print(f"corrupt: {options.cases} cases, seed {options.seed}", flush=True)
    where = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="campaign-", dir=where) as made:
        _bench = Bench(Path(made), options.seed)
        cases = _cases(_bench, random.Random(options.seed), options.family)
        told: list[Told] = []
        while (missing := options.cases - sum(one.outcome is not None for one in told)) > 0:
            wave = list(islice(cases, missing))
            if options.only is not None:
                wave = [case for case in wave if case.number in options.only]
            _cases_of.update({case.number: case for case in wave})
            told += _wave([case.number for case in wave], options)
            print(f"  {len(told)} damages tried, {time.monotonic() - began:.0f} s", flush=True)
            if options.only is not None:
                break
    return _end(options, told, time.monotonic() - began)


def _wave(numbers: list[int], options: argparse.Namespace) -> Iterator[Told]:
    """A pool of its own for each: what is forked has the cases of this one."""
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("fork")) as pool:
        for done in as_completed([pool.submit(_run, number) for number in numbers]):
            one = done.result()
            if options.verbose or (one.outcome is not None and one.outcome.kind in DEFECTS):
                print(f"  {_line(one)}", flush=True)
            yield one


def _line(one: Told) -> str:
    outcome = one.outcome or Outcome(Kind.HARMLESS, "nothing to damage")
    case = _cases_of[one.number]
    return f"{case.number} {case.state}: {case.damage.what}, {case.damage.place}: {outcome.kind}: {outcome.what}"


def _end(options: argparse.Namespace, told: list[Told], seconds: float) -> int:
    told = sorted(told, key=lambda one: one.number)
    done = [(one, one.outcome) for one in told if one.outcome is not None]
    kinds = Counter(str(outcome.kind) for _, outcome in done)
    by_family: dict[str, Counter[str]] = {}
    codes: Counter[str] = Counter()
    for one, outcome in done:
        by_family.setdefault(_cases_of[one.number].damage.family, Counter())[str(outcome.kind)] += 1
        if outcome.kind in {Kind.AT_START, Kind.AT_TOUCH}:
            codes[outcome.what] += 1
    found = [(one, outcome) for one, outcome in done if outcome.kind in DEFECTS]
    defects = [_line(one) for one, _ in found]
    not_yet = [_line(one) for one, outcome in done if outcome.kind is Kind.NOT_YET]
    write(
        options.out,
        {
            "campaign": "corrupt",
            "seed": options.seed,
            "encoder": "words",
            "cases": len(done),
            "nothing_to_damage": len(told) - len(done),
            "outcomes": dict(kinds),
            "outcomes_by_family": {family: dict(counted) for family, counted in by_family.items()},
            "codes": dict(codes.most_common()),
            "sentences": sorted({detail for one in told for detail in one.details}),
            "seconds": round(seconds, 1),
            "defects": len(defects),
            "defects_first": defects[:shown_max],
            "not_yet_noticed": not_yet[:shown_max],
            "took_effect": [_line(one) for one, outcome in done if outcome.kind is Kind.TOOK_EFFECT][:shown_max],
        },
    )
    print(json.dumps({family: dict(counted) for family, counted in by_family.items()}, indent=1))
    print(
        f"corrupt: {len(done)} cases, {len(defects)} defects, {len(not_yet)} older states not yet noticed, {seconds:.0f} s"
    )
    return 1 if defects else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=lambda text: {int(n) for n in text.split(",")}, help="numbers of cases")
    parser.add_argument("--family", help="damages of one family alone; numbers are of its own cases then")
    parser.add_argument("--verbose", action="store_true", help="a line for every case")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "corrupt.json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
