"""The circle's pages, from an empty node to a published report, with the real database."""

import pytest

from services.town_node.circle.membership import Membership
from shared.events import (
    CircleCounted,
    CircleDescribed,
    InitiativePhaseReached,
    InitiativeRegistered,
    InitiativeWithdrawn,
    LessonRevised,
    LessonShared,
    LessonWithdrawn,
    MeetingCancelled,
    MeetingChanged,
    MeetingHeld,
    MeetingPlanned,
)

GARDEN = {
    "name": "Tuin de Zon", "kind": "community_garden", "phase": "plan", "since": "2012-03-01", "about_text": "Twelve beds.\r\nAnd bees.",  # noqa: E501  # one made-up text on one line
    "purposes": ["social", "education"], "place_name": "Filmwijk", "place": "52,37 5,22", "visitors": "y",
}  # fmt: skip
EVENING = {
    "title": "Start meeting", "kind": "start", "theme": "volunteers", "day": "2012-06-20", "starts": "19:30", "ends": "22:00",
    "place_name": "Stadsboerderij", "agenda-0-title": "Welcome", "agenda-0-minutes": "15",
    "agenda-1-title": "Round: how is it going?", "agenda-1-minutes": "45", "agenda-2-title": "", "agenda-2-minutes": "",
    "agenda-3-title": " Drinks ", "agenda-3-minutes": "",
}  # fmt: skip
LESSON = {
    "title": "Ask early for water", "body": "It takes the municipality a year.", "kind": "tip", "theme": "water", "phase": "plan",
    "initiative": "", "meeting": "",
}  # fmt: skip


def test_everything_opens_on_an_empty_node(facilitator, stranger):
    for path in ("/", "/circle", "/initiatives", "/meetings", "/lessons", "/association"):
        stranger.get(path)
        facilitator.get(path)
    for path in ("/circle/edit", "/circle/people", "/circle/people/new", "/initiatives/new", "/meetings/new", "/lessons/new"):
        stranger.get(path, 302)
        facilitator.get(path)
    assert 'value="Rondje: hoe gaat het?"' in facilitator.get("/meetings/new")


def test_what_is_not_there_is_not_found(facilitator):
    for path in (
        "/initiatives/nothing",
        "/meetings/nothing",
        "/lessons/nothing",
        "/association/almere/nothing",
        "/circle/people/nothing",
    ):
        facilitator.get(path, 404)
        facilitator.get(path + "%00", 404)


def test_odd_addresses_break_no_list(stranger):
    for path in ("/initiatives", "/lessons", "/association"):
        for query in (
            "?page=0",
            "?page=²",
            "?page=99999999999",
            "?q=%00",
            "?phase=%00&kind=x&_external=1&endpoint=x&self=1",
            "?q='\"*",
        ):
            stranger.get(path + query)


def test_the_association_page_leads_to_what_is_only_shown_there(stranger, node):
    page = stranger.get("/association")
    assert "shown on the pages of the association" in page
    assert 'href="http://hub/"' in page
    assert 'href="http://hub/meetings"' in page
    with node.extensions["site"].database.transaction() as session:
        session.query(Membership).delete()
    assert "pages of the association" not in stranger.get("/association")


def test_a_member_may_not_do_what_the_facilitator_does(member, people):
    for path in ("/circle/edit", "/circle/people/new", "/meetings/new", f"/circle/people/{people['facilitator']}"):
        member.get(path, 403)


def test_the_circle_is_described_and_the_description_travels(facilitator, told):
    facilitator.send(
        "/circle/edit", name="Kring Almere", place_name="Almere", about_text="We meet eight times a year.", status="active",
        method="circle", founded="2012-06-20", themes="Water, Bijen & honing", public_phone="036-1234567", place="52,37 5,22",
    )  # fmt: skip
    said = told()[-1]
    assert isinstance(said, CircleDescribed)
    assert said.themes == ("water", "bijen_honing")
    assert (said.place.latitude, said.public_phone) == (52_370_000, "036-1234567")
    assert "Kring Almere" in facilitator.get("/circle")


