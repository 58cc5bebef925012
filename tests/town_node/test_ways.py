"""Ways through the pages: long lists go on, the menu says where one is, a form holds what was told, text travels small."""

import gzip
import re
from datetime import date, time, timedelta

import pytest

from services.town_node.circle.actions import add_member, describe_circle
from services.town_node.meetings.actions import hold_meeting, plan_meeting
from tests.town_node.conftest import TODAY

MANY = 120


@pytest.fixture
def busy(node, people):
    """Many people, and ten years of meetings, the last of them today."""
    with node.extensions["site"].database.transaction() as session:
        for number in range(MANY):
            add_member(session, name=f"Deelnemer {number:03}", email=f"d{number}@example.org", today=TODAY)
            day = TODAY - timedelta(days=30 * number)
            meeting = plan_meeting(session, title=f"Evening {number:03}", kind="circle", day=day, starts=time(19, 30))
            if number:
                hold_meeting(session, meeting.code, attended=9, members=[], notes="", today=TODAY)


@pytest.mark.parametrize("path", ["/meetings", "/circle/people"])
def test_a_long_list_goes_on_over_pages_and_shows_everything_once(facilitator, busy, path):
    rows, url = [], path
    while url:
        page = facilitator.get(url)
        assert page.count('<li class="row') <= 60
        rows += [part.partition("</a>")[0].rpartition(">")[2] for part in page.split('class="cover"')[1:]]
        following = re.search(r'rel="next"\s+href="([^"]+)"', page)
        url = following[1].replace("&amp;", "&") if following else ""
    rows = [row for row in rows if row.startswith(("Deelnemer", "Evening"))]
    assert len(rows) == len(set(rows)) == (MANY if "people" in path else MANY - 1)


def test_todays_meeting_comes_first_with_what_to_do_now(facilitator, member, busy):
    for path in ("/", "/meetings"):
        assert facilitator.get(path).count("/hold") == 1
        assert "Today: Evening 000" in member.get(path)
        assert "/hold" not in member.get(path)


def test_a_described_circle_comes_back_into_its_form(facilitator, node):
    with node.extensions["site"].database.transaction() as session:
        describe_circle(
            session, name="Kring", place_name="Almere", about_text="Wij.", themes=["water", "bijen"], founded=date(2012, 6, 20)
        )
    page = facilitator.get("/circle/edit")
    assert 'value="Water, Bijen"' in page
    facilitator.send("/circle/edit", name="Kring", place_name="Almere", status="active", method="circle", themes="Water, Bijen")
    assert "Bijen" in facilitator.get("/circle")


def test_the_menu_says_where_one_is(facilitator, people):
    for path, here in (("/", "Today"), ("/circle", "Our circle"), ("/circle/people", "People"), ("/lessons/new", "Lessons")):
        page = facilitator.get(path)
        active = {part.partition("</span>")[0].rpartition(">")[2] for part in page.split('aria-current="page"')[1:]}
        assert active == {here}, path


def test_text_travels_small_and_is_the_same(stranger):
    plain = stranger.client.get("/lessons")
    packed = stranger.client.get("/lessons", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in packed.headers["Vary"]
    assert gzip.decompress(packed.data) == plain.data
    with stranger.client.get("/shared/style.css", headers={"Accept-Encoding": "gzip"}) as style:
        assert len(style.data) < 10_000
    known = {"Accept-Encoding": "gzip", "If-None-Match": style.headers["ETag"]}
    with stranger.client.get("/shared/style.css", headers=known) as again:
        assert again.status_code == 304


def test_a_page_of_fifty_initiatives_is_light(member, stranger, node, people):
    from services.town_node.initiatives.actions import register_initiative

    with node.extensions["site"].database.transaction() as session:
        for number in range(60):
            register_initiative(
                session, name=f"Buurtmoestuin nummer {number}", kind="community_garden", phase="idea", since=TODAY, today=TODAY
            )
    for headers, most in (({}, 60_000), ({"Accept-Encoding": "gzip"}, 15_000)):
        answer = stranger.client.get("/initiatives", headers=headers)
        assert len(answer.data) <= most
    assert answer.status_code == 200


def test_a_wrong_form_speaks_our_words(facilitator):
    page = facilitator.send("/meetings/new", 422, title="x" * 161, kind="castle", day="soon", starts="late", agenda="")
    for words in ("at most 160 characters", "Choose something from the list.", "Write a date", "Write a time"):
        assert words in page, words
    for theirs in ("Not a valid", "This field is required", "Field cannot be"):
        assert theirs not in page, theirs
