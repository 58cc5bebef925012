"""R1: a register of initiatives, in whatever phase, and the history of how they got there."""

import pytest

from tests.stories.people import Program, code_of


def test_a_garden_grows_from_an_idea_and_everybody_can_see_how(land, hub, almere, fenna, passer_by):
    garden = fenna.registers(
        "De Groeitrap", kind="school_garden", phase="idea", since="2012-03-01", about_text="Veertien bakken.", place="52,37 5,22",
        purposes=["social", "education"], visitors="y", visiting="Zaterdag van 10 tot 12",
    )  # fmt: skip
    fenna.fills_in(f"{garden}/phase", phase="plan", since="2012-06-20")
    assert fenna.is_refused(f"{garden}/phase", phase="operational", since="2012-05-01"), "a history has one direction"
    assert fenna.is_refused(f"{garden}/phase", phase="operational", since="2112-05-01"), "nor does it know the future"
    fenna.fills_in(f"{garden}/phase", phase="operational", since="2013-04-01")
    fenna.fills_in(f"{garden}/edit", name="De Hoge Groeitrap")
    land.settle()

    grown = [("idea", "2012-03-01"), ("plan", "2012-06-20"), ("operational", "2013-04-01")]
    for where in (
        Program(almere).get(f"/initiatives/{code_of(garden)}"),
        Program(hub).get(f"/initiatives/almere/{code_of(garden)}"),
    ):
        assert where["name"] == "De Hoge Groeitrap"
        assert [(step["phase"], step["since"]) for step in where["history"]] == grown
        assert where["phase"] == "operational"
        assert where["purposes"] == ["social", "education"]
        assert (where["latitude"], where["longitude"], where["visitors"]) == (52.37, 5.22, True)
    page = passer_by.get(f"/initiatives/almere/{code_of(garden)}").replace("\N{NO-BREAK SPACE}", " ")
    for words in ("De Hoge Groeitrap", "Veertien bakken.", "Zaterdag van 10 tot 12", "20 juni 2012"):
        assert words in page
    assert "De Hoge Groeitrap" in passer_by.finds("/initiatives?town=almere&phase=operational&kind=school_garden")
    assert "De Hoge Groeitrap" not in passer_by.finds("/initiatives?town=almere&phase=idea")


def test_a_garden_that_was_registered_by_mistake_is_gone_everywhere(land, fenna, passer_by):
    garden = fenna.registers("De Vergissing")
    land.settle()
    assert "De Vergissing" in passer_by.finds("/initiatives")
    fenna.presses(f"{garden}/withdraw", on=garden)
    land.settle()
    assert "De Vergissing" not in passer_by.finds("/initiatives")
    with pytest.raises(AssertionError, match="404"):
        passer_by.get(f"/initiatives/almere/{code_of(garden)}")
