"""R34: names are asked about before a text leaves, and what is about members never leaves the town."""

import re

from sqlalchemy import MetaData, select

from tests.stories.people import Person, Program, code_of, log_in

XAVERINE = {"name": "Xaverine Quispeltuur", "email": "xaverine@quispeltuur.example", "phone": "06-91827364"}
HILDEBRAND = {"name": "Hildebrand van der Knolraap", "email": "knolraap@prive.example", "phone": "+31 36 7654321"}


def test_a_text_with_a_name_waits_until_somebody_says_that_she_agreed(land, hub, almere, fenna):
    fenna.fills_in("/circle/people/new", **XAVERINE)
    typed = {"title": "Vraag het quispeltuur", "body": "Bel 06 9182 7364, en anders Daan.", "kind": "tip", "theme": "soil"}
    land.settle()
    before = len(almere.log())
    page = fenna.is_refused("/lessons/new", **typed)
    for words in ("quispeltuur", "06 9182 7364", typed["title"], typed["body"], 'name="names_agreed"'):
        assert words in page
    status, problem = Program(almere, almere.token()).ask("POST", "/lessons", typed)
    assert (status, list(problem["errors"])) == (422, ["names_agreed"])
    assert len(almere.log()) == before, "nothing was told yet"

    seen = re.search(r'name="names_seen"[^>]*value="([^"]*)"', page)[1]
    more = typed | {"body": typed["body"] + " Of vraag Fenna Facilitator."}
    assert "Fenna Facilitator" in fenna.is_refused("/lessons/new", **more, names_seen=seen, names_agreed="y"), "a new name"
    lesson = fenna.send("/lessons/new", **(fenna.offered("/lessons/new") | typed | {"names_seen": seen, "names_agreed": "y"}))
    land.settle()
    assert Program(hub).get(f"/lessons/almere/{code_of(lesson)}")["title"] == typed["title"]
    fenna.presses(f"{lesson}/withdraw", on=lesson)


def test_who_is_in_the_circle_is_known_in_the_town_only(land, hub, almere, dronten, fenna):
    fenna.fills_in("/circle/people/new", **HILDEBRAND)
    hildebrand = log_in(almere, HILDEBRAND["email"])
    garden, evening = fenna.registers("De Stille"), fenna.plans("Onder ons")
    everybody = fenna.offered_choices(f"{evening}/hold", "members")
    fenna.holds(evening, attended=len(everybody), members=everybody, notes="Knolraap bracht de sleutel van Hildebrand mee.")
    hildebrand.writes_down(evening, garden, learned="Hildebrand weet het beter.")
    hildebrand.fills_in("/lessons/new", title="Zet geen naam onder alles", body="Zo is het.", kind="dont", theme="soil")
    fenna.fills_in(f"{evening}/report", report="Het was een goede avond.")
    assert HILDEBRAND["email"] in hildebrand.get("/circle/people")
    land.settle()

    secret = re.compile(r"hildebrand|knolraap|7654321", re.IGNORECASE)
    told = b"\n".join(entry.header + (entry.body or b"") for entry in almere.log())
    assert not secret.search(told.decode())
    assert b"De Stille" in told, "it is the log that is searched"
    for far in (hub, dronten):
        held = everything_in(far.database)
        assert not secret.search(held), far.name
        assert "Zet geen naam onder alles" in held
    for path in ("/circle/people", "/circle"):
        answer = Person(almere.url).call("GET", path)
        assert not secret.search(answer.data.decode())


def everything_in(database):
    """All rows of all tables, as text; bytes are read."""
    tables = MetaData()
    tables.reflect(database.engine)
    said = []
    with database.reading() as session:
        for table in tables.sorted_tables:
            for row in session.execute(select(table)):
                said += [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in row]
    return "\n".join(said)
