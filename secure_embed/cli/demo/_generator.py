"""Makes a collection of the demo's corpus from its phrase banks: records, queries and who answers what.

Pure: no clock, no files but the banks, one ``random.Random``; so the same seed gives the same bytes on every machine
(with one minor version of Python: ``random`` promises no more). What a record is about is known here because it was
written about it, and the relevance judgements are that knowledge; no model had a say in them.
"""

import calendar
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from secure_embed.cli.demo._people import Subject, invent
from secure_embed.cli.demo._phrases import Bank, Facet, Topic, fill, load_bank

__all__ = ["SIZE", "Generated", "Plan", "generate", "plans"]

SIZE = 1_200  # records in a bundled collection
SEED = 20_260_301
characters_min, characters_max = 150, 700
subjects_per_record = 0.36  # drawn; children and the rarest never come up
queries_put: Mapping[str, int] = {"en": 18, "de": 7, "es": 5}  # a collection
restricted_share = 0.04  # records raised to sensitivity 3: staff and people known to the public


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What sets one collection apart from the other."""

    collection: str
    record_prefix: str
    subject_prefix: str


plans: Mapping[str, Plan] = {
    "clinical-notes": Plan(collection="clinical-notes", record_prefix="cn", subject_prefix="P"),
    "complaints": Plan(collection="complaints", record_prefix="co", subject_prefix="C"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """The lines of the three files, as plain objects in their order."""

    corpus: list[dict[str, object]]
    queries: list[dict[str, object]]
    qrels: list[tuple[str, str, int]]  # query id, record id, grade: 1 answers, 2 answers in the setting asked for


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Case:
    """A facet of a topic in a language: the unit of relevance. Two cases never answer the same query."""

    language: str
    topic: Topic
    facet: Facet


def generate(plan: Plan, *, records: int = SIZE, seed: int = SEED) -> Generated:
    """``records`` records shared evenly among the cases, in shuffled order, with the queries that ask for them.

    Raises ``ValueError`` for fewer than ``SIZE``: every case needs its records, and somebody whom it can befall.
    """
    if records < SIZE:
        raise ValueError(f"a collection has at least {SIZE} records")
    rng = Random(f"{plan.collection}/{seed}/{records}")  # noqa: S311 - a corpus has to be reproducible, not secret
    banks = {language: load_bank(plan.collection, language) for language in ("en", "de", "es")}
    cases = [
        _Case(language=lang, topic=t, facet=f) for lang, bank in banks.items() for t in bank.topics for f in t.facets
    ]
    people = _People(plan, cases, records, rng)
    ids = _ids(plan.record_prefix, rng)
    taken: set[str] = set()
    lines: list[dict[str, object]] = []
    answers: dict[_Case, list[tuple[str, str]]] = {case: [] for case in cases}
    for case, kind in _schedule(cases, banks, records, rng):
        subject = people.draw(case)
        text = _write(case, kind, banks[case.language], subject, rng, taken)
        answers[case].append((record_id := next(ids), kind))
        lines.append(_line(record_id, text, case, subject, rng))
    return _with_queries(plan, lines, answers, rng)


def _schedule(cases: Sequence[_Case], banks: Mapping[str, Bank], records: int, rng: Random) -> list[tuple[_Case, str]]:
    """Which case and which kind each record is; within a case the kinds take turns, so that none is missing."""
    share, rest = divmod(records, len(cases))
    larger = set(rng.sample(range(len(cases)), rest))
    slots = []
    for number, case in enumerate(cases):
        kinds = list(banks[case.language].opening)
        start = rng.randrange(len(kinds))
        slots += [(case, kinds[(start + i) % len(kinds)]) for i in range(share + (number in larger))]
    rng.shuffle(slots)
    return slots


class _People:
    """Draws a record's subject: somebody who speaks its language and whom its topic can befall."""

    def __init__(self, plan: Plan, cases: Sequence[_Case], records: int, rng: Random) -> None:
        self._rng = rng
        self._subjects: dict[str, list[Subject]] = {}
        self._drawn: dict[_Case, tuple[list[Subject], list[float]]] = {}
        taken: set[str] = set()
        for language in dict.fromkeys(case.language for case in cases):
            part = sum(case.language == language for case in cases) / len(cases)
            count = round(records * subjects_per_record * part)
            self._subjects[language] = invent(count, language, rng, prefix=plan.subject_prefix, taken=taken)

    def draw(self, case: _Case) -> Subject:
        if case not in self._drawn:
            able = [s for s in self._subjects[case.language] if _can_befall(s, case.facet)]
            self._drawn[case] = able, list(accumulate(s.weight for s in able))
        able, weights = self._drawn[case]
        return self._rng.choices(able, cum_weights=weights)[0]


def _can_befall(subject: Subject, facet: Facet) -> bool:
    return facet.gender in {None, subject.gender} and facet.ages[0] <= subject.age <= facet.ages[1]


