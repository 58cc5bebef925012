from datetime import date

import pytest

from services.town_node.initiatives.model import BeforeLastStep, InFuture, Initiative, SamePhase

TODAY = date(2012, 6, 20)


def garden():
    return Initiative(code="garden01", name="De Zon", kind="community_garden")


def test_an_initiative_begins_its_history_when_it_registers():
    said = garden().register("idea", date(2012, 3, 1), TODAY)
    assert [(step.phase, step.since) for step in said.history] == [("idea", date(2012, 3, 1))]


def test_a_history_has_one_direction_and_no_future():
    it = garden()
    it.register("plan", date(2012, 3, 1), TODAY)
    with pytest.raises(InFuture):
        it.reach_phase("operational", date(2012, 6, 21), TODAY)
    with pytest.raises(BeforeLastStep):
        it.reach_phase("operational", date(2012, 2, 28), TODAY)
    with pytest.raises(SamePhase):
        it.reach_phase("plan", TODAY, TODAY)
    assert it.phase == "plan"
    assert len(it.reach_phase("operational", TODAY, TODAY).history) == 2


def test_a_change_tells_everything_again():
    it = garden()
    it.register("plan", TODAY, TODAY)
    said = it.change(visitors=True, purposes=["social"])
    assert (said.name, said.visitors, said.purposes, len(said.history)) == ("De Zon", True, ("social",), 1)
