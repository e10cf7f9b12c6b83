"""Invented data subjects: names put together from parts, numbers drawn at random. Nobody here lives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

__all__ = ["Subject", "invent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    number: str  # patient or customer number: what an erasure names
    first: str
    last: str
    gender: str
    age: int
    country: str
    weight: float  # how often this subject comes up; heavy-tailed, so that some have many records

    @property
    def name(self) -> str:
        return f"{self.first} {self.last}"


weight_max = 12.0  # or one subject would have a twelfth of a collection

# Surnames are made of two parts, so that they read like names and are hardly anybody's.
FIRST: Mapping[str, Mapping[str, str]] = {
    "en": {
        "f": "Adela Bryony Cressida Delphine Elowen Fenella Ginevra Hesper Isaura Junia Kerensa Linnet Marcella Nerys "
        "Ottoline Perdita Rosalind Sabra Tamsin Verity Winifred Zelda",
        "m": "Alaric Barnaby Corwin Dunstan Edric Florian Gawain Hector Ivo Jolyon Kenelm Lucian Merrick Ninian Osric "
        "Peregrine Quentin Rafe Silas Tobias Ulric Wystan",
    },
    "de": {
        "f": "Adelheid Birgitta Dorothea Edeltraud Friederike Gundula Hedwig Irmgard Jorinde Kunigunde Liesbeth Mechthild "
        "Notburga Ottilie Roswitha Sieglinde Theda Walburga",
        "m": "Albrecht Burkhard Detlev Eckehard Friedhelm Gernot Hartwig Ingolf Jobst Konradin Lothar Meinhard Norwin "
        "Ortwin Reinhold Siegbert Tilmann Wendelin",
    },
    "es": {
        "f": "Adoracion Brigida Consolacion Eulalia Fermina Genoveva Herminia Isaura Leocadia Macarena Natividad Obdulia "
        "Primitiva Remedios",
        "m": "Abundio Baldomero Casimiro Evaristo Faustino Gumersindo Hilario Isidoro Leandro Macario Nicanor Olegario "
        "Policarpo Rosendo",
    },
}
LAST: Mapping[str, tuple[str, str]] = {
    "en": (
        (
            "Arkle Bracken Cander Dunmar Elder Farring Garrow Hazel Inkle Jesmer Kettle Larken Mossen Nether Orchar Pennet "
            "Quarring Rushen Selwick Tarrow Umber Vennor Wexen Yarrow"
        ),
        "bourne croft dale fell garth hythe leigh marsh stow thorpe thwaite wold",
    ),
    "de": (
        (
            "Amselt Birken Dornen Ellern Fichten Ginster Hasel Immen Kolken Lohwer Moorn Nessel Ottern Quellen Rauten Schilf "
            "Tannen Ulmen Wacholder Zirben"
        ),
        "bach brink feldt graben horst kamp lohe moor rode siek stieg wiesen",
    ),
    "es": (
        "Abedul Brezal Carrasc Dehes Encin Fresned Gavil Higuer Jaral Laurel Mimbr Olmed Quejig Robled Sauced Zarzal",
        "anza areda ayo eda encia erilla igosa ondo oria uela urrieta uzal",
    ),
}
COUNTRY: Mapping[str, tuple[Sequence[str], Sequence[int]]] = {
    "en": (("GB", "IE", "US"), (60, 20, 20)),
    "de": (("DE", "AT", "CH"), (60, 20, 20)),
    "es": (("ES", "MX"), (70, 30)),
}


def invent(count: int, language: str, rng: Random, *, prefix: str, taken: set[str]) -> list[Subject]:
    """``count`` subjects who speak ``language``. No name is used twice as long as there are names enough.

    ``taken`` holds the numbers that are in use, and takes in the new ones.
    """
    left, right = (part.split() for part in LAST[language])
    names = [
        (gender, first, a + b)
        for gender in ("f", "m")
        for first in FIRST[language][gender].split()
        for a in left
        for b in right
    ]
    rng.shuffle(names)
    subjects = []
    for i in range(count):
        gender, first, last = names[i % len(names)]
        countries, shares = COUNTRY[language]
        subjects.append(
            Subject(
                number=_number(prefix, rng, taken),
                first=first,
                last=last,
                gender=gender,
                age=rng.randint(1, 15) if rng.random() < 0.15 else rng.randint(19, 93),
                country=rng.choices(countries, shares)[0],
                weight=min(rng.paretovariate(1.3), weight_max),
            )
        )
    return subjects


def _number(prefix: str, rng: Random, taken: set[str]) -> str:
    while (number := f"{prefix}-{rng.randint(10_000_000, 99_999_999)}") in taken:
        pass
    taken.add(number)
    return number