@pytest.mark.parametrize("place", ["abc", "91 5", "nan", "52"])
def test_a_wrong_or_half_place_comes_back_with_what_was_typed(facilitator, place):
    page = facilitator.send("/initiatives/new", 422, **GARDEN | {"place": place})
    assert f'value="{place}"' in page
    assert "Tuin de Zon" in page


def test_people_come_and_go_and_only_their_number_leaves(facilitator, people, told):
    facilitator.send(
        "/circle/people/new", name="Els Erwt", email="ELS@example.org", phone="06-12345678", language="nl", role="member"
    )
    assert "Els Erwt" in facilitator.get("/circle/people")
    page = facilitator.send("/circle/people/new", 422, name="Els", email="els@EXAMPLE.org", phone="", language="nl", role="member")
    assert "already has this e-mail address" in page
    facilitator.send(f"/circle/people/{people['member']}/remove", page=f"/circle/people/{people['member']}")
    assert [said.members for said in told() if isinstance(said, CircleCounted)] == [1, 2, 3, 2]


def test_the_last_facilitator_stays(facilitator, people):
    path = f"/circle/people/{people['facilitator']}"
    page = facilitator.send(f"{path}/remove", 409, page=path)
    assert "only facilitator" in page
    page = facilitator.send(path, 409, name="Roos", email="roos@example.org", phone="", language="nl", role="member")
    assert "only facilitator" in page
    assert "Roos Zonnebloem" in facilitator.get("/circle/people"), "half a change was kept"


def test_a_member_keeps_the_own_details(member, people):
    member.send(f"/circle/people/{people['member']}", name="Bas Biet", email="bas@example.org", phone="", language="en")
    assert "Bas Biet" in member.get("/circle/people")


def test_an_initiative_grows(member, facilitator, told):
    path = member.send("/initiatives/new", **GARDEN)
    assert "Twelve beds" in member.get(path)
    said = told()[-1]
    assert isinstance(said, InitiativeRegistered)
    assert (said.place.latitude, said.place.longitude, said.about_text) == (52_370_000, 5_220_000, "Twelve beds.\nAnd bees.")
    assert "already" in member.send(f"{path}/phase", 422, phase="plan", since="2012-06-01")
    assert "future" in member.send(f"{path}/phase", 422, phase="operational", since="2012-06-21")
    assert "later day" in member.send(f"{path}/phase", 422, phase="operational", since="2012-02-01")
    member.send(f"{path}/phase", phase="operational", since="2012-06-01")
    said = told()[-1]
    assert isinstance(said, InitiativePhaseReached)
    assert [step.phase for step in said.history] == ["plan", "operational"]
    member.send(
        f"{path}/edit", **{name: value for name, value in GARDEN.items() if name not in {"phase", "since"}} | {"name": "Zon"}
    )
    assert "Zon" in member.get("/initiatives?phase=operational&kind=community_garden")
    assert "No initiative found" in member.get("/initiatives?phase=idea")
    facilitator.send(f"{path}/withdraw", page=path)
    assert isinstance(told()[-1], InitiativeWithdrawn)
    member.get(path, 404)


