from datetime import date

from sqlalchemy import func, select

from services.hub.initiatives.projection import NationalInitiative
from services.hub.lessons.projection import NationalLesson
from services.hub.meetings.projection import NationalMeeting
from services.hub.towns.projection import NationalCircle, NationalCount, NationalTown, town_names
from shared.events import InitiativePhaseReached, InitiativeWithdrawn, MeetingCancelled, PhaseStep, TownAdmitted


def test_a_town_is_shown_as_it_presents_itself(almere):
    assert town_names(almere) == {"almere": "Almere"}
    circle = almere.get(NationalCircle, "almere")
    assert (circle.latitude, circle.themes, circle.founded) == (52_370_000, ["volunteers", "soil"], date(2012, 6, 20))
    assert almere.scalar(select(NationalCount.members)) == 20


def test_a_town_cannot_admit_another(session, tell):
    tell(session, "almere", TownAdmitted(town="dronten", name="Dronten", key_id="k" * 12, public_key="p" * 44))
    assert session.scalar(select(func.count()).select_from(NationalTown)) == 0


def test_an_initiative_stands_in_the_last_phase_of_its_history(almere, tell):
    zenit = almere.get(NationalInitiative, ("almere", "zenit-01"))
    assert (zenit.phase, zenit.phase_since, len(zenit.history)) == ("operational", date(2014, 4, 1), 2)
    almere.expire_all()
    steps = (PhaseStep(phase="stopped", since=date(2015, 1, 1)),)
    stopped = InitiativePhaseReached(initiative="zenit-01", name="Zenit", kind="other", history=steps)
    tell(almere, "almere", stopped, stopped)
    assert almere.get(NationalInitiative, ("almere", "zenit-01")).phase == "stopped"


def test_an_initiative_without_history_does_not_stall_the_fold(session, tell):
    tell(session, "almere", InitiativePhaseReached(initiative="leeg", name="Leeg", kind="other", history=()))
    assert session.get(NationalInitiative, ("almere", "leeg")).phase_since is None


def test_what_is_taken_back_is_gone_and_only_from_its_own_town(almere, tell):
    tell(almere, "dronten", InitiativeWithdrawn(initiative="zenit-01"), MeetingCancelled(meeting="bijeen01"))
    assert almere.scalar(select(func.count()).select_from(NationalInitiative)) == 1
    tell(almere, "almere", InitiativeWithdrawn(initiative="zenit-01"), MeetingCancelled(meeting="bijeen01"))
    assert almere.scalar(select(func.count()).select_from(NationalInitiative)) == 0
    assert almere.scalar(select(func.count()).select_from(NationalMeeting)) == 0


def test_lessons_keep_their_words_for_finding(almere):
    lesson = almere.get(NationalLesson, ("almere", "les-0002"))
    assert "compost" in lesson.stems.split()
    assert lesson.byline is None
