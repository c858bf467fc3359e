"""Names of people in Czech and English, and how Czech ones are inflected.

A name is a stem and the set of endings it takes; the endings stand in the order of ``CASES``.
English names never change. The lists called HELD_OUT hold the names
that training letters never use.
"""

from __future__ import annotations

from dataclasses import dataclass

CASES = ("nom", "gen", "dat", "acc", "voc", "ins")

_MAN_ENDINGS = {
    "": ("",) * 6,
    "hard": ("", "a", "ovi", "a", "e", "em"),
    "velar": ("", "a", "ovi", "a", "u", "em"),
    "soft": ("", "e", "ovi", "e", "i", "em"),
    "ek": ("ek", "ka", "kovi", "ka", "ku", "kem"),
    "el": ("el", "la", "lovi", "la", "le", "lem"),
    "ec": ("ec", "ce", "covi", "ce", "če", "cem"),
    "tr": ("r", "ra", "rovi", "ra", "ře", "rem"),
    "a": ("a", "y", "ovi", "u", "o", "ou"),
    "ý": ("ý", "ého", "ému", "ého", "ý", "ým"),
    "í": ("í", "ího", "ímu", "ího", "í", "ím"),
}
_WOMAN_ENDINGS = {
    "": ("",) * 6,
    "na": ("a", "y", "ě", "u", "o", "ou"),
    "ka": ("ka", "ky", "ce", "ku", "ko", "kou"),
    "ra": ("ra", "ry", "ře", "ru", "ro", "rou"),
    "la": ("a", "y", "e", "u", "o", "ou"),
    "ie": ("ie", "ie", "ii", "ii", "ie", "ií"),
    "ová": ("ová", "ové", "ové", "ovou", "ová", "ovou"),
    "á": ("á", "é", "é", "ou", "á", "ou"),
}
# What stands between the stem of a man's surname and the -ová of a woman's.
_JOINTS = {"ek": "k", "el": "l", "ec": "c", "tr": "r"}


@dataclass(frozen=True, slots=True)
class Name:
    """All forms of one given name or surname, by case."""

    forms: tuple[str, ...]

    def __getitem__(self, case: str) -> str:
        return self.forms[CASES.index(case)]


@dataclass(frozen=True, slots=True)
class Surname:
    """A surname as a man and as a woman bears it."""

    man: Name
    woman: Name

    def of(self, *, woman: bool) -> Name:
        """The forms for a woman or for a man."""
        return self.woman if woman else self.man

    @property
    def street(self) -> str:
        """The street named after a man of this surname, such as ``Novákova``."""
        form = self.woman["nom"]
        return form[:-1] + "a" if form.endswith("ová") else f"{self.man['gen']} ulice"


@dataclass(frozen=True, slots=True)
class Stock:
    """The names one language has to offer."""

    surnames: tuple[Surname, ...]
    men: tuple[Name, ...]
    women: tuple[Name, ...]


def _inflected(stem: str, endings: tuple[str, ...]) -> Name:
    return Name(tuple(stem + ending for ending in endings))


def _surnames(table: dict[str, str]) -> list[Surname]:
    return [_surname(stem, kind) for kind, stems in table.items() for stem in stems.split()]


def _surname(stem: str, kind: str) -> Surname:
    man = _inflected(stem, _MAN_ENDINGS[kind])
    if kind == "":
        return Surname(man, man)
    if kind == "ý":
        return Surname(man, _inflected(stem, _WOMAN_ENDINGS["á"]))
    return Surname(man, _inflected(stem + _JOINTS.get(kind, ""), _WOMAN_ENDINGS["ová"]))


def _given(table: dict[str, str], endings: dict[str, tuple[str, ...]]) -> list[Name]:
    return [
        _inflected(stem, endings[kind]) for kind, stems in table.items() for stem in stems.split()
    ]


