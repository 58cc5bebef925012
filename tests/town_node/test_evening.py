"""An evening step by step: how far the round is, what comes after, and what is asked of an evening that nobody wrote down."""

import html
import re
from datetime import time, timedelta

import pytest

from services.town_node.meetings.actions import plan_meeting
from tests.town_node.conftest import TODAY
from tests.town_node.test_pages import EVENING, GARDEN, LESSON

NAMES = ("Bijenhof", "De Zon", "Eikenveld", "Fruithof", "Groene Duim", "Heemtuin")


@pytest.fixture
def gardens(member):
    """Their codes, by name."""
    return {name: member.send("/initiatives/new", **GARDEN | {"name": name}).rpartition("/")[2] for name in NAMES}


@pytest.fixture
def evening(facilitator, gardens):
    """Its address; it was held, and nobody has told anything."""
    path = facilitator.send("/meetings/new", **EVENING)
    facilitator.send(f"{path}/hold", attended="9")
    return path


def words(page: str) -> str:
    """What a page says."""
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def step(page: str, title: str) -> str:
    """What this step of the evening says."""
    found = [part.partition("</li>")[0] for part in page.split("<li")[1:] if f">{title}</a>" in part and "step-mark" in part]
    assert len(found) == 1
    return words(f"<{found[0]}")


def flash(page: str) -> str:
    return words(page.partition('class="notice ok"')[2].partition("</div>")[0].partition(">")[2])


# ---- The round -------------------------------------------------------------------------------------------------------------


def test_the_round_is_done_when_every_garden_was_heard_and_says_who_is_left(facilitator, evening, gardens):
    for number, (name, code) in enumerate(gardens.items(), 1):
        facilitator.send(f"{evening}/round/{code}", happened=f"All is well at {name}.")
        page = facilitator.get(evening)
        round_step = step(page, "Write down the round")
        assert f"{number} of 6 gardens heard." in round_step
        left = NAMES[number:]
        assert all((name in round_step) is (name in left[:4]) for name in NAMES)
        assert ("and 1 other." in round_step) is (len(left) == 5)
        assert ("now" in round_step) is bool(left)
    assert "done" in step(page, "Write down the round")
    assert "now" in step(page, "Share what was learned")


def test_who_writes_down_what_a_garden_told_reads_how_far_the_round_is(member, evening, gardens):
    said = []
    for code in gardens.values():
        member.send(f"{evening}/round/{code}", tips="Bring cake.")
        said.append(flash(member.get(evening)))
    assert said == [
        *(f"Written down. {number} of 6 gardens heard." for number in range(1, 6)),
        "Written down. Every garden has had its turn.",
    ]


def test_gardens_that_were_not_heard_end_the_round_without_a_word_and_may_tell_afterwards(facilitator, evening, gardens):
    facilitator.send(f"{evening}/round/{gardens['De Zon']}", happened="The sun shone.")
    facilitator.send(f"{evening}/round/{gardens['Bijenhof']}")  # everything left empty
    page = facilitator.get(evening)
    assert "1 of 6 gardens heard." in step(page, "Write down the round")
    assert "Not heard this evening: Bijenhof" in words(page)

    facilitator.send(f"{evening}/close-round", page=evening)
    page = facilitator.get(evening)
    assert "1 of 6 gardens heard." in step(page, "Write down the round")
    assert "done" in step(page, "Write down the round")
    assert "now" in step(page, "Share what was learned")
    assert "Not heard this evening: Bijenhof, Eikenveld, Fruithof, Groene Duim, Heemtuin" in words(page)
    assert "Bijenhof" not in facilitator.get(f"{evening}/report"), "who was not heard is not in the report"

    facilitator.send(f"{evening}/round/{gardens['Heemtuin']}", happened="A pond.")
    page = facilitator.get(evening)
    assert "2 of 6 gardens heard." in step(page, "Write down the round")
    assert "Not heard this evening: Bijenhof, Eikenveld, Fruithof, Groene Duim" in words(page)


def test_a_stopped_garden_is_not_waited_for(facilitator, member, evening, gardens):
    member.send(f"/initiatives/{gardens['Heemtuin']}/phase", phase="stopped", since="2012-06-01")
    assert "0 of 5 gardens heard." in step(facilitator.get(evening), "Write down the round")


def test_only_a_facilitator_closes_the_round(member, evening):
    assert "close-round" not in member.get(evening)
    member.send(f"{evening}/close-round", 403, page=evening)


def test_without_gardens_there_is_no_round_to_wait_for(facilitator):
    path = facilitator.send("/meetings/new", **EVENING)
    facilitator.send(f"{path}/hold", attended="9")
    page = facilitator.get(path)
    assert "Write down the round" not in page
    assert "now" in step(page, "Share what was learned")


