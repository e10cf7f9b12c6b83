"""The phrase banks behind the demo's corpus: TOML files beside this one, one for each collection and language.

A bank is data: kinds of record with their first and last sentences, sentences that fit any topic, and topics with their
facets. A template holds slots: ``{a|b}`` picks one, ``{3-9}`` and ``{1.5-4.0}`` draw a number, ``{name}`` and the like
are filled from the record's subject. Slots may lie in one another; the inner one is filled first.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from random import Random

__all__ = ["Bank", "Facet", "Topic", "fill", "load_bank"]

SLOT = re.compile(r"\{([^{}]+)\}")
NUMBERS = re.compile(r"(\d+)(?:\.(\d+))?-(\d+)(?:\.(\d+))?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facet:
    """One case of a topic: what its records say, and the query (or none) that only they answer."""

    key: str
    says: tuple[str, ...]
    query: str | None
    setting: str | None  # a kind of record: the query names it, and records of that kind answer it better
    ages: tuple[int, int]  # whom it can befall
    gender: str | None  # "f" or "m" where only one makes sense


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    name: str
    department: str
    sensitivity: tuple[int, ...]
    condition: tuple[str, ...]
    plan: tuple[str, ...]
    facets: tuple[Facet, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """All phrases of one collection in one language."""

    opening: Mapping[str, tuple[str, ...]]  # by kind of record; each names the subject
    closing: Mapping[str, tuple[str, ...]]
    aside: tuple[str, ...]
    topics: tuple[Topic, ...]


def load_bank(collection: str, language: str) -> Bank:
    """The bank of a collection ("clinical-notes", "complaints") in a language ("en", "de", "es")."""
    source = resources.files("secure_embed.cli.demo") / "phrases" / f"{collection}.{language}.toml"
    raw = tomllib.loads(source.read_text(encoding="utf-8"))
    return Bank(
        opening={kind: tuple(phrases) for kind, phrases in raw["opening"].items()},
        closing={kind: tuple(phrases) for kind, phrases in raw["closing"].items()},
        aside=tuple(raw["aside"]),
        topics=tuple(
            Topic(
                name=topic["name"],
                department=topic["department"],
                sensitivity=tuple(topic["sensitivity"]),
                condition=tuple(topic["condition"]),
                plan=tuple(topic["plan"]),
                facets=tuple(
                    Facet(
                        key=facet["key"],
                        says=tuple(facet["says"]),
                        query=facet.get("query"),
                        setting=facet.get("setting"),
                        ages=tuple(facet.get("ages", topic.get("ages", (19, 93)))),
                        gender=facet.get("gender", topic.get("gender")),
                    )
                    for facet in topic["facet"]
                ),
            )
            for topic in raw["topic"]
        ),
    )


def fill(template: str, rng: Random, slots: Mapping[str, str], *, decimal: str) -> str:
    """``template`` with every slot filled. Raises ``KeyError`` for a slot that nobody knows."""

    def one(match: re.Match[str]) -> str:
        body: str = match.group(1)
        if "|" in body:
            return rng.choice(body.split("|"))
        numbers = NUMBERS.match(body)
        if numbers is None:
            return slots[body]
        low, low_places, high, high_places = (part or "" for part in numbers.groups())
        places = len(low_places)
        drawn = str(rng.randint(int(low + low_places), int(high + high_places))).zfill(places + 1)
        return drawn if not places else drawn[:-places] + decimal + drawn[-places:]

    while SLOT.search(template):
        template = SLOT.sub(one, template)
    return template