def test_an_evening_from_plan_to_report(facilitator, member, people, told):
    garden = member.send("/initiatives/new", **GARDEN).rpartition("/")[2]
    path = facilitator.send("/meetings/new", **EVENING)
    assert isinstance(told()[-1], MeetingPlanned)
    assert [(item.title, item.minutes) for item in told()[-1].agenda][1:] == [("Round: how is it going?", 45), ("Drinks", 0)]
    assert "Start meeting" in member.get("/")
    facilitator.send(f"{path}/edit", **EVENING | {"title": "First meeting"})
    assert "would end" in facilitator.send(f"{path}/edit", 422, **EVENING | {"ends": "19:00"})
    assert "Item 2: minutes" in facilitator.send(f"{path}/edit", 422, **EVENING | {"agenda-1-minutes": "long"})
    facilitator.get(f"{path}/report", 409)
    member.send(f"{path}/round/{garden}", happened="The bees came.", learned="Ask early. It takes a year.", tips="Bring cake.")
    page = member.get(path)
    assert "The bees came." in page
    lesson = page.partition("/lessons/new?round=")[2].partition('"')[0].replace("&amp;", "&")
    new = member.get(f"/lessons/new?round={lesson}")
    assert 'value="Ask early"' in new
    assert "It takes a year." in new
    assert "more people" in facilitator.send(f"{path}/hold", 422, attended="0", members=[people["member"]]).lower()
    facilitator.send(f"{path}/hold", attended="13", members=[people["member"]], notes="A good start.")
    said = told()[-1]
    assert isinstance(said, MeetingHeld)
    assert said.attended == 13
    assert "Bas van der Biet" in member.get(path)
    draft = facilitator.get(f"{path}/report")
    assert "A good start." in draft
    assert "The bees came." in draft
    facilitator.send(f"{path}/report", report="Thirteen people came.")
    assert isinstance(told()[-1], MeetingChanged)
    assert told()[-1].report == "Thirteen people came."


def test_who_came_and_what_was_said_stays_inside(facilitator, member, stranger, people):
    garden = member.send("/initiatives/new", **GARDEN).rpartition("/")[2]
    path = facilitator.send("/meetings/new", **EVENING)
    facilitator.send(f"{path}/hold", attended="", members=[people["member"]], notes="Between us.")
    member.send(f"{path}/round/{garden}", happened="Not for outside.")
    page = stranger.get(path)
    for secret in ("Biet", "Between us.", "Not for outside."):
        assert secret in member.get(path)
        assert secret not in page


def test_a_meeting_is_cancelled_but_not_after_it_was_held(facilitator, told):
    path = facilitator.send("/meetings/new", **EVENING)
    facilitator.send(f"{path}/cancel", page=path)
    assert isinstance(told()[-1], MeetingCancelled)
    facilitator.get(path, 404)
    path = facilitator.send("/meetings/new", **EVENING | {"day": "2012-06-21"})
    assert "still to come" in facilitator.send(f"{path}/hold", 409, attended="3")


def test_a_lesson_is_shared_found_revised_and_taken_back(member, stranger, told):
    path = member.send("/lessons/new", **LESSON, signed="y")
    said = told()[-1]
    assert isinstance(said, LessonShared)
    assert said.byline.name == "Bas van der Biet"
    assert "Ask early for water" in stranger.get("/lessons?q=WATER&theme=water&phase=plan&kind=tip")
    assert "No lesson found" in stranger.get("/lessons?q=goats")
    member.send(f"{path}/edit", **LESSON | {"title": "Ask very early for water"})
    said = told()[-1]
    assert isinstance(said, LessonRevised)
    assert said.byline is None
    member.send(f"{path}/withdraw", page=path)
    assert isinstance(told()[-1], LessonWithdrawn)
    stranger.get(path, 404)


def test_a_name_is_asked_about_before_it_leaves(member, told):
    before = len(told())
    typed = LESSON | {"body": "Call zonnebloem on 06 1234 5678 or mail her at zon@example.org."}
    page = member.send("/lessons/new", 422, **typed)
    assert len(told()) == before
    for words in ("zonnebloem", "06 1234 5678", "zon@example.org", "Ask early for water", "names_agreed"):
        assert words in page
    seen = page.partition('name="names_seen"')[2].partition('value="')[2].partition('"')[0]
    assert member.send("/lessons/new", 422, **typed | {"body": typed["body"] + " Or Bas Biet."}, names_seen=seen, names_agreed="y")
    member.send("/lessons/new", **typed, names_seen=seen, names_agreed="y")
    assert isinstance(told()[-1], LessonShared)