# ---- An evening that has passed --------------------------------------------------------------------------------------------


@pytest.fixture
def passed(node, people):
    """Addresses of evenings that are still planned, by how many days ago they were."""

    def make(days: int) -> str:
        day = TODAY - timedelta(days=days)
        with node.extensions["site"].database.transaction() as session:
            told = {"title": f"Evening of {days} days ago", "kind": "circle", "starts": time(19, 30), "day": day}
            return f"/meetings/{plan_meeting(session, **told).code}"

    return make


def test_an_evening_that_was_is_asked_about_and_not_cancelled(facilitator, member, passed):
    path = passed(6)
    page = facilitator.get(path)
    assert "This meeting was planned for 14 June 2012. How was it?" in words(page).replace("\N{NO-BREAK SPACE}", " ")
    assert "Cancel the meeting" not in page
    assert f'href="{path}/hold"' in page
    assert "step by step" not in page
    assert "The facilitator can do so." in member.get(path)
    facilitator.send(f"{path}/cancel", page=path)
    page = facilitator.get("/meetings")
    assert "Noted: this meeting did not take place." in page
    assert "Evening of 6 days ago" not in page


def test_a_report_waits_until_somebody_wrote_who_came(facilitator, passed):
    path = passed(0)
    page = facilitator.get(path)
    assert "Publish the report After step 1." in words(page)
    assert f'href="{path}/report"' not in page
    refusal = facilitator.get(f"{path}/report", 409)
    assert "Write down first how many people came." in refusal
    assert f'href="{path}/hold"' in refusal.partition("<main")[2]
    facilitator.send(f"{path}/hold", attended="9")
    assert f'href="{path}/report"' in facilitator.get(path)
    facilitator.get(f"{path}/report")
    coming = passed(-6)
    assert f'href="{coming}"' in facilitator.get(f"{coming}/report", 409).partition("<main")[2]


def test_an_evening_that_was_is_written_down_in_words_that_fit(facilitator):
    asked = EVENING | {"day": "2012-06-14"}
    path = facilitator.send("/meetings/new", **asked, past_seen="2012-06-14", past_agreed="y")
    page = facilitator.get(path)
    assert flash(page) == "The meeting is in the list. Who came?"
    assert "The meeting goes off the list, here and in the other towns." in page
    assert "It disappears" not in page


def test_an_evening_that_is_still_to_come_can_be_cancelled(facilitator, passed):
    page = facilitator.get(passed(-6))
    assert "Cancel the meeting" in page
    assert "How was it?" not in page


def test_an_evening_of_long_ago_is_not_urgent(facilitator, passed, gardens):
    lately, long_ago = passed(6), passed(400)
    assert lately in facilitator.get("/")
    assert long_ago not in facilitator.get("/")
    assert long_ago in facilitator.get("/meetings")
    facilitator.send(f"{long_ago}/hold", attended="9")
    page = facilitator.get(long_ago)
    assert "Finish what was left open" in page
    assert "now" not in step(page, "Write down the round")
    assert 'aria-current="step"' not in page
    facilitator.send(f"{lately}/hold", attended="9")
    assert "now" in step(facilitator.get(lately), "Write down the round")


def chosen(page: str, field: str) -> str:
    """What stands in a closed list."""
    options = page.partition(f'name="{field}"')[2].partition("</select>")[0]
    found = re.findall(r"<option selected[^>]*>([^<]*)", options) or re.findall(r"<option[^>]*>([^<]*)", options)
    return html.unescape(found[0])


def test_a_lesson_keeps_the_meeting_where_it_was_learned_before_anybody_wrote_who_came(facilitator, passed, told):
    for days in (0, 6, -6):
        path = passed(days)
        form = f"/lessons/new?meeting={path.rpartition('/')[2]}"
        assert chosen(facilitator.get(form), "meeting").startswith(f"Evening of {days} days ago")
        facilitator.send("/lessons/new", page=form, **LESSON | {"meeting": path.rpartition("/")[2]})
        assert told()[-1].meeting == path.rpartition("/")[2]
    others = facilitator.get("/lessons/new")
    assert "Evening of 6 days ago" in others
    assert "Evening of -6 days ago" not in others, "nothing was learned there yet"
    facilitator.send(f"{passed(5)}/cancel", page="/meetings/new")
    assert "Evening of 5 days ago" not in facilitator.get("/lessons/new")


