"""Chapters of plain text in the common languages of Europe, and what is no heading in any of them."""

from pathlib import Path

import pytest

from longfocus.reading.documents import load_document
from longfocus.reading.documents.heading_languages import LANGUAGES
from longfocus.reading.documents.heading_words import folded, kinds, number_words
from longfocus.reading.documents.headline import parse_headline

PROSE = {
    "de": "Es war ein schöner Tag, und niemand wusste, was der Abend dem Haus am Fluss noch bringen würde. ",
    "fr": "C'était une belle journée, et personne ne savait ce que le soir apporterait à la maison du fleuve. ",
    "es": "Era un día hermoso, y nadie sabía lo que la tarde iba a traer a la casa junto al río. ",
    "pt": "Era um dia bonito, e ninguém sabia o que a tarde ia trazer à casa junto ao rio. ",
    "it": "Era una bella giornata, e nessuno sapeva che cosa la sera avrebbe portato alla casa sul fiume. ",
    "nl": "Het was een mooie dag, en niemand wist wat de avond zou brengen in het huis aan de rivier. ",
    "sv": "Det var en vacker dag, och ingen visste vad kvällen skulle föra med sig till huset vid ån. ",
    "da and no": "Det var en smuk dag, og ingen vidste, hvad aftenen ville bringe til huset ved åen. ",
    "fi": "Oli kaunis päivä, eikä kukaan tiennyt, mitä ilta toisi taloon joen rannalla. ",
    "pl": "Był piękny dzień i nikt nie wiedział, co wieczór przyniesie domowi nad rzeką. ",
    "cs and sk": "Byl krásný den a nikdo nevěděl, co večer přinese domu u řeky. ",
    "hu": "Szép nap volt, és senki sem tudta, mit hoz az este a folyóparti házra. ",
    "ro": "Era o zi frumoasă și nimeni nu știa ce va aduce seara casei de lângă râu. ",
    "ru": "Был прекрасный день, и никто не знал, что принесёт вечер дому у реки. ",
    "uk": "Був чудовий день, і ніхто не знав, що принесе вечір будинкові біля річки. ",
    "el": "Ήταν μια όμορφη μέρα και κανείς δεν ήξερε τι θα έφερνε το βράδυ στο σπίτι δίπλα στο ποτάμι. ",
}
BOOKS = {
    "de": [["KAPITEL I", "KAPITEL II"], ["Erstes Kapitel", "Zweites Kapitel", "Dreiundzwanzigstes Kapitel"]],
    "fr": [["CHAPITRE PREMIER", "CHAPITRE II", "CHAPITRE III"], ["Chapitre 1", "Chapitre 2. Le retour du marin"]],
    "es": [["CAPÍTULO PRIMERO", "CAPÍTULO II"], ["Capitulo 1", "Capitulo 2: De lo que vio en el camino", "Epílogo"]],
    "pt": [["CAPÍTULO I", "CAPÍTULO II"], ["Capítulo primeiro", "Capítulo décimo segundo"]],
    "it": [["CAPITOLO I", "CAPITOLO II"], ["Prefazione", "Capitolo primo", "Capitolo secondo"]],
    "nl": [["HOOFDSTUK I", "HOOFDSTUK II"], ["Eerste hoofdstuk", "Tweede hoofdstuk"], ["Hoofdstuk 1", "Hoofdstuk 2"]],
    "sv": [["FÖRSTA KAPITLET", "ANDRA KAPITLET"], ["Kapitel 1", "Kapitel 2"]],
    "da and no": [["Første kapitel", "Andet kapitel"], ["KAPITTEL 1", "KAPITTEL 2"]],
    "fi": [["ENSIMMÄINEN LUKU", "TOINEN LUKU"], ["1. luku", "2. luku"]],
    "pl": [["ROZDZIAŁ I", "ROZDZIAŁ II"], ["Rozdział pierwszy", "Rozdział drugi"]],
    "cs and sk": [["KAPITOLA I", "KAPITOLA II"], ["Kapitola první", "Kapitola druhá"], ["1. kapitola", "2. kapitola"]],
    "hu": [["ELSŐ FEJEZET", "MÁSODIK FEJEZET"], ["1. fejezet", "2. fejezet"]],
    "ro": [["CAPITOLUL I", "CAPITOLUL II"]],
    "ru": [
        ["ГЛАВА I", "ГЛАВА II"],
        ["Глава первая", "Глава вторая", "Глава двадцать третья"],
        ["Предисловие", "Глава 1"],
    ],
    "uk": [["РОЗДІЛ I", "РОЗДІЛ II"], ["Розділ перший", "Розділ другий"]],
    "el": [["ΚΕΦΑΛΑΙΟ I", "ΚΕΦΑΛΑΙΟ II"], ["Κεφάλαιο πρώτο", "Κεφάλαιο δεύτερο"]],
}


def labels(folder: Path, text: str) -> list[str]:
    path = folder / "book.txt"
    path.write_text(text, "utf-8")
    return [section.label for section in load_document(path).sections]


@pytest.mark.parametrize(("code", "headings"), [(code, one) for code, books in BOOKS.items() for one in books])
def test_chapters(tmp_path: Path, code: str, headings: list[str]) -> None:
    text = "\n\n\n".join(f"{heading}\n\n{PROSE[code] * 3}" for heading in headings)
    assert labels(tmp_path, text) == headings


def test_every_language_is_tested() -> None:
    assert {*BOOKS} == {*PROSE} == {*LANGUAGES} - {"en"}


