"""Names of people in Czech and English, and how Czech ones are inflected.

A name is a stem and the set of endings it takes; the endings stand in the order of ``CASES``.
English names never change. The lists called HELD_OUT hold the names
that training letters never use.
"""

from __future__ import annotations

from dataclasses import dataclass

CASES = ("nom", "gen", "dat", "acc", "voc", "ins")

_MAN_ENDINGS: dict[str, tuple[str, ...]] = {
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
_WOMAN_ENDINGS: dict[str, tuple[str, ...]] = {
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
    "velar": """
        Novák Dvořák Horák Polák Malík Kubík Vlach Bednařík Hudák Slezák Sedlák Čermák Kovařík
    """,
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
    "hard": """
        Jan Martin Milan Roman Jakub Josef Adam Filip David Viktor Stanislav Václav Miroslav
        Antonín Vladimír Kryštof Štěpán Daniel Richard Rostislav Vladislav Bohumil Emil Cyril
    """,
    "velar": "Vojtěch Dominik Patrik Oldřich Jindřich Erik",
    "soft": "Tomáš Lukáš Ondřej Matěj Aleš Matyáš Tadeáš Blažej",
    "ek": "Mar Rad",
    "el": "Pav Kar",
    "tr": "Pet",
    "í": "Jiř",
}
_CZECH_MEN_HELD_OUT = {"hard": "Jaroslav Libor", "velar": "Bedřich Ludvík", "soft": "Miloš Luboš"}
_CZECH_WOMEN = {
    "na": """
        Jan Han Ev Alen Helen Ann Iren Zuzan Kateřin Martin Ivan Renat Markét Alžbět
        Vlast Krist Adin Marin Regin Justýn Karolín Pavlín Nin Dan Ilon Krystýn
    """,
    "ka": "Len Rad Blan Veroni Moni Eliš Zdeň Anež Jaruš Maruš Haniš",
    "ra": "Pet Barbo Klá Vě Sá Isido",
    "la": "Pavl Michael Gabriel Terez Daniel Marcel Nikol Ludmil Bohumil",
    "ie": "Luc Mar Natál Emíl Amál Rozál Otíl",
}
_CZECH_WOMEN_HELD_OUT = {
    "na": "Simon Růžen Božen",
    "ka": "Šár Jit Mark",
    "la": "Kamil",
    "ie": "Jul",
}
_ENGLISH_MEN = """
    John David Michael Paul Andrew Peter James Robert Richard William George Edward Simon Stephen
    Mark Kevin Daniel Matthew Christopher Anthony Charles Henry Thomas Oliver Harold Philip Roger
    Brian Keith Colin Duncan Frank Geoffrey Howard Ian Jonathan Kenneth Leonard Malcolm Neil Owen
"""
_ENGLISH_MEN_HELD_OUT = "Graham Patrick Nicholas Samuel Benjamin"
_ENGLISH_WOMEN = """
    Mary Susan Margaret Sarah Elizabeth Emma Helen Karen Jane Laura Rachel Alice Catherine Anne
    Julia Claire Rebecca Charlotte Emily Linda Patricia Barbara Joan Nicola Amanda Beatrice Carol
    Deborah Eleanor Fiona Gillian Heather Irene Janet Kathleen Lesley Maureen Olivia Pamela Ruth
"""
_ENGLISH_WOMEN_HELD_OUT = "Victoria Hannah Dorothy Jennifer Louise"

# Surnames put together from a beginning and an ending; of ten of them, three are held out. Their
# number teaches a model to look at a name's neighbours, and their parts are known from training.
_CZECH_BEGINNINGS = """
    Bar Ber Bor Cej Dol Dub Fab Hav Hlad Hol Hor Hrad Jar Kal Kap Kol Kop Kos Kub Lan Maj Mal Mat
    Mich Moh Nov Pav Pol Rad Rys Sed Stan Tom Vac Val Van Vav Zah Zem
"""
_CZECH_ENDINGS = (
    *(("ák", "velar"), ("ík", "velar"), ("án", "hard"), ("il", "hard"), ("áš", "soft")),
    *(("íč", "ek"), ("ouš", "ek"), ("in", "a"), ("sk", "ý")),
)
_ENGLISH_BEGINNINGS = """
    Ash Black Brad Burn Cran Dun East Elm Fair Had Hart Hol Ken Lang Mar Mil Nor Pres Rad Rud Shel
    Stan Thorn Wal West Whit Win Wood
"""
_ENGLISH_ENDINGS = (
    *(("ton", ""), ("ley", ""), ("ford", ""), ("field", ""), ("well", "")),
    *(("worth", ""), ("man", ""), ("ham", ""), ("by", ""), ("croft", "")),
)


def _compound_surnames(
    beginnings: str, endings: tuple[tuple[str, str], ...], *, held_out: bool
) -> list[Surname]:
    return [
        _surname(beginning + ending, kind)
        for row, beginning in enumerate(beginnings.split())
        for column, (ending, kind) in enumerate(endings)
        if ((row + 3 * column) % 10 < 3) == held_out
    ]


def _czech_stock(*, held_out: bool) -> Stock:
    surnames = _CZECH_SURNAMES_HELD_OUT if held_out else _CZECH_SURNAMES
    men = _CZECH_MEN_HELD_OUT if held_out else _CZECH_MEN
    women = _CZECH_WOMEN_HELD_OUT if held_out else _CZECH_WOMEN
    compounds = _compound_surnames(_CZECH_BEGINNINGS, _CZECH_ENDINGS, held_out=held_out)
    return Stock(
        surnames=(*_surnames(surnames), *compounds),
        men=tuple(_given(men, _MAN_ENDINGS)),
        women=tuple(_given(women, _WOMAN_ENDINGS)),
    )


def _english_stock(*, held_out: bool) -> Stock:
    surnames = _ENGLISH_SURNAMES_HELD_OUT if held_out else _ENGLISH_SURNAMES
    men = _ENGLISH_MEN_HELD_OUT if held_out else _ENGLISH_MEN
    women = _ENGLISH_WOMEN_HELD_OUT if held_out else _ENGLISH_WOMEN
    compounds = _compound_surnames(_ENGLISH_BEGINNINGS, _ENGLISH_ENDINGS, held_out=held_out)
    return Stock(
        surnames=(*_surnames({"": surnames}), *compounds),
        men=tuple(_given({"": men}, _MAN_ENDINGS)),
        women=tuple(_given({"": women}, _WOMAN_ENDINGS)),
    )


def _without_known(held_out: Stock, known: Stock) -> Stock:
    """``held_out`` less every name of which a form is a form of a known name."""
    seen = {form for name in _all_names(known) for form in name.forms}
    return Stock(
        surnames=tuple(
            surname
            for surname in held_out.surnames
            if seen.isdisjoint(surname.man.forms + surname.woman.forms)
        ),
        men=tuple(name for name in held_out.men if seen.isdisjoint(name.forms)),
        women=tuple(name for name in held_out.women if seen.isdisjoint(name.forms)),
    )


def _all_names(names: Stock) -> list[Name]:
    surnames = [name for surname in names.surnames for name in (surname.man, surname.woman)]
    return [*surnames, *names.men, *names.women]


KNOWN = {"cs": _czech_stock(held_out=False), "en": _english_stock(held_out=False)}
"""Names that any letter may use, by language."""

HELD_OUT = {
    "cs": _without_known(_czech_stock(held_out=True), KNOWN["cs"]),
    "en": _without_known(_english_stock(held_out=True), KNOWN["en"]),
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