def test_a_lesson_has_no_theme_or_kind_that_nobody_chose(facilitator, evening, gardens, told):
    page = facilitator.get("/lessons/new")
    assert (chosen(page, "theme"), chosen(page, "kind")) == ("Choose a theme", "Choose a kind")
    assert all("required" in re.search(f'<select[^>]*name="{field}"[^>]*>', page)[0] for field in ("theme", "kind"))
    before = len(told())
    for field in ("theme", "kind"):
        assert f'href="#{field}"' in facilitator.send("/lessons/new", 422, **LESSON | {field: ""}), "what is wrong is said"
    assert len(told()) == before

    facilitator.send(f"{evening}/round/{gardens['De Zon']}", tips="Bring cake.")
    code = re.search(r"/lessons/new\?round=([^&]*)&amp;answer=tips", facilitator.get(evening))[1]
    page = facilitator.get(f"/lessons/new?round={code}&answer=tips")
    assert (chosen(page, "theme"), chosen(page, "kind")) == ("Volunteers", "Tip")


# ---- What is kept and read by all -------------------------------------------------------------------------------------------


def test_what_the_whole_circle_reads_is_written_in_its_language_whoever_asks(facilitator, evening, gardens):
    facilitator.send(f"{evening}/round/{gardens['De Zon']}", happened="De zon scheen.")
    assert 'value="Rondje: hoe gaat het?"' in facilitator.get("/meetings/new")
    draft = facilitator.get(f"{evening}/report")
    assert "9 mensen kwamen." in draft
    assert "## Het rondje" in draft
    assert "Wat ging goed" in draft
    assert "What went well" not in draft


def test_the_draft_of_the_report_keeps_the_list_that_an_answer_begins_with(facilitator, evening, gardens):
    facilitator.send(f"{evening}/round/{gardens['De Zon']}", happened="- apples\n- pears")
    draft = facilitator.get(f"{evening}/report").partition("<textarea")[2].partition(">")[2].partition("</textarea>")[0]
    shown = facilitator.send(f"{evening}/report", 200, report=html.unescape(draft), look="1")
    assert "<li>apples</li>" in shown.partition('class="preview"')[2].partition("</section>")[0]


# ---- Texts with lists and headings -------------------------------------------------------------------------------------------


def test_a_report_is_looked_at_before_it_is_published(facilitator, evening, told):
    before = len(told())
    page = facilitator.send(f"{evening}/report", 200, report="- soep\n- **taart**", look="Look at it first")
    shown = page.partition('class="preview"')[2].partition("</section>")[0]
    assert "<li>soep</li>" in shown
    assert "<strong>taart</strong>" in shown
    assert "- **taart**</textarea>" in page, "what was typed stays"
    assert len(told()) == before


def test_a_lesson_is_looked_at_before_it_is_shared(member, told):
    path = member.send("/lessons/new", **LESSON)
    before = len(told())
    for form in ("/lessons/new", f"{path}/edit"):
        page = member.send(form, 200, **LESSON | {"body": "## Why\n\n<b>Water</b>"}, look="1")
        shown = page.partition('class="preview"')[2].partition("</section>")[0]
        assert "<h2>Why</h2>" in shown
        assert "<b>" not in shown
    assert len(told()) == before


def test_every_text_with_signs_says_how_to_write_them(facilitator, member, evening, gardens):
    pages = [facilitator.get(f"{evening}/report"), facilitator.get("/circle/edit"), facilitator.get(f"{evening}/hold")]
    pages += [member.get("/lessons/new"), member.get("/initiatives/new"), member.get(f"{evening}/round/{gardens['De Zon']}")]
    for page in pages:
        assert page.count("A list: begin each line with <kbd>-</kbd>.") == 1
    assert 'aria-describedby="report-hint report-signs"' in pages[0]


@pytest.mark.parametrize(
    ("said", "offered"),
    [
        ("Ask early. It takes a year.", "Ask early"),
        ("**Call** the neighbours in person!", "Call the neighbours in person!"),
        ("- Ask early\n- Ask again", "Ask early"),
        ("Water.", ""),
        ("We asked the municipality for a tap in March and it took them until the next year to say where it could be.", ""),
    ],
)
def test_a_lesson_begins_with_a_sentence_that_can_stand_alone_or_with_none(facilitator, evening, gardens, said, offered):
    facilitator.send(f"{evening}/round/{gardens['De Zon']}", learned=said)
    link = re.search(r'/lessons/new\?round=[^"]*', facilitator.get(evening))[0].replace("&amp;", "&")
    page = facilitator.get(link)
    title = re.search(r'<input[^>]*name="title"[^>]*>', page)[0]
    assert re.search(r'value="([^"]*)"', title)[1] == offered
    assert said.replace("\n", "\r\n")[:5] in page