_CZECH_SURNAMES = {
    "velar": "Novák Dvořák Horák Polák Malík Kubík Vlach Bednařík Hudák Slezák Sedlák Čermák Kovařík",
    "hard": "Doležal Navrátil Zeman Beran Urban Strnad Holub Sokol Pospíšil Musil Kolman Zapletal",
    "soft": "Bartoš Kovář Beneš Kolář Mareš Tomeš Lukeš Bureš Dolejš Pekař Kubeš",
    "ek": "Háj Duš Šim Janeč Haš Pavlíč Macháč Blaž Koneč",
    "el": "Hav",
    "ec": "Něm Morav Kub",
    "a": "Svobod Procházk Kučer Růžičk Říh Vávr Sýkor Slám Klím Vydr Kotrb Skál",
    "ý": "Čern Vesel Pokorn Novotn Zelen Tich",
}
_CZECH_SURNAMES_HELD_OUT = {
    "velar": "Stehlík Ptáčník Hlavík Krupík Vondrák",
    "hard": "Toman Kašpar Pospíchal Fridrich",
    "soft": "Hanuš Tesař Rybář Vojtíš Jaroš",
    "ek": "Vaš Jež Chval Polív",
    "a": "Fial Hál Vrán Strak Lišk Žemličk",
    "ý": "Šťastn Bystr Moudr",
}
_ENGLISH_SURNAMES = """
    Smith Johnson Williams Brown Taylor Davies Evans Thomas Roberts Walker Wright Thompson White
    Hughes Edwards Green Wood Harris Martin Jackson Clarke Turner Hill Cooper Ward Moore Morris
    King Baker Watson Harrison Morgan Allen Parker Bennett Cook Mitchell Carter Shaw Fisher Ellis
    Foster Palmer Webb Holmes Mills Barnes Knight Pearson Butler Fletcher Grant Spencer
"""
_ENGLISH_SURNAMES_HELD_OUT = """
    Robinson Lewis Bailey Richards Marshall Simpson Chapman Hunter Gibson Murray Dixon Lawson
    Sutton Whitfield Ashworth Thornton Kendrick Barlow Pemberton Hargreaves Ellwood Lancaster
"""
_CZECH_MEN = {
    "hard": "Jan Martin Milan Roman Jakub Josef Adam Filip David Viktor Stanislav Václav Miroslav",
    "velar": "Vojtěch Dominik Patrik Oldřich",
    "soft": "Tomáš Lukáš Ondřej Matěj Aleš",
    "ek": "Mar Rad",
    "el": "Pav Kar",
    "tr": "Pet",
    "í": "Jiř",
}
_CZECH_MEN_HELD_OUT = {"hard": "Jaroslav Libor", "velar": "Bedřich Ludvík", "soft": "Miloš Luboš"}
_CZECH_WOMEN = {
    "na": "Jan Han Ev Alen Helen Ann Iren Zuzan Kateřin Martin Ivan Renat Markét Alžbět",
    "ka": "Len Rad Blan Veroni Moni Eliš",
    "ra": "Pet Barbo Klá",
    "la": "Pavl Michael Gabriel Terez",
    "ie": "Luc Mar Natál",
}
_CZECH_WOMEN_HELD_OUT = {"na": "Simon Růžen Božen", "ka": "Šár Jit", "la": "Kamil", "ie": "Jul"}
_ENGLISH_MEN = """
    John David Michael Paul Andrew Peter James Robert Richard William George Edward Simon Stephen
    Mark Kevin Daniel Matthew Christopher Anthony Charles Henry Thomas Oliver
"""
_ENGLISH_MEN_HELD_OUT = "Graham Patrick Nicholas Samuel Benjamin"
_ENGLISH_WOMEN = """
    Mary Susan Margaret Sarah Elizabeth Emma Helen Karen Jane Laura Rachel Alice Catherine Anne
    Julia Claire Rebecca Charlotte Emily Linda Patricia Barbara Joan Nicola
"""
_ENGLISH_WOMEN_HELD_OUT = "Victoria Hannah Dorothy Jennifer Louise"


def _czech(surnames: dict[str, str], men: dict[str, str], women: dict[str, str]) -> Stock:
    return Stock(
        tuple(_surnames(surnames)),
        tuple(_given(men, _MAN_ENDINGS)),
        tuple(_given(women, _WOMAN_ENDINGS)),
    )


def _english(surnames: str, men: str, women: str) -> Stock:
    return Stock(
        tuple(_surnames({"": surnames})),
        tuple(_given({"": men}, _MAN_ENDINGS)),
        tuple(_given({"": women}, _WOMAN_ENDINGS)),
    )


KNOWN = {
    "cs": _czech(_CZECH_SURNAMES, _CZECH_MEN, _CZECH_WOMEN),
    "en": _english(_ENGLISH_SURNAMES, _ENGLISH_MEN, _ENGLISH_WOMEN),
}
"""Names that any letter may use, by language."""

HELD_OUT = {
    "cs": _czech(_CZECH_SURNAMES_HELD_OUT, _CZECH_MEN_HELD_OUT, _CZECH_WOMEN_HELD_OUT),
    "en": _english(_ENGLISH_SURNAMES_HELD_OUT, _ENGLISH_MEN_HELD_OUT, _ENGLISH_WOMEN_HELD_OUT),
}
"""Names that only validation and test letters use: a model must know them by their company."""


def stock(language: str, *, with_held_out: bool) -> Stock:
    """The names that a letter in ``language`` draws from."""
    known, held_out = KNOWN[language], HELD_OUT[language]
    if not with_held_out:
        return known
    return Stock(
        known.surnames + held_out.surnames,
        known.men + held_out.men,
        known.women + held_out.women,
    )
