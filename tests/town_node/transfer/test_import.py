"""What a file does to the circle, with the real database: recognised, refused, carried out, and not a second time."""

from datetime import UTC, date, datetime, time

import pytest
from sqlalchemy import select

from services.town_node.circle.model import Member
from services.town_node.initiatives import actions as initiatives
from services.town_node.initiatives.model import Initiative
from services.town_node.lessons.model import Lesson
from services.town_node.meetings import actions as meetings
from services.town_node.meetings.model import Attendance, Meeting
from services.town_node.transfer import actions
from services.town_node.transfer.actions import NotImported
from services.town_node.transfer.columns import COLUMNS, KINDS, sample
from services.town_node.transfer.kinds import KIND_CLASSES, WrongField, missing_steps
from services.town_node.transfer.spreadsheets import Unreadable, read_table, write_csv, write_xlsx
from shared.events import InitiativePhaseReached, InitiativeRegistered, LessonShared, MeetingHeld
from shared.language import speak

TODAY = date(2012, 6, 20)


@pytest.fixture(autouse=True)
def in_english():
    """What these tests read are our own words, not a translator's."""
    with speak("en"):
        yield


@pytest.fixture
def database(node):
    return node.extensions["site"].database


@pytest.fixture
def look(database):
    """The plan of a file, given as its lines."""

    def plan(kind, *lines, by_hand=None, language="en"):
        content = lines[0] if isinstance(lines[0], bytes) else "\r\n".join(lines).encode()
        with speak(language), database.reading() as session:
            return actions.plan_import(session, kind, read_table(content), by_hand or {}, TODAY)

    return plan


@pytest.fixture
def bring(database):
    """Import a file; how many rows were new, changed and unchanged."""

    def do(kind, *lines, language="en"):
        content = lines[0] if isinstance(lines[0], bytes) else "\r\n".join(lines).encode()
        with speak(language), database.transaction() as session:
            plan = actions.plan_import(session, kind, read_table(content), {}, TODAY)
            for _done in actions.carry_out(session, plan):
                pass
            return tuple(plan.count(state) for state in ("new", "changed", "unchanged"))

    return do


def wrong(plan) -> list[str]:
    with speak("en"):
        return [f"{step.line} {header}: {words}" for step in plan.steps for header, words in step.errors]


def all_of(database, model):
    with database.reading() as session:
        return session.scalars(select(model)).all()


def fill(bring):
    """A bit of everything."""
    bring(
        "initiatives",
        "naam;soort;verloop;coördinaten;plaats tonen;omschrijving;waarvoor",
        'Zon;schooltuin;"idee 1-3-2010; plan 2011";155000 463000;buurt;"Met ""bijen""\nen =1+1";leren',
        "Maan;bloembakken;gestopt 2012;52,37 5,22;verborgen;-;",
    )
    bring(
        "members",
        "naam;mail;tel;rol;taal;sinds",
        "Roos Zonnebloem;roos@example.org;+31 36 5550102;facilitator;en;1-2-2011",
        "Bas;bas@example.org;;;;",
    )
    bring(
        "meetings",
        "titel;datum;tijd;soort;thema;aanwezigen;wie er waren;notities;verslag;agenda",
        "Startbijeenkomst;20-6-2012;19.30 - 22.00;start;vrijwilligers;13;Bas, roos@example.org;Onder ons;Fijn.;Welkom | 15",
        "Volgende;31-10-2012;19u30;evaluatie;;;;;;",
    )
    bring(
        "lessons",
        "titel;verhaal;soort;thema;fase;geleerd bij;verteld op de bijeenkomst;datum",
        "Vraag vroeg om water;'=Een jaar;tip;water;plan;zon;20-6-2012 Startbijeenkomst;1-1-2012",
        "@home;Tekst;niet doen;Bijen & honing;;;;",
    )


@pytest.mark.parametrize("language", ["nl", "en"])
@pytest.mark.parametrize("form", [write_csv, lambda rows: write_xlsx(rows, "x")], ids=["csv", "xlsx"])
def test_an_export_changes_nothing_when_it_is_imported(database, bring, told, language, form):
    fill(bring)
    before = len(told())
    for kind in KINDS:
        with speak(language), database.reading() as session:
            rows = actions.export(session, kind, TODAY)
        assert bring(kind, form(rows), language="en") == (0, 0, 2)
        without_codes = [row[1:] for row in rows]
        assert bring(kind, form(without_codes), language="nl") == (0, 0, 2)
    assert len(told()) == before


