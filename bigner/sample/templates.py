"""What the letters say: sections of a letter and the sentences each may hold, by language.

A template is a text of one sentence a line, its words set apart by blanks, punctuation marks being
words of their own. A word in braces is a slot, filled by ``letters.py``: ``{debtor:dat}`` is the
full name in the dative, ``{debtor.surname:voc}`` the surname alone, ``{debtor?pan/paní}`` a word
for a man or a woman, ``{date}`` any date but one of birth, and so on. English names have one form
for all cases.

Every label of an entity ("birth number") has neighbours that look like it and mean something else
("contract number"): a model must read the words around a number, not its shape.
"""

# ruff: noqa: E501 - a sentence is a line here, however long

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a letter: ``least`` to ``most`` of its pool's texts, in one letter out of some."""

    pool: str
    least: int = 1
    most: int = 1
    chance: float = 1.0


LAYOUTS: tuple[tuple[Section, ...], ...] = (
    # A company writes to a customer.
    (
        Section("letterhead", chance=0.7),
        Section("addressee", chance=0.8),
        Section("reference", 1, 3, chance=0.8),
        Section("subject", chance=0.8),
        Section("salutation", chance=0.9),
        Section("opening"),
        Section("identity", 1, 3),
        Section("body", 1, 5),
        Section("partner", chance=0.35),
        Section("closing"),
        Section("clerk"),
    ),
    # A customer writes to a company.
    (
        Section("sender"),
        Section("company", chance=0.7),
        Section("subject", chance=0.7),
        Section("greeting", chance=0.9),
        Section("self", 1, 2),
        Section("plea", 1, 4),
        Section("partner", chance=0.3),
        Section("closing"),
        Section("signature"),
    ),
    # A company writes to another about a customer.
    (
        Section("letterhead", chance=0.6),
        Section("company", chance=0.8),
        Section("reference", 1, 3, chance=0.7),
        Section("subject", chance=0.9),
        Section("greeting", chance=0.8),
        Section("identity", 2, 3),
        Section("body", 2, 5),
        Section("partner", chance=0.5),
        Section("closing"),
        Section("clerk"),
    ),
    # A file note, long: everything about a case.
    (
        Section("letterhead", chance=0.5),
        Section("reference", 2, 3),
        Section("subject"),
        Section("identity", 3, 4),
        Section("partner", chance=0.6),
        Section("body", 7, 11),
        Section("plea", 1, 2),
        Section("clerk"),
    ),
)
"""Kinds of letters, each the sections from the top of the page to its end."""