def _ids(prefix: str, rng: Random) -> Iterator[str]:
    """Distinct identifiers that say nothing of their records or of each other."""
    seen: set[str] = set()
    while True:
        value = prefix + "-" + "".join(rng.choice("0123456789abcdefghjkmnpqrstvwxyz") for _ in range(8))
        if value not in seen:
            seen.add(value)
            yield value


# --- text ----------------------------------------------------------------------------------------------------------

TITLE = {"en": {"f": "Ms", "m": "Mr"}, "de": {"f": "Frau", "m": "Herr"}, "es": {"f": "Sra.", "m": "Sr."}}
PERSON = {
    "en": {"f": "She", "m": "He"},
    "de": {"f": "Die Patientin", "m": "Der Patient"},
    "es": {"f": "La paciente", "m": "El paciente"},
}
MONTHS = calendar.month_name  # counts from 1; nobody sets a locale here
DECIMAL = {"en": ".", "de": ",", "es": ","}
CURRENCY = {"GB": "£{}", "IE": "€{}", "US": "${}", "DE": "{} Euro", "AT": "{} Euro", "CH": "{} Franken", "ES": "{} euros", "MX": "{} pesos"}  # fmt: skip


def _write(case: _Case, kind: str, bank: Bank, subject: Subject, rng: Random, taken: set[str]) -> str:
    """A text that no other record has; ``taken`` holds the texts so far."""
    while (text := _compose(case, kind, bank, subject, rng)) in taken or len(text) < characters_min:
        pass
    taken.add(text)
    return text


def _compose(case: _Case, kind: str, bank: Bank, subject: Subject, rng: Random) -> str:
    slots = _slots(case, subject, rng)

    def write(template: str) -> str:
        return fill(template, rng, slots, decimal=DECIMAL[case.language])

    says = rng.sample(case.facet.says, rng.choice((2, 2, 3)))
    plan = [rng.choice(case.topic.plan)]
    aside = rng.sample(bank.aside, rng.choice((0, 1, 1, 2)))
    body = says + aside[:1] + plan if rng.random() < 0.5 else aside[:1] + says + plan
    sentences = [write(rng.choice(bank.opening[kind])), *map(write, body)]
    for optional in (*aside[1:], rng.choice(bank.closing[kind])):
        longer = [*sentences, write(optional)]
        if len(" ".join(longer)) <= characters_max:
            sentences = longer
    return " ".join(sentences)


def _slots(case: _Case, subject: Subject, rng: Random) -> dict[str, str]:
    language = case.language
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.choice((2024, 2025))
    amount = rng.choice((rng.randint(12, 99), rng.randint(100, 999), rng.randint(1_000, 9_500)))
    return {
        "name": subject.name,
        "title": TITLE[language][subject.gender],
        "last": subject.last,
        "number": subject.number,
        "age": str(subject.age),
        "Person": PERSON[language][subject.gender],
        "date": f"{day} {MONTHS[month]} {year}" if language == "en" else f"{day:02}.{month:02}.{year}",
        "amount": CURRENCY[subject.country].format(amount),
        "condition": rng.choice(case.topic.condition),
    }


# --- lines ---------------------------------------------------------------------------------------------------------


def _line(record_id: str, text: str, case: _Case, subject: Subject, rng: Random) -> dict[str, object]:
    sensitivity = 3 if rng.random() < restricted_share else rng.choice(case.topic.sensitivity)
    return {
        "_id": record_id,
        "title": "",
        "text": text,
        "metadata": {
            "subject": subject.number,
            "person": subject.name,
            "attributes": {
                "department": case.topic.department,
                "sensitivity": sensitivity,
                "country": subject.country,
            },
        },
    }


def _with_queries(
    plan: Plan, lines: list[dict[str, object]], answers: Mapping[_Case, Sequence[tuple[str, str]]], rng: Random
) -> Generated:
    asked = _asked(answers, rng)
    queries: list[dict[str, object]] = []
    qrels: list[tuple[str, str, int]] = []
    for number, case in enumerate(asked, start=1):
        query_id = f"{plan.record_prefix}-q{number:02}"
        queries.append({"_id": query_id, "text": case.facet.query, "metadata": {"language": case.language}})
        qrels += [(query_id, record, 2 if kind == case.facet.setting else 1) for record, kind in sorted(answers[case])]
    return Generated(corpus=lines, queries=queries, qrels=qrels)


def _asked(cases: Iterable[_Case], rng: Random) -> list[_Case]:
    """The cases whose queries are put: every one that names a setting, and others by lot up to each language's share."""
    able = [case for case in cases if case.facet.query]
    rng.shuffle(able)
    able.sort(key=lambda case: case.facet.setting is None)  # stable: the lot decides among equals
    chosen = [case for lang, count in queries_put.items() for case in [c for c in able if c.language == lang][:count]]
    rng.shuffle(chosen)
    return chosen