@pytest.mark.parametrize("kind", KINDS)
def test_everything_goes_out_and_comes_in_at_another_node(database, bring, kind, look):
    """As after a dead disk: what was exported is understood where nothing is known. Lessons need the others first."""
    fill(bring)
    files = {}
    with database.reading() as session:
        for each in KINDS:
            files[each] = write_xlsx(actions.export(session, each, TODAY), each)
            was = [KIND_CLASSES[kind](session, TODAY).current(thing) for thing in KIND_CLASSES[kind](session, TODAY).known.values()]
    with database.transaction() as session:
        for model in (Initiative, Member, Lesson, Meeting, Attendance):
            for thing in session.scalars(select(model)):
                session.delete(thing)
    for each in ("initiatives", "members", "meetings", "lessons"):
        assert bring(each, files[each]) == (2, 0, 0)
    with database.reading() as session:
        rules = KIND_CLASSES[kind](session, TODAY)
        for old, new in zip(was, (rules.current(thing) for thing in rules.known.values()), strict=True):
            for field in ("initiative", "meeting", "members"):  # codes are new here
                assert bool(old.pop(field, None)) == bool(new.pop(field, None))
            assert new == old


@pytest.mark.parametrize("language", ["nl", "en"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_can_be_imported_as_it_is(bring, kind, language):
    with speak(language):
        content = write_csv(sample(kind))
    assert bring(kind, content, language=language) == (1, 0, 0)
    assert bring(kind, content, language=language) == (0, 0, 1)


def test_initiatives_tell_the_others_in_the_order_of_the_history(bring, told, database):
    assert bring("initiatives", "naam,soort,operationeel sinds,idee sinds", "Zon,moestuin,1-1-2012,2010") == (1, 0, 0)
    events = [event for event in told() if not type(event).__name__.startswith("Circle")]
    assert [type(event) for event in events] == [InitiativeRegistered, InitiativePhaseReached]
    assert [(step.phase, step.since) for step in events[-1].history] == [
        ("idea", date(2010, 1, 1)),
        ("operational", date(2012, 1, 1)),
    ]


def test_a_phase_is_reached_by_a_later_file_and_an_older_file_changes_nothing(bring, look, database):
    first = ("naam;soort;fase;sinds", "Zon;moestuin;idee;1-3-2010")
    later = ("naam;soort;fase;sinds", "Zon;moestuin;plan;1-3-2011")
    assert bring("initiatives", *first) == (1, 0, 0)
    assert bring("initiatives", *later) == (0, 1, 0)
    assert bring("initiatives", *later) == bring("initiatives", *first) == (0, 0, 1)
    assert bring("initiatives", "naam;verloop", "Zon;idee 1-3-2010") == (0, 0, 1)
    assert [step["phase"] for step in all_of(database, Initiative)[0].history] == ["idea", "plan"]
    for lines in (
        ("naam;fase;sinds", "Zon;plan;2-3-2011"),
        ("naam;verloop", "Zon;idee 2-3-2010"),
        ("naam;fase;sinds", "Zon;operationeel;2-3-2010"),
        ("naam;fase;sinds", "Zon;operationeel;2013"),
    ):
        assert len(wrong(look("initiatives", *lines))) == 1, lines


def test_a_phase_without_a_day_counts_from_today_and_says_so(look, bring):
    lines = ("naam;soort;fase", "Zon;moestuin;idee")
    plan = look("initiatives", *lines)
    assert "today" in str(plan.steps[0].notes[0])
    assert bring("initiatives", *lines) == (1, 0, 0)
    assert bring("initiatives", *lines) == (0, 0, 1)


def test_missing_steps_over_values():
    known = [("idea", date(2010, 1, 1)), ("plan", date(2011, 1, 1))]
    more = ("operational", date(2012, 1, 1))
    assert missing_steps(known, {"history": [*known, more]}, TODAY, []) == [more]
    assert missing_steps(known, {"history": [*known, more], "phase": "operational", "since": more[1]}, TODAY, []) == [more]
    assert missing_steps(known, {"phase": "operational", "since": more[1]}, TODAY, []) == [more]
    assert missing_steps(known, {"phase": "plan"}, TODAY, []) == []
    assert missing_steps([], {}, TODAY, []) == []
    with pytest.raises(WrongField):
        missing_steps(known, {"since": more[1]}, TODAY, [])


@pytest.mark.parametrize(
    ("latitude", "longitude", "said"),
    [
        ("52,1551744", "5,3872063", None),
        ("5.3872063", "52.1551744", "exchanged"),
        ("463000", "155000", "RD"),
        ("155.000", "463.000", "RD"),
    ],
)
def test_places_are_recognised_and_shown(look, bring, database, latitude, longitude, said):
    lines = ("naam;soort;fase;sinds;breedtegraad;lengtegraad", f"Zon;moestuin;idee;2010;{latitude};{longitude}")
    notes = [str(note) for step in look("initiatives", *lines).steps for note in step.notes]
    assert (said in notes[0]) if said else not notes
    assert bring("initiatives", *lines) == (1, 0, 0)
    garden = all_of(database, Initiative)[0]
    assert abs(garden.latitude - 52_155_174) <= 3
    assert abs(garden.longitude - 5_387_206) <= 3
    assert bring("initiatives", *lines) == (0, 0, 1)


def test_what_is_no_place_is_refused(look, bring):
    head = "naam;soort;fase;sinds;lat;lon;plaats"
    for place in ("52,37;;", ";5,22;", "48,85;2,35;", "x;y;", ";;52.37 5.22"):
        assert len(wrong(look("initiatives", head, f"Zon;moestuin;idee;2010;{place}"))) == 1, place
    bring("initiatives", head, "Zon;moestuin;idee;2010;52,37;5,22;Filmwijk")
    assert wrong(look("initiatives", "naam;lat", "Zon;52,38")) == []
    plan = look("initiatives", "naam;lat;lon", "Zon;;")
    assert plan.steps[0].told == {"latitude": None, "longitude": None}


def test_a_place_as_it_stands_here_is_never_judged(database, bring):
    """The Canary Islands may be in the register since before the rule; an export of them must come back."""
    with database.transaction() as session:
        far = {"name": "Ver weg", "latitude": 28_100_000, "longitude": -15_400_000}
        initiatives.register_initiative(session, kind="other", phase="idea", since=TODAY, today=TODAY, purposes=[], **far)
        rows = actions.export(session, "initiatives", TODAY)
    assert bring("initiatives", write_csv(rows)) == bring("initiatives", write_xlsx(rows, "x")) == (0, 0, 1)


def test_every_mistake_of_every_line_is_told_at_once(look):
    plan = look(
        "members",
        "naam;e-mail;telefoon;rol",
        "Roos;roos@example.org;;",
        ";geen adres;abc;baas",
        "Bas;ROOS@example.org;;",
        "#N/A;;;",
    )
    assert wrong(plan) == [
        "3 E-mail address: This is no e-mail address.",
        "3 Telephone: Write a telephone number, with digits, spaces and dashes only.",
        "3 Role: “baas” is not among these: deelnemer, member, lid, facilitator.",
        "3 Name: This must be filled in.",
        "4 : Line 2 is about the same one. Keep one of the two.",
        "5 Name: This cell holds an error of the spreadsheet: #N/A",
        "5 E-mail address: This must be filled in.",
    ]
    assert not plan.ready


def test_one_wrong_line_imports_nothing(bring, database, told):
    with pytest.raises(NotImported):
        bring("members", "naam;mail", "Roos;roos@example.org", "Bas;geen adres")
    assert all_of(database, Member) == []
    assert told() == []


def test_members_are_known_by_address_and_by_code(bring, look, people, database):
    assert bring("members", "naam;mail;mobiel", "Roos Zonnebloem;ROOS@example.org;036 555 01 02") == (0, 0, 1)
    assert bring("members", "code;naam;mail", f"{people['member']};Bas Biet;bas.biet@example.org") == (0, 1, 0)
    assert {member.email for member in all_of(database, Member)} == {"roos@example.org", "bas.biet@example.org"}
    taken = look("members", "code;naam;mail", f"{people['member']};Bas;roos@example.org")
    assert "already has this e-mail address" in wrong(taken)[0]
    last = look("members", "mail;rol", "roos@example.org;deelnemer")
    assert "only facilitator" in wrong(last)[0]
    assert wrong(look("members", "mail;naam", "bas.biet@example.org;"))[0] == "2 Name: This must be filled in."
    assert "future" in wrong(look("members", "naam;mail;sinds", "Ans;ans@example.org;2013"))[0]


def test_meetings_are_planned_and_held(bring, look, told, database, people):
    head = "titel;dag;van;tot;soort;aanwezigen;wie er waren;notities;verslag"
    assert bring("meetings", head, "Start;20-6-2012;19:30;22:00;start;;Bas van der Biet;Onder ons;Het was fijn.") == (1, 0, 0)
    held = told()[-1]
    assert (held.attended, held.report, held.starts) == (1, "Het was fijn.", time(19, 30))
    assert any(isinstance(event, MeetingHeld) for event in told())
    assert [row.member for row in all_of(database, Attendance)] == [people["member"]]
    assert bring("meetings", head, "start;20 juni 2012;19:30;22:00;start;;;;") == (0, 1, 0)
    assert all_of(database, Meeting)[0].notes == ""
    assert bring("meetings", "titel;dag;aanwezigen", "Start;20-6-2012;13") == (0, 1, 0)
    assert bring("meetings", head, "Lang geleden;20-6-2002;19:30;;start;;;;") == (1, 0, 0)
    assert [row.member for row in all_of(database, Attendance)] == [people["member"]]
    for line, words in (
        ("Later;21-6-2012;19:30;22:00;start;5;;;", "still to come"), ("Laat;20-6-2012;22:00;19:30;start;;;;", "before it starts"),
        ("Start;20-6-2012;19:30;22:00;start;0;Bas van der Biet;;", "ticked"),
        ("Plan;21-6-2012;19:30;;start;;;Ja;", "how many people came"),
        ("Start;20-6-2012;19:30;22:00;start;2;Niemand;;", "nobody in this circle"), ("X;20-6-2012;;;start;;;;", "filled in"),
    ):  # fmt: skip
        assert words in " ".join(wrong(look("meetings", head, line))), line
    assert "held already" in wrong(look("meetings", "titel;dag;stand", "Start;20-6-2012;gepland"))[0]
    assert "how many people came" in wrong(look("meetings", "titel;dag;van;soort;stand", "Y;20-6-2012;19:30;start;gehouden"))[0]


def test_lessons_name_an_initiative_and_a_meeting(bring, look, told, database):
    fill(bring)
    shared = [event for event in told() if isinstance(event, LessonShared)]
    assert shared[0].shared_on == date(2012, 1, 1)
    assert shared[0].body == "=Een jaar"
    assert shared[0].initiative in {garden.code for garden in all_of(database, Initiative)}
    assert shared[0].meeting in {meeting.code for meeting in all_of(database, Meeting)}
    assert shared[0].byline is None
    head = "titel;verhaal;soort;thema;geleerd bij;bijeenkomst;naam eronder;datum"
    assert wrong(look("lessons", head, "A;b;tip;water;Zon;20 juni 2012;;")) == []
    assert wrong(look("lessons", head, "A;b;tip;water;;startbijeenkomst;;")) == []
    plan = look("lessons", head, "A;b;tip;water;;;Roos;")
    assert "only the author" in str(plan.steps[0].notes[0])
    assert plan.steps[0].told == {"title": "A", "body": "b", "kind": "tip", "theme": "water", "initiative": None, "meeting": None}
    for line in ("A;b;tip;water;Mars;;;", "A;b;tip;water;;ooit;;", "A;b;tip;water;;;;2013"):
        assert len(wrong(look("lessons", head, line))) == 1


def test_a_name_here_and_two_of_them_there(bring, look, database):
    with database.transaction() as session:
        for _ in range(2):
            initiatives.register_initiative(session, name="Zon", kind="other", phase="idea", since=TODAY, today=TODAY, purposes=[])
        rows = actions.export(session, "initiatives", TODAY)
    assert "two of this name" in wrong(look("initiatives", "naam", "zon"))[0]
    assert bring("initiatives", write_csv(rows)) == (0, 0, 2)
    assert "no initiative" in wrong(look("lessons", "titel;verhaal;soort;thema;tuin", "A;b;tip;water;Zon"))[0]


def test_names_in_texts_that_leave_are_listed_per_line(look, people, bring):
    head = "titel;verhaal;soort;thema"
    plan = look(
        "lessons",
        head,
        "Bel even;Vraag het Zonnebloem.;tip;water",
        "Niets;Van Roos of Bas;tip;water",
        "Mail;x@example.org;tip;water",
    )
    assert plan.names == ["Zonnebloem", "x@example.org"]
    assert [step.names for step in plan.steps] == [["Zonnebloem"], [], ["x@example.org"]]
    assert look("members", "naam;mail", "Roos Zonnebloem;r@example.org").names == []
    bring("lessons", head, "Bel even;Vraag het Zonnebloem.;tip;water")
    assert look("lessons", "titel;verhaal;thema", "Bel even;Vraag het Zonnebloem.;Bodem").names == []  # was asked about before


def test_a_cleared_cell_clears_and_a_missing_column_does_not(bring, database):
    bring("initiatives", "naam;soort;fase;sinds;plaats;over", "Zon;moestuin;idee;2010;Filmwijk;Bijen")
    assert bring("initiatives", "naam;plaats", "Zon;") == (0, 1, 0)
    garden = all_of(database, Initiative)[0]
    assert (garden.place_name, garden.about_text, garden.kind) == ("", "Bijen", "community_garden")


def test_files_that_are_no_table_of_this_kind_are_refused(look):
    for lines in (("naam;mail",), ("naam\n" + "x\n" * 2_001,)):
        with pytest.raises(Unreadable):
            look("members", *lines)
    plan = look("members", "Lievelingsdier;Kleur", "Egel;bruin")
    assert plan.unknown == ["Lievelingsdier", "Kleur"]
    assert len(wrong(plan)) == 2


def test_columns_by_hand_make_a_foreign_file_readable(look):
    plan = look("members", "Wie;Waar te bereiken", "Roos;roos@example.org", by_hand={"0": "name", "1": "email"})
    assert plan.count("new") == 1


def test_a_workbook_with_real_days_is_read(bring, database):
    rows = [["titel", "dag", "van", "soort"], ["Start", datetime(2012, 6, 20), time(19, 30), "start"]]  # noqa: DTZ001  # local, as in Excel
    assert bring("meetings", write_xlsx(rows, "x")) == (1, 0, 0)
    assert all_of(database, Meeting)[0].day == TODAY


def test_a_text_too_long_for_the_wire_imports_nothing(bring, database):
    agenda = "\n".join(["木" * 160] * 99)
    head = ["titel", "dag", "van", "soort", "verslag", "aantal", "agenda"]
    row = ["Start", TODAY, time(19, 30), "start", "木" * 19_000, 3, agenda]
    with pytest.raises(NotImported):
        bring("meetings", write_xlsx([head, row], "x"))
    assert all_of(database, Meeting) == []


def test_a_file_is_kept_for_its_owner_and_a_day(database):
    now = datetime(2012, 6, 20, 18, tzinfo=UTC)
    content = b"naam;mail\r\nRoos;roos@example.org"
    with database.transaction() as session:
        code = actions.keep_upload(session, "ik", kind="members", name="lijst.csv", content=content, now=now).code
    later = now.replace(day=22)
    with database.transaction() as session:
        assert actions.find_upload(session, code, "ik", now).content == content
        for who, when, which in (("jij", now, code), ("ik", later, code), ("ik", now, "x\0")):
            with pytest.raises(actions.NotFound):
                actions.find_upload(session, which, who, when)
        actions.forget_old_uploads(session, later)
        with pytest.raises(actions.NotFound):
            actions.forget_upload(session, code)


def test_every_column_of_an_export_has_a_header_of_its_own():
    for kind in KINDS:
        for language in ("nl", "en"):
            with speak(language):
                headers = [known.header for known in COLUMNS[kind]]
                assert len(set(headers)) == len(headers)


def test_a_cancelled_meeting_is_neither_known_nor_exported(database, bring):
    with database.transaction() as session:
        code = meetings.plan_meeting(
            session, title="Start", kind="start", day=TODAY, starts=time(19), place_name="", agenda=[]
        ).code
        meetings.cancel_meeting(session, code)
        assert len(actions.export(session, "meetings", TODAY)) == 1
    assert bring("meetings", "code;titel;dag;van;soort", f"{code};Start;20-6-2012;19:00;start") == (1, 0, 0)
