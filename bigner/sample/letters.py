"""Customer letters in Czech and English, generated with their entities.

    CREDITOR_NUMBER  the number under which a creditor is registered
    BIRTH_NUMBER     the Czech birth number of a person: yymmdd/xxxx, a multiple of 11
    SURNAME          the surname of a person
    GIVEN_NAME       the given name of a person
    BIRTH_DATE       the date of birth of a person

One rule decides names: the name of a person is an entity whoever it is, customer, guarantor or
clerk, and nothing else is: not the name in a street, a company or an e-mail address, and no title.
All other numbers and dates (contracts, invoices, phones, due dates, weddings) are no entities, even
where they have the shape of one.

A letter depends on the seed, its split and its number alone: it is the same on every machine.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from bigner.sample.names import Name, Stock, Surname, stock
from bigner.sample.templates import LAYOUTS, POOLS

ENTITY_TYPES = ("BIRTH_DATE", "BIRTH_NUMBER", "CREDITOR_NUMBER", "GIVEN_NAME", "SURNAME")
SIZES = {"train": 1280, "validation": 60, "test": 80}
"""Letters in each split."""
SEED = 2024

Sentence = tuple[tuple[str, str], ...]
"""Words with their tags, in IOB2."""
Letter = tuple[Sentence, ...]
Span = tuple[str, str | None]
"""Words set apart by blanks, and the type of entity that they are together, if any."""


def write_letters(split: str, *, seed: int = SEED) -> list[Letter]:
    """The letters of one split; half of them, within chance, Czech."""
    return [_write_letter(f"{seed}/{split}/{number}", split) for number in range(SIZES[split])]


def as_columns(letters: Iterable[Letter]) -> str:
    """The letters as a column file: a word and its tag a line, a blank line after a sentence."""
    return "".join(_column_lines(letters))


def _column_lines(letters: Iterable[Letter]) -> Iterator[str]:
    for letter in letters:
        yield "# newdoc\n"
        for sentence in letter:
            for word, tag in sentence:
                yield f"{word}\t{tag}\n"
            yield "\n"


def _write_letter(key: str, split: str) -> Letter:
    # A string seeds through SHA-512, so PYTHONHASHSEED has no say.
    rng = random.Random(key)
    language = rng.choice(("cs", "en"))
    writer = _Writer.at_desk(rng, language, with_held_out=split != "train")
    return tuple(writer.fill(line) for line in _outline(rng, language))


def _outline(rng: random.Random, language: str) -> Iterator[str]:
    """The sentences of a letter from top to bottom, their slots still open."""
    for section in rng.choices(LAYOUTS, weights=(3, 3, 3, 2))[0]:
        if rng.random() >= section.chance:
            continue
        pool = POOLS[language][section.pool]
        for text in rng.sample(pool, rng.randint(section.least, section.most)):
            yield from text


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is named in a letter."""

    woman: bool
    given: Name
    surname: Surname
    born: date
    birth_number: str
    """Ten digits without the slash."""

    @classmethod
    def draw(cls, rng: random.Random, names: Stock) -> Person:
        """Anybody, born so that the birth number has ten digits and an unambiguous century."""
        woman = rng.random() < 0.5
        born = _draw_date(rng, 1955, 2003)
        return cls(
            woman=woman,
            given=rng.choice(names.women if woman else names.men),
            surname=rng.choice(names.surnames),
            born=born,
            birth_number=_draw_birth_number(rng, born, woman=woman),
        )


def _draw_date(rng: random.Random, first_year: int, last_year: int) -> date:
    first = date(first_year, 1, 1)
    return first + timedelta(days=rng.randrange((date(last_year, 12, 31) - first).days + 1))


def _draw_birth_number(rng: random.Random, born: date, *, woman: bool) -> str:
    month = born.month + (50 if woman else 0)
    head = f"{born.year % 100:02}{month:02}{born.day:02}"
    # The last four digits make the whole a multiple of 11.
    tail = -int(head) * 10_000 % 11 + 11 * rng.randrange(908)
    return f"{head}{tail:04}"


