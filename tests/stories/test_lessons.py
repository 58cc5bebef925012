"""R17, R18, R35: what the towns learned, found by its words, and at hand when the association is not."""

from tests.processes import MEMBER
from tests.stories.people import Person, Program, code_of, log_in, say, soon

AWAY = "The association has not answered since %(moment)s. What you write is safe here, and goes out by itself."


def lesson(title, **told):
    return {"title": title, "body": "Zo ging het.", "kind": "tip", "theme": "soil", "phase": "plan"} | told


def test_a_lesson_is_found_in_another_town_by_its_word_its_theme_and_its_phase(land, hub, dronten, fenna):
    fenna.fills_in("/lessons/new", **lesson("Leg de wormenhotels in de schaduw"))
    land.settle()
    for reader, path in ((Person(hub.url), "/lessons"), (Person(dronten.url), "/association")):
        for query in ("?q=wormenhotel", "?q=worm", "?q=WORMENHOTELS&theme=soil", "?q=schaduw&phase=plan&kind=tip&town=almere"):
            assert "Leg de wormenhotels in de schaduw" in reader.finds(path + query), query
        for query in ("?q=geiten", "?q=wormenhotel&theme=water", "?q=wormenhotel&phase=idea", "?q=wormenhotel&town=dronten"):
            assert "Leg de wormenhotels in de schaduw" not in reader.finds(path + query), query


def test_a_lesson_is_said_better_and_taken_back_and_the_other_town_follows(land, hub, almere, dronten, fenna):
    daan = log_in(almere, MEMBER)
    path = daan.fills_in("/lessons/new", **lesson("Koop nooit compost", signed="y"))
    land.settle()
    elsewhere = f"/library/almere/{code_of(path)}"
    assert Program(dronten).get(elsewhere)["byline"] == "Daan Deelnemer", "he agreed to be named"
    fenna.fills_in(f"{path}/edit", title="Koop zelden compost")
    daan.send(f"{path}/edit", **lesson("Koop soms compost", initiative="", meeting=""))  # and his name off
    land.settle()
    for where in (Program(dronten).get(elsewhere), Program(hub).get(f"/lessons/almere/{code_of(path)}")):
        assert (where["title"], where["byline"]) == ("Koop soms compost", None)
    daan.presses(f"{path}/withdraw", on=path)
    land.settle()
    assert Program(dronten).ask("GET", elsewhere)[0] == 404
    assert Program(hub).ask("GET", f"/lessons/almere/{code_of(path)}")[0] == 404


def test_a_town_works_in_full_while_the_association_is_off_and_catches_up_by_itself(land, hub, almere, dronten, fenna):
    fenna.fills_in("/lessons/new", **lesson("Oogst de aardperen laat"))
    land.settle()
    for kind in ("web", "worker"):
        hub.stop(kind)

    reader = Person(dronten.url)
    assert "Oogst de aardperen laat" in reader.finds("/association?q=aardpeer")
    away = say(AWAY, moment="@").partition("@")[0]
    soon(lambda: away in reader.get("/"), "the foot that says that the association is off")
    garden = fenna.registers("De Eigengereide")
    evening = fenna.plans("Zonder de vereniging")
    fenna.holds(evening, attended=7)
    fenna.fills_in("/lessons/new", **lesson("Schoffel vaak", initiative=code_of(garden), meeting=code_of(evening)))
    soon(lambda: away in fenna.get(evening), "the same in the foot of Almere")
    assert "Schoffel vaak" in fenna.finds("/lessons?q=schoffelen")

    for kind in ("web", "worker"):
        hub.start(kind)
    soon(lambda: "Schoffel vaak" in reader.finds("/association"), "the lesson that was written meanwhile")
    land.settle()
    passer_by = Person(hub.url)
    assert "De Eigengereide" in passer_by.finds("/initiatives")
    assert "Zonder de vereniging" in passer_by.finds("/meetings")
    soon(lambda: away not in fenna.get("/"), "the foot that says that all is well")