_CZECH = {
    "letterhead": """
{company}
{street} , {zip} {city}
tel. : {phone} , e-mail : {email}
IČO : {eight_digits} , číslo účtu : {account}
---
{company} , se sídlem {street} , {city}
Zapsáno u rejstříkového soudu dne {date} , vložka {count}
---
{company}
Infolinka {phone}
Bankovní spojení : {iban}
---
Věřitel : {company}
Číslo věřitele : {creditor_number}
Adresa : {street} , {zip} {city}
""",
    "addressee": """
{debtor.title} {debtor:nom}
{street}
{zip} {city}
---
{debtor.listed}
{street} , {zip} {city}
---
{debtor.title} {debtor:nom} , {street} , {city}
{city} {date}
---
Adresát : {debtor:nom}
{street}
{zip} {city}
V {in_city} dne {date}
""",
    "reference": """
Vyřizuje : {clerk:nom}
Telefon : {phone}
---
Naše značka : {reference}
Datum : {date}
---
Číslo smlouvy : {reference}
---
Variabilní symbol : {ten_digits}
Spisová značka : {case_number}
---
Č. j. : {case_number}
Vyřizuje : {clerk.title} {clerk.surname:nom} , linka {count}
---
Číslo věřitele : {creditor_number}
Číslo faktury : {reference}
---
V {in_city} dne {date}
""",
    "subject": """
Věc : Upomínka k úhradě dlužné částky {amount}
---
Věc : Oznámení o postoupení pohledávky ze smlouvy č. {reference}
---
Věc : {debtor:nom} , rodné číslo {debtor.birth_number}
---
Předmět : Žádost o splátkový kalendář
---
Věc : Potvrzení o stavu účtu ke dni {date}
---
Předmět : Přihláška pohledávky věřitele č. {creditor_number}
---
Věc : pojistná událost ze dne {date} , {debtor.title} {debtor:nom}
""",
    "salutation": """
{debtor?Vážený/Vážená} {debtor?pane/paní} {debtor.surname:voc} ,
---
{debtor?Vážený/Vážená} {debtor?pane/paní} {debtor.surname:voc} ,
---
{debtor?Vážený/Vážená} {debtor?pane/paní} ,
---
Dobrý den , {debtor?pane/paní} {debtor.surname:voc} ,
""",
    "greeting": """
Vážení ,
---
Dobrý den ,
---
Vážení obchodní partneři ,
""",
    "opening": """
obracíme se na Vás ve věci smlouvy č. {reference} , kterou jste {debtor?podepsal/podepsala} dne {date} .
---
dovolujeme si Vás upozornit , že ke dni {date} evidujeme dluh ve výši {amount} .
---
děkujeme za Váš dopis ze dne {date} , který jsme obdrželi dne {date} .
---
na základě Vaší žádosti č. {reference} Vám sdělujeme následující .
---
navazujeme na telefonický hovor ze dne {date} , který s Vámi {clerk?vedl/vedla} {clerk:nom} .
""",
    "identity": """
Rodné číslo : {debtor.birth_number}
---
Datum narození : {debtor.birth_date}
---
Jméno : {debtor.given:nom}
Příjmení : {debtor.surname:nom}
Nar. : {debtor.birth_date}
---
Příjmení a jméno : {debtor.listed}
R. č. : {debtor.birth_number}
Číslo smlouvy : {reference}
---
V naší evidenci je {debtor.title} {debtor:nom} , {debtor?narozen/narozena} {debtor.birth_date} , r. č. {debtor.birth_number} .
---
Pohledávku vůči {debtor?panu/paní} {debtor:dat} , {debtor?narozenému/narozené} {debtor.birth_date} , evidujeme pod číslem {reference} .
---
Dlužník : {debtor:nom} , {debtor?narozen/narozena} dne {debtor.birth_date} , bytem {street} , {city}
---
Rodné číslo {debtor.birth_number} jsme ověřili v registru dne {date} .
---
Věřitel {company} má přiděleno číslo věřitele {creditor_number} .
---
Vaše číslo věřitele je {creditor_number} , číslo smlouvy {reference} .
---
Smlouva č. {reference} byla uzavřena s {debtor?panem/paní} {debtor:ins} ( rodné číslo {debtor.birth_number} ) dne {date} .
---
Číslo {creditor_number} je číslem věřitele , číslo {reference} je číslem smlouvy .
---
Od {debtor?pana/paní} {debtor.surname:gen} ( nar. {debtor.birth_date} ) jsme dne {date} přijali platbu {amount} .
---
Kontrolovali jsme údaje : datum narození {debtor.birth_date} , datum uzavření smlouvy {date} .
---
Přihlášený věřitel ( č. věřitele {creditor_number} ) eviduje {debtor?pana/paní} {debtor:acc} jako klienta od {date} .
""",
    "body": """
Dlužná částka činí {amount} a je splatná dne {date} .
Uhraďte ji na účet {account} pod variabilním symbolem {ten_digits} .
---
Částku {amount} prosím zaplaťte převodem na {iban} .
---
Fakturu č. {reference} ze dne {date} dosud neuhradil nikdo z účastníků .
---
Případ vyřizuje {clerk:nom} , telefon {phone} .
Písemnosti zasílejte na adresu {street} , {zip} {city} .
---
{debtor?Pan/Paní} {debtor.surname:nom} v poslední době platí se zpožděním {count} dní .
---
S {debtor?panem/paní} {debtor.surname:ins} jsme jednali dne {date} na pobočce v ulici {street} .
---
Dopis pro {debtor?pana/paní} {debtor:acc} se nám vrátil dne {date} jako nedoručený .
---
Soud ve věci sp. zn. {case_number} rozhodl dne {date} o úhradě nákladů řízení {amount} .
---
Pohledávka byla dne {date} postoupena společnosti {company} , IČO {eight_digits} .
Nový věřitel má číslo věřitele {creditor_number} .
---
Pokud jste částku {amount} již {debtor?uhradil/uhradila} , považujte tento dopis za bezpředmětný .
---
Zástavní smlouva č. {reference} se týká nemovitosti v ulici {street} , {city} .
---
Splátkový kalendář má {count} splátek po {amount} , první je splatná dne {date} .
---
Podle sdělení společnosti {company} ze dne {date} nebyla škoda č. {reference} uhrazena .
---
Sňatek byl uzavřen dne {date} , číslo oddacího listu {case_number} .
---
Při platbě uvádějte číslo věřitele {creditor_number} a nikoli číslo klienta {ten_digits} .
---
Totožnost {debtor?pana/paní} {debtor:gen} jsme ověřili podle občanského průkazu č. {nine_digits} vydaného dne {date} .
---
{debtor?Panu/Paní} {debtor.surname:dat} byla dne {date} zaslána výzva č. {reference} .
---
Pod rodným číslem {debtor.birth_number} evidujeme ještě úvěr č. {ten_digits} ze dne {date} .
---
Naše společnost {company} vznikla dne {date} a má {count} zaměstnanců .
---
Dotazy Vám zodpoví {clerk?pan/paní} {clerk.surname:nom} na čísle {phone} nebo na adrese {email} .
---
Datum narození {debtor.birth_date} nesouhlasí s údajem v žádosti ze dne {date} , prosíme o opravu .
---
Exekuční řízení č. {case_number} vede úřad v {in_city} , {street} .
---
Zásilka č. {ten_digits} byla dne {date} uložena na poště {zip} {city} .
---
V registru dlužníků jsou k {debtor?panu/paní} {debtor.surname:dat} vedeny {count} záznamy .
---
Odpověď zašlete do {date} , jinak budeme pohledávku vymáhat soudní cestou .
---
Věřitel č. {creditor_number} a věřitel č. {creditor_number_2} přihlásili své nároky dne {date} .
---
Klient č. {ten_digits} nás dne {date} požádal o prominutí úroku {amount} .
---
Dosavadní platby a jejich data : {date} , {date} a {date} .
---
Společnost {company} nás dne {date} informovala o změně čísla účtu na {account} .
""",
    "partner": """
Spoludlužník : {partner:nom} , r. č. {partner.birth_number}
---
Ručitelem je {partner:nom} , {partner?narozen/narozena} {partner.birth_date} , bytem {street} , {zip} {city} .
---
Za závazek ručí společně s {debtor?panem/paní} {debtor.surname:ins} také {partner.title} {partner:nom} ( rodné číslo {partner.birth_number} ) .
Ručitelské prohlášení č. {reference} je ze dne {date} .
---
Manžel / manželka : {partner.listed} , datum narození {partner.birth_date}
Svatba se konala dne {date} .
---
Platby za {debtor?pana/paní} {debtor.surname:acc} zasílá {partner:nom} z účtu {account} .
---
Kopii dopisu obdrží {partner:nom} , nar. {partner.birth_date} , r. č. {partner.birth_number} , a {company} .
""",
    "closing": """
S pozdravem
---
S přátelským pozdravem
---
Děkujeme za spolupráci .
S pozdravem
---
S úctou
V {in_city} dne {date}
""",
    "clerk": """
{clerk:nom}
oddělení pohledávek
---
{clerk:nom} , {company}
---
{clerk:nom}
telefon {phone}
---
za společnost {company} {clerk.listed}
---
Vyřizuje : {clerk:nom} , {email}
""",
    "sender": """
{debtor:nom}
{street} , {zip} {city}
---
Odesílatel : {debtor.listed} , {street} , {city}
---
{debtor:nom} , nar. {debtor.birth_date}
{street}
{zip} {city}
---
Od : {debtor:nom}
Rodné číslo : {debtor.birth_number}
Telefon : {phone}
""",
    "company": """
{company}
{street}
{zip} {city}
---
Adresát : {company} , {street} , {city}
---
{company} , k rukám {clerk?pana/paní} {clerk:gen}
{street} , {zip} {city}
""",
    "self": """
jmenuji se {debtor:nom} , jsem {debtor?narozen/narozena} dne {debtor.birth_date} a mé rodné číslo je {debtor.birth_number} .
---
já , níže {debtor?podepsaný/podepsaná} {debtor:nom} , r. č. {debtor.birth_number} , žádám o odklad splátky ve výši {amount} .
---
píši Vám ohledně smlouvy č. {reference} , moje rodné číslo je {debtor.birth_number} .
---
dne {date} jsem {debtor?obdržel/obdržela} výzvu k úhradě {amount} , kterou {clerk?podepsal/podepsala} {clerk:nom} .
---
k žádosti uvádím své datum narození {debtor.birth_date} a číslo účtu {account} .
---
Vaše číslo věřitele {creditor_number} uvádím při každé platbě spolu s číslem smlouvy {reference} .
""",
    "plea": """
Prosím o potvrzení , že platba {amount} ze dne {date} dorazila na účet {account} .
---
Dne {date} jsem na Vaší pobočce v ulici {street} {debtor?mluvil/mluvila} s {clerk?panem/paní} {clerk:ins} .
---
Na přihlášce stálo číslo věřitele {creditor_number} , na faktuře ale {reference} .
---
Můžete mě zastihnout na telefonu {phone} nebo na e-mailu {email} .
---
Žádám o {count} splátek od {date} .
---
Fakturu č. {reference} jsem {debtor?zaplatil/zaplatila} dne {date} společnosti {company} .
---
Od {date} pracuji ve firmě {company} , {street} , {city} .
---
Přikládám kopii rozhodnutí č. j. {case_number} ze dne {date} .
---
Prosím , opravte si můj rok narození , správné datum narození je {debtor.birth_date} .
---
Variabilní symbol {ten_digits} jsem {debtor?opsal/opsala} z výzvy , kterou {clerk?poslal/poslala} {clerk.title} {clerk:nom} .
""",
    "signature": """
{debtor:nom}
---
{debtor:nom} , r. č. {debtor.birth_number}
---
podepsáno dne {date}
{debtor:nom}
---
{debtor.listed}
tel. {phone}
""",
}

