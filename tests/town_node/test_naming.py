import pytest

from services.town_node.circle.naming import find_people

PEOPLE = [("Roos Zonnebloem", "roos@example.org", "036 555 01 02"), ("Bas van der Wit", None, ""), ("José Pérez", None, "")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Roos Zonnebloem said so", ["Roos Zonnebloem"]),
        ("thanks, ZONNEBLOEM!", ["ZONNEBLOEM"]),
        ("jose perez and Perez", ["jose perez", "Perez"]),
        ("Bas van der Wit", ["Bas van der Wit"]),
        ("Bas  Wit", ["Bas  Wit"]),
        ("mail ROOS@example.org.", ["ROOS@example.org"]),
        ("somebody.else@tuin.nl", ["somebody.else@tuin.nl"]),
        ("call 06-12345678 now", ["06-12345678"]),
        ("call +31 6 1234 5678", ["+31 6 1234 5678"]),
        ("(036) 123 45 67", ["(036) 123 45 67"]),
        ("0031 36 5550102", ["0031 36 5550102"]),
        ("555 01 02", []),
    ],
)
def test_people_are_recognised_however_they_are_written(text, found):
    assert find_people(text, PEOPLE) == found


@pytest.mark.parametrize(
    "text", ["The wit beds", "roos in bloom", "from 2012-06-20 to 2015", "€ 1.250,00 for 13 people", "zonnebloemen"]
)
def test_everyday_words_and_numbers_are_nobody(text):
    assert find_people(text, PEOPLE) == []


def test_the_number_a_circle_made_public_is_nobodys():
    assert find_people("Call +31 36 123 45 67", PEOPLE, "036-1234567") == []
