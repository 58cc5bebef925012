"""R9, R10, R14, R17: an evening from its plan to its report, and what of it becomes a lesson for everybody."""

from tests.processes import MEMBER
from tests.stories.people import Person, Program, code_of, linked, log_in, say


def test_an_evening_is_planned_held_and_told_about(land, hub, almere, fenna, passer_by):
    offered = fenna.offered("/meetings/new")
    assert [offered[f"agenda-{row}-minutes"] for row in range(6)] == ["15", "45", "45", "15", "", ""], "the fixed ingredients"
    evening = fenna.plans("Vroeg beginnen", **{"agenda-2-title": "Gast van de gemeente", "agenda-2-minutes": "40"})
    land.settle()
    at_the_hub = f"/meetings/almere/{code_of(evening)}"
    planned = Program(hub).get(at_the_hub)
    assert (planned["status"], planned["attended"], planned["theme"]) == ("planned", None, "water")
    assert len(planned["agenda"]) == 4, "empty rows are left out"
    assert planned["agenda"][2] == {"title": "Gast van de gemeente", "minutes": 40}

    daan = fenna.offered_choices(f"{evening}/hold", "members")[0]  # the first by name
    fenna.holds(evening, attended=13, members=[daan], notes="De sleutel ligt onder de pot.")
    talker, silent = fenna.registers("De Verteller"), fenna.registers("De Zwijger")
    fenna.writes_down(evening, talker, happened="De bijen kwamen.", tips="Neem taart mee.")
    fenna.writes_down(evening, silent)  # every answer may stay empty
    draft = fenna.offered(f"{evening}/report")["report"]
    for words in ("13", "De sleutel ligt onder de pot.", "De Verteller", "De bijen kwamen.", "Neem taart mee."):
        assert words in draft
    fenna.fills_in(f"{evening}/report", report="Dertien mensen, en **taart**.")
    fenna.holds(evening, attended=14, members=[daan], notes="De sleutel ligt onder de pot.")  # somebody came late
    land.settle()

    told = Program(hub).get(at_the_hub)
    assert (told["status"], told["attended"], told["report"]) == ("held", 14, "Dertien mensen, en **taart**.")
    for reader, page in ((passer_by, at_the_hub), (Person(almere.url), evening)):
        seen = reader.get(page)
        assert "<strong>taart</strong>" in seen
        for secret in ("onder de pot", "De bijen kwamen", "Daan", "Neem taart mee"):
            assert secret not in seen
    inside = log_in(almere, MEMBER).get(evening)
    for words in ("onder de pot", "De bijen kwamen", "Neem taart mee"):
        assert words in inside


def test_what_somebody_learned_becomes_a_lesson_in_one_step(land, hub, almere, dronten, fenna):
    garden = fenna.registers("De Leergierige", phase="almost_operational")
    evening = fenna.plans("Wat hebben we geleerd", theme="neighbourhood")
    fenna.holds(evening, attended=9)
    daan = log_in(almere, MEMBER)
    daan.writes_down(evening, garden, learned="Vraag buren persoonlijk. Een briefje helpt niet.", tips="Begin met soep.")
    steps = linked(daan.get(evening), r"/lessons/new\?round=[^\"]*")
    assert len(steps) == 2, "what was learned, and the tips"
    lessons = [daan.fills_in(step) for step in sorted(steps)]  # nothing changed: one step
    land.settle()

    for where, path in ((Program(hub), "/lessons/almere/"), (Program(dronten), "/library/almere/")):
        learned, tip = (where.get(path + code_of(lesson)) for lesson in lessons)
        assert (learned["title"], learned["kind"]) == ("Vraag buren persoonlijk", "do")
        assert learned["body"] == "Vraag buren persoonlijk. Een briefje helpt niet."
        assert (tip["title"], tip["kind"]) == ("Begin met soep", "tip")
        for lesson in (learned, tip):
            assert (lesson["theme"], lesson["phase"]) == ("neighbourhood", "almost_operational")
            assert (lesson["meeting"], lesson["initiative"]) == (code_of(evening), code_of(garden))
            assert lesson["byline"] is None


def test_an_evening_that_does_not_take_place_disappears(land, fenna, passer_by):
    evening = fenna.plans("De afgelaste", day="2030-06-01")
    land.settle()
    assert "De afgelaste" in passer_by.finds("/meetings")
    fenna.presses(f"{evening}/cancel", on=evening)
    land.settle()
    assert "De afgelaste" not in passer_by.finds("/meetings")


def test_an_evening_that_was_is_written_down_after_one_question(land, hub, fenna):
    told = {"title": "Het begin van de kring", "day": "2012-06-20", "starts": "19:30"}
    asked = fenna.is_refused("/meetings/new", **told)
    assert say("%(day)s has passed. Is that the day you mean?", day="20\N{NO-BREAK SPACE}juni\N{NO-BREAK SPACE}2012") in asked
    evening = fenna.fills_in("/meetings/new", **told, past_seen="2012-06-20", past_agreed="y")
    fenna.holds(evening, attended=13)
    land.settle()
    seen = Program(hub).get(f"/meetings/almere/{code_of(evening)}")
    assert (seen["day"], seen["status"], seen["attended"]) == ("2012-06-20", "held", 13)