_ENGLISH = {
    "letterhead": """
{company}
{street} , {city} {zip}
Phone : {phone} , e-mail : {email}
Company no. : {eight_digits} , account : {account}
---
{company} , registered office {street} , {city}
Registered on {date} , file {count}
---
{company}
Helpline {phone}
Bank details : {iban}
---
Creditor : {company}
Creditor number : {creditor_number}
Address : {street} , {city} {zip}
""",
    "addressee": """
{debtor.title} {debtor:nom}
{street}
{city} {zip}
---
{debtor.listed}
{street} , {city} {zip}
---
{debtor.title} {debtor:nom} , {street} , {city}
{city} , {date}
---
To : {debtor:nom}
{street}
{city} {zip}
Date : {date}
""",
    "reference": """
Handled by : {clerk:nom}
Phone : {phone}
---
Our reference : {reference}
Date : {date}
---
Contract number : {reference}
---
Payment reference : {ten_digits}
Case number : {case_number}
---
Court file : {case_number}
Contact : {clerk.title} {clerk.surname:nom} , extension {count}
---
Creditor no. : {creditor_number}
Invoice no. : {reference}
---
{city} , {date}
""",
    "subject": """
Subject : Reminder to pay the outstanding amount of {amount}
---
Re : Assignment of the claim under contract no. {reference}
---
Re : {debtor:nom} , birth number {debtor.birth_number}
---
Subject : Request for an instalment plan
---
Re : Confirmation of the balance as of {date}
---
Subject : Claim of the creditor no. {creditor_number}
---
Re : insurance event of {date} , {debtor.title} {debtor:nom}
""",
    "salutation": """
Dear {debtor?Mr/Ms} {debtor.surname:voc} ,
---
Dear {debtor?Mr/Ms} {debtor.surname:voc} ,
---
Dear Sir or Madam ,
---
Good morning {debtor?Mr/Ms} {debtor.surname:voc} ,
""",
    "greeting": """
Dear Sir or Madam ,
---
Good morning ,
---
Dear partners ,
""",
    "opening": """
We write to you about contract no. {reference} , which you signed on {date} .
---
As of {date} our books show a debt of {amount} .
---
Thank you for your letter of {date} , which reached us on {date} .
---
Following your application no. {reference} we can tell you this .
---
We refer to the call of {date} , in which {clerk:nom} explained the matter to you .
""",
    "identity": """
Birth number : {debtor.birth_number}
---
Date of birth : {debtor.birth_date}
---
Given name : {debtor.given:nom}
Surname : {debtor.surname:nom}
Born : {debtor.birth_date}
---
Name : {debtor.listed}
Birth no. : {debtor.birth_number}
Contract no. : {reference}
---
Our records show {debtor.title} {debtor:nom} , born on {debtor.birth_date} , birth no. {debtor.birth_number} .
---
The claim against {debtor?Mr/Ms} {debtor:acc} , born {debtor.birth_date} , is kept under number {reference} .
---
Debtor : {debtor:nom} , born on {debtor.birth_date} , residing at {street} , {city}
---
We checked the birth number {debtor.birth_number} with the register on {date} .
---
The creditor {company} was given the creditor number {creditor_number} .
---
Your creditor number is {creditor_number} , the contract number is {reference} .
---
Contract no. {reference} was made with {debtor?Mr/Ms} {debtor:ins} ( birth number {debtor.birth_number} ) on {date} .
---
The number {creditor_number} is the creditor number , the number {reference} is that of the contract .
---
From {debtor?Mr/Ms} {debtor.surname:gen} ( born {debtor.birth_date} ) we received a payment of {amount} on {date} .
---
We compared two entries : date of birth {debtor.birth_date} , date of contract {date} .
---
The registered creditor ( creditor no. {creditor_number} ) has had {debtor?Mr/Ms} {debtor:acc} as a client since {date} .
""",
    "body": """
The amount due is {amount} , payable by {date} .
Please pay it to account {account} with payment reference {ten_digits} .
---
Please transfer the amount of {amount} to {iban} .
---
Nobody has yet paid invoice no. {reference} of {date} .
---
The case is handled by {clerk:nom} , phone {phone} .
Send your papers to {street} , {city} {zip} .
---
Lately {debtor?Mr/Ms} {debtor.surname:nom} has been paying {count} days late .
---
We met {debtor?Mr/Ms} {debtor.surname:acc} on {date} at our branch in {street} .
---
The letter to {debtor?Mr/Ms} {debtor:acc} came back on {date} as undelivered .
---
In case {case_number} the court decided on {date} that the costs are {amount} .
---
The claim was assigned on {date} to {company} , company no. {eight_digits} .
The new creditor has the creditor number {creditor_number} .
---
If you have already paid the amount of {amount} , please ignore this letter .
---
The pledge no. {reference} concerns the house at {street} , {city} .
---
The plan has {count} instalments of {amount} , the first of them due on {date} .
---
According to {company} and their notice of {date} , claim no. {reference} is still open .
---
The marriage took place on {date} , certificate number {case_number} .
---
When paying , give the creditor number {creditor_number} and not the client number {ten_digits} .
---
We checked the identity of {debtor?Mr/Ms} {debtor:gen} with identity card no. {nine_digits} issued on {date} .
---
{debtor?Mr/Ms} {debtor.surname:dat} was sent notice no. {reference} on {date} .
---
Under the birth number {debtor.birth_number} there is another loan , no. {ten_digits} of {date} .
---
Our company {company} was founded on {date} and has {count} employees .
---
{clerk?Mr/Ms} {clerk.surname:nom} will answer your questions at {phone} or {email} .
---
The date of birth {debtor.birth_date} differs from the application of {date} , please correct it .
---
The enforcement no. {case_number} is led by the office in {city} , {street} .
---
Parcel no. {ten_digits} has been waiting at the post office {city} {zip} since {date} .
---
The register holds {count} entries on {debtor?Mr/Ms} {debtor.surname:acc} .
---
Please answer by {date} , or we shall go to court .
---
Creditor no. {creditor_number} and creditor no. {creditor_number_2} filed their claims on {date} .
---
On {date} client no. {ten_digits} asked us to waive interest of {amount} .
---
Payments so far were made on these dates : {date} , {date} and {date} .
---
On {date} the company {company} told us of its new account {account} .
""",
    "partner": """
Co-debtor : {partner:nom} , birth no. {partner.birth_number}
---
The guarantor is {partner:nom} , born on {partner.birth_date} , residing at {street} , {city} {zip} .
---
Together with {debtor?Mr/Ms} {debtor.surname:ins} the debt is secured by {partner.title} {partner:nom} ( birth number {partner.birth_number} ) .
The guarantee no. {reference} is of {date} .
---
Spouse : {partner.listed} , date of birth {partner.birth_date}
The wedding was on {date} .
---
Payments for {debtor?Mr/Ms} {debtor.surname:acc} are sent by {partner:nom} from account {account} .
---
A copy goes to {partner:nom} , born {partner.birth_date} , birth no. {partner.birth_number} , and to {company} .
""",
    "closing": """
Yours sincerely
---
Kind regards
---
Thank you for your help .
Kind regards
---
Yours faithfully
{city} , {date}
""",
    "clerk": """
{clerk:nom}
Claims department
---
{clerk:nom} , {company}
---
{clerk:nom}
phone {phone}
---
on behalf of {company} {clerk.listed}
---
Handled by : {clerk:nom} , {email}
""",
    "sender": """
{debtor:nom}
{street} , {city} {zip}
---
Sender : {debtor.listed} , {street} , {city}
---
{debtor:nom} , born {debtor.birth_date}
{street}
{city} {zip}
---
From : {debtor:nom}
Birth number : {debtor.birth_number}
Phone : {phone}
""",
    "company": """
{company}
{street}
{city} {zip}
---
To : {company} , {street} , {city}
---
{company} , for the attention of {clerk?Mr/Ms} {clerk:gen}
{street} , {city} {zip}
""",
    "self": """
my name is {debtor:nom} , I was born on {debtor.birth_date} and my birth number is {debtor.birth_number} .
---
I , the undersigned {debtor:nom} , birth no. {debtor.birth_number} , ask you to defer the payment of {amount} .
---
I write to you about contract no. {reference} , my birth number is {debtor.birth_number} .
---
on {date} I received a demand for {amount} signed by {clerk:nom} .
---
for the application I give my date of birth {debtor.birth_date} and my account number {account} .
---
I give your creditor number {creditor_number} with every payment , next to contract number {reference} .
""",
    "plea": """
Please confirm that the payment of {amount} of {date} has arrived on account {account} .
---
On {date} I spoke to {clerk?Mr/Ms} {clerk:ins} at your branch in {street} .
---
The form showed the creditor number {creditor_number} , but the invoice {reference} .
---
You can reach me by phone at {phone} or by e-mail at {email} .
---
I ask for {count} instalments from {date} .
---
I paid invoice no. {reference} on {date} to {company} .
---
Since {date} I have worked for {company} , {street} , {city} .
---
I enclose a copy of decision no. {case_number} of {date} .
---
Please correct my year of birth , the right date of birth is {debtor.birth_date} .
---
I took the payment reference {ten_digits} from the demand that {clerk.title} {clerk:nom} sent .
""",
    "signature": """
{debtor:nom}
---
{debtor:nom} , birth no. {debtor.birth_number}
---
signed on {date}
{debtor:nom}
---
{debtor.listed}
phone {phone}
""",
}


def _pool(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(variant.strip().split("\n")) for variant in text.split("---\n"))


POOLS: dict[str, dict[str, tuple[tuple[str, ...], ...]]] = {
    "cs": {name: _pool(text) for name, text in _CZECH.items()},
    "en": {name: _pool(text) for name, text in _ENGLISH.items()},
}
"""By language and name of a section, the texts it may hold, each a tuple of sentences."""