@pytest.mark.parametrize(
    ("code", "parts", "chapters"),
    [
        ("de", ("ERSTER TEIL", "ZWEITER TEIL"), ("Erstes Kapitel", "Zweites Kapitel")),
        ("fr", ("PREMIÈRE PARTIE", "SECONDE PARTIE"), ("I", "II")),
        ("fr", ("Livre premier", "Livre deuxième"), ("Chapitre I", "Chapitre II")),
        ("es", ("Primera parte", "Segunda parte"), ("Capítulo 1", "Capítulo 2")),
        ("it", ("PARTE PRIMA", "PARTE SECONDA"), ("CAPITOLO I", "CAPITOLO II")),
        ("ru", ("ЧАСТЬ ПЕРВАЯ", "ЧАСТЬ ВТОРАЯ"), ("I", "II")),
        ("pl", ("CZĘŚĆ PIERWSZA", "CZĘŚĆ DRUGA"), ("Rozdział 1", "Rozdział 2")),
    ],
)
def test_parts_hold_chapters(tmp_path: Path, code: str, parts: tuple[str, str], chapters: tuple[str, str]) -> None:
    inside = "\n\n\n".join(f"{chapter}\n\n{PROSE[code] * 30}" for chapter in chapters)
    text = "\n\n\n".join(f"{part}\n\n{inside}" for part in parts)
    wanted = [f"{part} › {chapter}" for part in parts for chapter in chapters]
    assert [label for label in labels(tmp_path, text) if "›" in label] == wanted


@pytest.mark.parametrize(
    ("line", "kind", "number"),
    [
        ("Kapitel Einundzwanzig", "chapter", 21),
        ("12. Kapitel", "chapter", 12),
        ("XII. KAPITEL", "chapter", 12),
        ("Zweiter Band", "part", 2),
        ("Siebtes Kapitel: Der Brief", "chapter", 7),
        ("Dreißigstes Kapitel", "chapter", 30),
        ("Chapitre dix-sept", "chapter", 17),
        ("Chapitre vingt et un", "chapter", 21),
        ("1re partie", "part", 1),
        ("Tome II", "part", 2),
        ("Capítulo 1º", "chapter", 1),
        ("Capitulo XXI", "chapter", 21),
        ("Capítulo trigésimo primero", "chapter", 31),
        ("Capítulo treinta y dos", "chapter", 32),
        ("2.ª parte", "part", 2),
        ("LIBRO TERZO", "part", 3),
        ("Глава двадцать пятая", "chapter", 25),
        ("Часть 2-я", "part", 2),
        ("Avant-propos", "front", None),
        ("NACHWORT", "back", None),
        ("Anhang B", "back", None),
    ],
)
def test_headlines(line: str, kind: str, number: int | None) -> None:
    head = parse_headline(line)
    assert head is not None
    assert (head.kind, head.number) == (kind, number)


@pytest.mark.parametrize(
    "line",
    [
        "Teil der Abmachung war, dass er schwieg",
        "Teil zwei des Plans war schwieriger",
        "Ein Kapitel für sich",
        "Das dritte Kapitel gefiel ihr am besten.",
        "Band eins der Reihe lag auf dem Tisch",
        "Partie de plaisir",
        "Livre un de la série",
        "Première partie de cartes",
        "Parte de la casa",
        "Primera parte de la historia que contaba",
        "Libro uno de tantos",
        "Del 5 de mayo",
        "Parte prima il padre, poi la madre",
        "Deel uit van het plan",
        "Del av planen",
        "Часть дома сгорела",
        "Глава семьи вошёл в комнату",
        "Книга лежала на столе",
        "Tom said nothing",
        "Act now",
        "Cap in hand",
        "Band of brothers",
        "Chapter Elf",
        "Chapitre premier venu",
        "I parte",
    ],
)
def test_prose_is_no_headline(line: str) -> None:
    assert parse_headline(line) is None


@pytest.mark.parametrize(
    ("under", "label"),
    [
        ("Kapitel 1\nDer Anfang der Reise", "Kapitel 1 — Der Anfang der Reise"),
        ("CHAPITRE I\n\nLe retour du marin", "CHAPITRE I — Le retour du marin"),
        ("Capítulo 1\n\nDe lo que vio en el camino", "Capítulo 1 — De lo que vio en el camino"),
        ("CHAPITRE I\n\n— Bonjour, dit-il.", "CHAPITRE I"),
        ("CHAPITRE I\n\nIl partit.", "CHAPITRE I"),
        ("CHAPTER I\n\nHe went away and", "CHAPTER I"),
    ],
)
def test_titles_in_the_manner_of_sentences(tmp_path: Path, under: str, label: str) -> None:
    assert labels(tmp_path, f"{under}\n\n{PROSE['fr'] * 3}") == [label]


@pytest.mark.parametrize("code", PROSE)
def test_prose_that_begins_with_their_words_has_no_chapters(tmp_path: Path, code: str) -> None:
    """Each word before the language's own sentence, on a line after a blank one."""
    words = [word.capitalize() for word, (_, codes) in kinds().items() if code in codes]
    text = "\n\n".join(f"{word} {PROSE[code].lower() * 2}" for word in words)
    assert labels(tmp_path, text) == []


@pytest.mark.parametrize("code", LANGUAGES)
def test_numbers_in_words(code: str) -> None:
    """Each language counts without a gap; an unlucky spelling would make one."""
    values = set(number_words(code).values())
    assert {*range(1, 11)} <= values
    assert {*range(1, max(value for value in values if value <= 20) + 1)} <= values


def test_words_are_compared_without_accents() -> None:
    assert folded("CAPÍTULO") == folded("Capitulo") == "capitulo"
    assert folded("Première") == "premiere"
    for code, language in LANGUAGES.items():
        for word in language.tens:
            assert folded(word) == word, f"{word} ({code}) could never be found"