@dataclass(frozen=True, slots=True)
class _Writer:
    """Fills the slots of one letter; its people and the style of its numbers stay the same."""

    rng: random.Random
    language: str
    names: Stock
    people: dict[str, Person]
    creditor_numbers: tuple[str, str]
    date_style: int
    slash: bool

    @classmethod
    def at_desk(cls, rng: random.Random, language: str, *, with_held_out: bool) -> _Writer:
        """A writer with a case to write about."""
        names = stock(language, with_held_out=with_held_out)
        # Czech customers get English letters too, their names unbent.
        foreign = language == "en" and rng.random() < 0.25
        debtors = stock("cs", with_held_out=with_held_out) if foreign else names
        return cls(
            rng=rng,
            language=language,
            names=names,
            people={
                "debtor": Person.draw(rng, debtors),
                "partner": Person.draw(rng, debtors),
                "clerk": Person.draw(rng, names),
            },
            creditor_numbers=(_draw_creditor_number(rng), _draw_creditor_number(rng)),
            date_style=rng.randrange(len(_DATE_STYLES[language])),
            slash=rng.random() < 0.6,
        )

    def fill(self, line: str) -> Sentence:
        """A template line as words with tags."""
        return tuple(pair for word in line.split() for pair in self._words(word))

    def _words(self, word: str) -> Iterator[tuple[str, str]]:
        spans: Iterable[Span] = [(word, None)]
        if word.startswith("{"):
            spans = self._spans(word[1:-1])
        for text, kind in spans:
            for position, part in enumerate(text.split()):
                prefix = "I-" if position else "B-"
                yield part, f"{prefix}{kind}" if kind else "O"

    def _spans(self, slot: str) -> Iterable[Span]:
        if slot in _PLAIN_SLOTS:
            return [(_PLAIN_SLOTS[slot](self), None)]
        if slot.startswith("creditor_number"):
            return [(self.creditor_numbers[slot.endswith("_2")], "CREDITOR_NUMBER")]
        if "?" in slot:
            role, _, choice = slot.partition("?")
            return [(choice.split("/")[self.people[role].woman], None)]
        role, _, case = slot.partition(":")
        role, _, part = role.partition(".")
        return self._person_spans(self.people[role], part, case or "nom")

    def _person_spans(self, person: Person, part: str, case: str) -> list[Span]:
        match part:
            case "title":
                return [(self.rng.choice(_TITLES[self.language][person.woman]), None)]
            case "birth_date":
                return [(self.show_date(person.born), "BIRTH_DATE")]
            case "birth_number":
                head, tail = person.birth_number[:6], person.birth_number[6:]
                return [(f"{head}/{tail}" if self.slash else head + tail, "BIRTH_NUMBER")]
        return self._name_spans(person, part, case)

    def _name_spans(self, person: Person, part: str, case: str) -> list[Span]:
        given: Span = (self._bent(person.given, case), "GIVEN_NAME")
        surname: Span = (self._bent(person.surname.of(woman=person.woman), case), "SURNAME")
        capitals: Span = (surname[0].upper(), "SURNAME")
        comma: Span = (",", None)
        match part:
            case "":
                return [given, capitals if self.rng.random() < 0.1 else surname]
            case "given":
                return [given]
            case "surname":
                return [surname]
            case "listed":
                return self.rng.choice(
                    ([surname, given], [surname, comma, given], [capitals, given])
                )
        raise AssertionError(f"no such slot of a person: {part!r}")

    def _bent(self, name: Name, case: str) -> str:
        return name[case if self.language == "cs" else "nom"]

    def show_date(self, day: date) -> str:
        """A date as this letter writes it, now and then otherwise."""
        styles = _DATE_STYLES[self.language]
        style = self.date_style if self.rng.random() < 0.7 else self.rng.randrange(len(styles))
        month = _MONTHS[self.language][day.month - 1]
        return styles[style].format(day=day.day, month=day.month, year=day.year, name=month)

    def other_date(self) -> str:
        """A date that is not of birth, sometimes as old as one."""
        first_year = 1960 if self.rng.random() < 0.3 else 2015
        return self.show_date(_draw_date(self.rng, first_year, 2024))

    def amount(self) -> str:
        """A sum of money."""
        crowns, hundredths = self.rng.randrange(100, 90_000), self.rng.choice((0, 0, 50, 90))
        if self.language == "cs":
            return f"{crowns:,},{hundredths:02} Kč".replace(",", " ", crowns >= 1000)
        return f"CZK {crowns:,}.{hundredths:02}"

    def street(self) -> str:
        """A street with a house number; many are named after people."""
        honoured = self.rng.choice(self.names.surnames)
        if self.language == "cs":
            choices = (honoured.street, honoured.street, *_STREETS["cs"])
        else:
            kind = self.rng.choice(("Street", "Road", "Lane", "Avenue"))
            choices = (f"{honoured.man['nom']} {kind}",) * 4 + _STREETS["en"]
        return f"{self.rng.choice(choices)} {self.rng.randrange(1, 199)}"

    def company(self) -> str:
        """A company; some bear the names of their owners."""
        owner, other = (self.rng.choice(self.names.surnames).man["nom"] for _ in range(2))
        return self.rng.choice(_COMPANIES[self.language]).format(owner=owner, other=other)

    def email(self) -> str:
        """An address made of a name, as one word."""
        surname = _without_accents(self.rng.choice(self.names.surnames).woman["nom"].lower())
        return f"{surname}@{self.rng.choice(('posta', 'mail', 'firma'))}.cz"


