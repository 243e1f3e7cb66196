"""What headings are made of in the common languages of Europe: words for parts and chapters, and their numbers.

Words are in lower case, and without accents, which are not compared (see `heading_words`). Numbers in words go to
twenty, and on by tens where a language says them in two words ("trigésimo primero"); beyond that books use numerals.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Language:
    """A language's words. Numbers: lists from one on; `endings` are what an ordinal's stem may end in, `tens` the first
    of two words that make a number, `others` what the lists leave out.

    `leads` says whether a numeral may stand before the word ("2. Kapitel"), `lower` whether the word behind a number
    is written small ("Première partie").
    """

    parts: str
    chapters: str
    front: tuple[str, ...]
    back: tuple[str, ...]
    cardinals: str
    ordinals: str
    endings: str = ""
    tens: Mapping[str, int] = field(default_factory=dict)
    others: Mapping[str, int] = field(default_factory=dict)
    leads: bool = True
    lower: bool = True


LANGUAGES = {
    "en": Language(
        parts="part book volume vol act",
        chapters="chapter chap stave adventure canto letter scene section",
        front=("preface", "foreword", "introduction", "introductory note", "prologue", "interlude"),
        back=("epilogue", "afterword", "conclusion", "postscript", "appendix"),
        cardinals="one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty",
        ordinals="first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
        "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth",
        tens={
            "twenty": 20,
            "thirty": 30,
            "forty": 40,
            "fifty": 50,
            "sixty": 60,
            "seventy": 70,
            "eighty": 80,
            "ninety": 90,
        },
        others={
            **{"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90},
            **{"thirtieth": 30, "fortieth": 40, "fiftieth": 50, "sixtieth": 60},
        },
        leads=False,
        lower=False,
    ),
    "de": Language(
        parts="teil buch band akt aufzug",
        chapters="kapitel kap abschnitt gesang brief szene auftritt",
        front=("vorwort", "vorrede", "einleitung", "einfuhrung", "prolog", "vorspiel", "zwischenspiel"),
        back=("nachwort", "epilog", "schluss", "anhang", "nachspiel"),
        cardinals="eins zwei drei vier funf sechs sieben acht neun zehn elf zwolf dreizehn vierzehn funfzehn sechzehn "
        "siebzehn achtzehn neunzehn zwanzig",
        ordinals="erst zweit dritt viert funft sechst siebent acht neunt zehnt elft zwolft dreizehnt vierzehnt "
        "funfzehnt sechzehnt siebzehnt achtzehnt neunzehnt zwanzigst",
        endings="e er es",
        others={"siebte": 7, "siebter": 7, "siebtes": 7},
        lower=False,
    ),
    "fr": Language(
        parts="partie livre tome volume acte",
        chapters="chapitre chap scene lettre chant",
        front=("preface", "avant-propos", "introduction", "prologue", "avertissement"),
        back=("epilogue", "postface", "conclusion", "appendice", "annexe"),
        cardinals="un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept "
        "dix-huit dix-neuf vingt",
        ordinals="premier deuxieme troisieme quatrieme cinquieme sixieme septieme huitieme neuvieme dixieme onzieme "
        "douzieme treizieme quatorzieme quinzieme seizieme dix-septieme dix-huitieme dix-neuvieme vingtieme",
        tens={"vingt": 20, "trente": 30, "quarante": 40, "cinquante": 50, "soixante": 60},
        others={"premiere": 1, "second": 2, "seconde": 2},
    ),
    "es": Language(
        parts="parte libro tomo volumen acto",
        chapters="capitulo cap escena carta canto",
        front=("prefacio", "prologo", "introduccion", "preambulo"),
        back=("epilogo", "conclusion", "apendice", "posdata"),
        cardinals="uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciseis "
        "diecisiete dieciocho diecinueve veinte",
        ordinals="primer segund tercer cuart quint sext septim octav noven decim undecim duodecim decimotercer "
        "decimocuart decimoquint decimosext decimoseptim decimoctav decimonoven vigesim",
        endings="o a",
        tens={
            "decimo": 10,
            "decima": 10,
            "vigesimo": 20,
            "trigesimo": 30,
            "veinte": 20,
            "treinta": 30,
            "cuarenta": 40,
            "cincuenta": 50,
        },
        others={"primer": 1, "tercer": 3},
    ),
    "pt": Language(
        parts="parte livro tomo volume ato acto",
        chapters="capitulo cap cena carta canto",
        front=("prefacio", "prologo", "introducao", "advertencia"),
        back=("epilogo", "conclusao", "apendice", "posfacio"),
        cardinals="um dois tres quatro cinco seis sete oito nove dez onze doze treze catorze quinze dezesseis "
        "dezessete dezoito dezenove vinte",
        ordinals="primeir segund terceir quart quint sext setim oitav non decim undecim duodecim",
        endings="o a",
        tens={
            "decimo": 10,
            "decima": 10,
            "vigesimo": 20,
            "trigesimo": 30,
            "vinte": 20,
            "trinta": 30,
            "quarenta": 40,
            "cinquenta": 50,
        },
    ),
    "it": Language(
        parts="parte libro tomo volume atto",
        chapters="capitolo cap scena lettera canto",
        front=("prefazione", "prologo", "introduzione", "premessa"),
        back=("epilogo", "conclusione", "appendice", "postfazione"),
        cardinals="uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici "
        "sedici diciassette diciotto diciannove venti",
        ordinals="prim second terz quart quint sest settim ottav non decim undicesim dodicesim tredicesim "
        "quattordicesim quindicesim sedicesim diciassettesim diciottesim diciannovesim ventesim",
        endings="o a",
        tens={"decimo": 10, "ventesimo": 20, "trentesimo": 30},
    ),
    "nl": Language(
        parts="deel boek bedrijf",
        chapters="hoofdstuk brief zang",
        front=("voorwoord", "inleiding", "proloog"),
        back=("nawoord", "epiloog", "bijlage"),
        cardinals="een twee drie vier vijf zes zeven acht negen tien elf twaalf dertien veertien vijftien zestien "
        "zeventien achttien negentien twintig",
        ordinals="eerste tweede derde vierde vijfde zesde zevende achtste negende tiende elfde twaalfde dertiende "
        "veertiende vijftiende zestiende zeventiende achttiende negentiende twintigste",
    ),
    "sv": Language(
        parts="del delen bok boken akt akten",
        chapters="kapitel kapitlet brev sang scen",
        front=("forord", "inledning", "prolog"),
        back=("efterord", "epilog", "slutord", "bilaga"),
        cardinals="ett tva tre fyra fem sex sju atta nio tio elva tolv tretton fjorton femton sexton sjutton arton "
        "nitton tjugo",
        ordinals="forsta andra tredje fjarde femte sjatte sjunde attonde nionde tionde elfte tolfte trettonde "
        "fjortonde femtonde sextonde sjuttonde artonde nittonde tjugonde",
    ),
    "da and no": Language(
        parts="del bog bok bind akt",
        chapters="kapitel kapittel brev sang scene",
        front=("forord", "indledning", "innledning", "prolog"),
        back=("efterord", "etterord", "epilog", "bilag", "vedlegg"),
        cardinals="en to tre fire fem seks syv otte ni ti elleve tolv tretten fjorten femten seksten sytten atten "
        "nitten tyve",
        ordinals="første anden tredje fjerde femte sjette syvende ottende niende tiende ellevte tolvte trettende "
        "fjortende femtende sekstende syttende attende nittende tyvende",
        others={"andet": 2, "annen": 2, "annet": 2, "andre": 2, "sju": 7, "sjuende": 7, "atte": 8, "attende": 8},
    ),
    "fi": Language(
        parts="osa kirja",
        chapters="luku kappale",
        front=("esipuhe", "johdanto", "prologi"),
        back=("jalkisanat", "epilogi", "liite"),
        cardinals="yksi kaksi kolme nelja viisi kuusi seitseman kahdeksan yhdeksan kymmenen",
        ordinals="ensimmainen toinen kolmas neljas viides kuudes seitsemas kahdeksas yhdeksas kymmenes yhdestoista "
        "kahdestoista",
    ),
    "pl": Language(
        parts="czesc ksiega tom akt",
        chapters="rozdział scena",
        front=("przedmowa", "wstep", "prolog", "wprowadzenie"),
        back=("posłowie", "epilog", "zakonczenie", "dodatek"),
        cardinals="jeden dwa trzy cztery piec szesc siedem osiem dziewiec dziesiec",
        ordinals="pierwsz drug trzec czwart piat szost siodm osm dziewiat dziesiat jedenast dwunast trzynast czternast "
        "pietnast szesnast siedemnast osiemnast dziewietnast dwudziest",
        endings="y a e i ia ie",
    ),
    "cs and sk": Language(
        parts="cast kniha dil diel svazek",
        chapters="kapitola scena zpev",
        front=("predmluva", "uvod", "prolog", "predslov"),
        back=("doslov", "epilog", "zaver", "priloha"),
        cardinals="jedna dve tri ctyri pet sest sedm osm devet deset",
        ordinals="prvn druh tret ctvrt pat sest sedm osm devat desat jedenact dvanact trinact ctrnact patnact sestnact "
        "sedmnact osmnact devatenact dvacat",
        endings="i y a e",
    ),
    "hu": Language(
        parts="resz konyv kotet",
        chapters="fejezet",
        front=("eloszo", "bevezetes", "prologus"),
        back=("utoszo", "epilogus", "fuggelek"),
        cardinals="egy ketto harom negy ot hat het nyolc kilenc tiz",
        ordinals="elso masodik harmadik negyedik otodik hatodik hetedik nyolcadik kilencedik tizedik tizenegyedik "
        "tizenkettedik",
    ),
    "ro": Language(
        parts="partea cartea volumul",
        chapters="capitolul scrisoarea",
        front=("prefata", "cuvant inainte", "introducere", "prolog"),
        back=("epilog", "postfata", "incheiere", "anexa"),
        cardinals="unu doi trei patru cinci sase sapte opt noua zece",
        ordinals="intai intaia",
        leads=False,
    ),
    "ru": Language(
        parts="часть книга том",
        chapters="глава письмо сцена действие",
        front=("предисловие", "введение", "вступление", "пролог"),
        back=("послесловие", "эпилог", "заключение", "приложение"),
        cardinals="один два три четыре пять шесть семь восемь девять десять",
        ordinals="перв втор трет четверт пят шест седьм восьм девят десят одиннадцат двенадцат тринадцат четырнадцат "
        "пятнадцат шестнадцат семнадцат восемнадцат девятнадцат двадцат",
        endings="ый ая ое ой ий ья ье",
        tens={"двадцать": 20, "тридцать": 30, "сорок": 40, "пятьдесят": 50, "шестьдесят": 60},
    ),
    "uk": Language(
        parts="частина книга том",
        chapters="розділ глава",
        front=("передмова", "вступ", "пролог"),
        back=("післямова", "епілог", "висновки", "додаток"),
        cardinals="один два три чотири пять шість сім вісім девять десять",
        ordinals="перш друг трет четверт пят шост сьом восьм девят десят",
        endings="ий а е я є ій",
    ),
    "el": Language(
        parts="μερος βιβλιο τομος",
        chapters="κεφαλαιο",
        front=("προλογος", "εισαγωγη"),
        back=("επιλογος", "παραρτημα"),
        cardinals="ενα δυο τρια τεσσερα πεντε εξι επτα οκτω εννεα δεκα",
        ordinals="πρωτ δευτερ τριτ τεταρτ πεμπτ εκτ εβδομ ογδο ενατ δεκατ ενδεκατ δωδεκατ",
        endings="ο η α ος",
    ),
}
"""The languages, by code."""