def _without_accents(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFD", text) if char.isascii())


def _digits(rng: random.Random, pattern: str) -> str:
    """``pattern`` with a digit for every ``#``; a number never begins with zero."""
    first = pattern.find("#")
    return "".join(
        str(rng.randrange(place == first, 10)) if char == "#" else char
        for place, char in enumerate(pattern)
    )


def _draw_reference(rng: random.Random) -> str:
    return _digits(rng, rng.choice(_REFERENCE_SHAPES))


def _draw_creditor_number(rng: random.Random) -> str:
    return _digits(rng, rng.choice((*_REFERENCE_SHAPES, "CZ##ZZZ#####", "CZ##ZZZ#####")))


# Contracts, invoices and creditors are numbered alike, so that only the words around them tell.
_REFERENCE_SHAPES = (
    "##########",
    "########",
    "######-####",
    "V-######",
    "VR/####/##",
    "CR-####-###",
    "### ### ###",
    "K ####-###",
)
_DATE_STYLES = {
    "cs": (
        "{day}. {month}. {year}",
        "{day}.{month}.{year}",
        "{day:02}.{month:02}.{year}",
        "{day}. {name} {year}",
        "{year}-{month:02}-{day:02}",
    ),
    "en": (
        "{day} {name} {year}",
        "{name} {day} , {year}",
        "{day:02}/{month:02}/{year}",
        "{day}.{month}.{year}",
        "{year}-{month:02}-{day:02}",
    ),
}
_MONTHS = {
    "cs": (
        *("ledna", "února", "března", "dubna", "května", "června"),
        *("července", "srpna", "září", "října", "listopadu", "prosince"),
    ),
    "en": (
        *("January", "February", "March", "April", "May", "June"),
        *("July", "August", "September", "October", "November", "December"),
    ),
}
# For men, then for women.
_TITLES = {
    "cs": (("pan", "pan", "Ing.", "Mgr.", "JUDr."), ("paní", "paní", "Ing.", "Mgr.", "MUDr.")),
    "en": (("Mr", "Mr", "Dr"), ("Ms", "Mrs", "Dr")),
}
_STREETS = {
    "cs": ("Boženy Němcové", "náměstí Jiřího z Poděbrad", "Karla Čapka", "Lipová", "Na Příkopě"),
    "en": ("King George Street", "St John Square", "Station Road", "Queen Mary Avenue"),
}
# As a name stands alone, and as it stands after "in".
_CITIES = {
    "cs": (
        ("Praha", "Praze"),
        ("Brno", "Brně"),
        ("Ostrava", "Ostravě"),
        ("Plzeň", "Plzni"),
        ("Olomouc", "Olomouci"),
        ("Liberec", "Liberci"),
        ("Jihlava", "Jihlavě"),
        ("Kolín", "Kolíně"),
    ),
    "en": tuple(
        (city, city)
        for city in ("Prague", "Brno", "London", "Leeds", "Bristol", "York", "Oxford", "Dublin")
    ),
}
_COMPANIES = {
    "cs": (
        "{owner} a synové s.r.o.",
        "{owner} & {other} , advokátní kancelář",
        "Stavby {owner} a.s.",
        "{owner} Reality s.r.o.",
        "Česká úvěrová banka a.s.",
        "Moravská pojišťovna a.s.",
        "Inkaso Plus s.r.o.",
        "Energie Sever a.s.",
    ),
    "en": (
        "{owner} & Sons Ltd",
        "{owner} and {other} LLP",
        "{owner} Brothers plc",
        "{owner} Estates Ltd",
        "First Credit Bank plc",
        "Northern Insurance Ltd",
        "Collect Plus Ltd",
        "Riverside Energy plc",
    ),
}
_PLAIN_SLOTS: dict[str, Callable[[_Writer], str]] = {
    "account": lambda writer: _digits(writer.rng, "#########/####"),
    "amount": _Writer.amount,
    # Six digits, a slash and four, as in a birth number, but of no month.
    "case_number": lambda writer: _digits(writer.rng, "##9###/20##"),
    "city": lambda writer: writer.rng.choice(_CITIES[writer.language])[0],
    "company": _Writer.company,
    "count": lambda writer: str(writer.rng.randrange(2, 60)),
    "date": _Writer.other_date,
    "eight_digits": lambda writer: _digits(writer.rng, "########"),
    "email": _Writer.email,
    "iban": lambda writer: _digits(writer.rng, "CZ## #### #### #### #### ####"),
    "in_city": lambda writer: writer.rng.choice(_CITIES[writer.language])[1],
    "nine_digits": lambda writer: _digits(writer.rng, "#########"),
    "phone": lambda writer: _digits(
        writer.rng, writer.rng.choice(("+420 ### ### ###", "### ### ###"))
    ),
    "reference": lambda writer: _draw_reference(writer.rng),
    "street": _Writer.street,
    "ten_digits": lambda writer: _digits(writer.rng, "##########"),
    "zip": lambda writer: _digits(writer.rng, "### ##"),
}
