"""The sample circles, loaded by acting on the nodes: what the hub shows of them has travelled.

Facts from the report (`domain.md`, end): Almere's initiatives in the phases of its start meeting, its themes and dates, its growth
from 13 to 20; Dronten's network of school gardens. Persons are plainly made up. Names of gardens that the report does not give are
made up as well.
"""

import sys
from datetime import date, time, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.town_node.circle.actions import add_member, describe_circle
from services.town_node.circle.membership import open_node
from services.town_node.config import load_settings
from services.town_node.initiatives.actions import reach_phase, register_initiative
from services.town_node.initiatives.model import Initiative
from services.town_node.lessons.actions import share_lesson
from services.town_node.meetings.actions import hold_meeting, plan_meeting
from shared.refusals import Refusal
from shared.serving import refuse_plainly

START = date(2012, 6, 20)
# name, kind, phase at the start meeting, latitude, longitude (millionths of a degree), what it is
ALMERE = (
    (
        "Stadsboerderij Almere",
        "urban_farm",
        "operational",
        52_343_000,
        5_268_000,
        "Boerderij aan de rand van de stad, met een oogstfeest.",
    ),
    ("Moestuin De Regenton", "community_garden", "operational", 52_371_000, 5_215_000, "Buurtmoestuin met twintig bakken."),
    ("Schooltuin Het Zaadje", "school_garden", "operational", 52_384_000, 5_236_000, "Schooltuin voor groep zes en zeven."),
    ("Kruidenhof De Waterwijk", "community_garden", "operational", 52_377_000, 5_246_000, "Kruiden, thee en een lange tafel."),
    (
        "Tuin aan de Noorderplassen",
        "community_garden",
        "almost_operational",
        52_390_000,
        5_178_000,
        "Het hek staat, de grond is los.",
    ),
    ("Fruitgaard Haven", "self_managed_green", "plan", 52_335_000, 5_222_000, "Hoogstamfruit voor en door de buurt."),
    ("Ciderij in de dop", "food_collective", "plan", 52_350_000, 5_190_000, "Appels uit de stad, samen persen."),
    ("Zorgtuin De Ruimte", "community_garden", "plan", 52_396_000, 5_281_000, "Tuinieren met wie even rust zoekt."),
    ("Groenstrook Filmwijk", "green_strip", "idea", 52_366_000, 5_240_000, "Een strook gras die meer kan zijn."),
    ("Bloembakken Stedenwijk", "planters", "idea", 52_369_000, 5_201_000, "Bakken bij de flats, met eetbare planten."),
    ("Daktuin Centrum", "community_garden", "idea", 52_372_000, 5_219_000, "Een dak, veel zon en een plan op een servet."),
    ("Pluktuin Buiten", "community_garden", "idea", 52_398_000, 5_272_000, "Kom, pluk en betaal in de bus."),
    ("Moestuin Poort", "community_garden", "idea", 52_346_000, 5_152_000, "Een nieuwe wijk, een nieuwe tuin."),
)
# The report tells how many came to the start meeting; the other numbers are made up, and so is that both excursions took place.
ALMERE_MEETINGS: tuple[tuple[str, str, str | None, date, int], ...] = (
    ("Startbijeenkomst", "start", None, START, 13),
    ("Evaluatie na drie bijeenkomsten", "evaluation", None, date(2012, 10, 31), 12),
    ("Vrijwilligers vinden en houden", "circle", "volunteers", date(2013, 6, 19), 15),
    ("Een businessplan schrijven", "circle", "business_plan", date(2013, 9, 18), 15),
    ("De buurt erbij betrekken", "circle", "neighbourhood", date(2015, 2, 18), 15),
    ("Sociale media", "circle", "social_media", date(2015, 3, 18), 14),
    ("Excursie langs tuinen in Almere", "excursion", None, date(2015, 6, 17), 16),
    ("Excursie naar Rotterdam", "excursion", None, date(2015, 9, 16), 11),
)
ALMERE_LESSONS = (
    (
        "Vraag vroeg om water",
        "do",
        "water",
        "plan",
        "Regel de wateraansluiting **voordat** u zaait. Een regenton helpt, maar niet in juli.",
    ),
    (
        "Een nee is niet het laatste woord",
        "tip",
        "municipality",
        None,
        "Zegt één ambtenaar nee? Er zijn er meer. Vraag wie er over *uw* wijk gaat.",
    ),
    (
        "Nodig mensen persoonlijk uit",
        "success_factor",
        "volunteers",
        None,
        "Bel, en zeg waarom deze avond juist voor hen is. Dat werkt beter dan een mail.",
    ),
    (
        "Begin niet alleen",
        "dont",
        "volunteers",
        "idea",
        "Start met een tweede trekker. Zo valt niet alles stil als u een keer ziek bent.",
    ),
    (
        "Schrijf het plan op één bladzijde",
        "do",
        "business_plan",
        "plan",
        "Doel, plek, geld, mensen. Meer leest niemand, minder overtuigt niemand.",
    ),
    (
        "Een half uur napraten hoort erbij",
        "success_factor",
        "neighbourhood",
        None,
        "De borrel na afloop is net zo belangrijk als het thema.",
    ),
)
DRONTEN = (
    (
        "Kassen van het groene lyceum",
        "school_garden",
        "operational",
        52_527_000,
        5_722_000,
        "Kassen die andere scholen mogen gebruiken.",
    ),
    ("Daktuin op school", "school_garden", "operational", 52_523_000, 5_715_000, "Een daktuin, te delen met de buurt."),
    ("Schooltuin De Eerste Spade", "school_garden", "plan", 52_530_000, 5_705_000, "Een tuin voor drie scholen samen."),
)
DRONTEN_LESSONS = (
    (
        "Deel uw kas met een andere school",
        "tip",
        "school",
        "operational",
        "Een kas staat in de zomer leeg. Spreek af wie water geeft.",
    ),
    (
        "Neem twee uur voor één casus",
        "success_factor",
        "school",
        None,
        "Een avond intervisie over één tuin brengt die tuin echt verder.",
    ),
)


PLACE_SHOWN = {"Zorgtuin De Ruimte": "neighbourhood", "Bloembakken Stedenwijk": "hidden"}
"""Who does not want everybody to know exactly where they are."""


def initiatives(session: Session, rows: Any, since: date, today: date) -> list[Any]:
    """Register them in the phase they were in."""
    return [
        register_initiative(
            session, phase=phase, since=since, today=today, name=name, kind=kind, latitude=latitude, longitude=longitude,
            about_text=about, visitors=phase == "operational", place_shown=PLACE_SHOWN.get(name, "exact"),
        )
        for name, kind, phase, latitude, longitude, about in rows
    ]  # fmt: skip


def almere(session: Session, today: date) -> None:
    """Almere's circle, from its start meeting on."""
    describe_circle(
        session, name="Kenniskring Buurtmoestuinen Almere", place_name="Almere", latitude=52_370_700, longitude=5_222_000,
        about_text="Buurtmoestuinen en schooltuinen die van elkaar leren, sinds 2012.", founded=START,
        themes=["volunteers", "business_plan", "finance", "archaeology", "social_media", "neighbourhood", "municipality"],
    )  # fmt: skip
    for number in range(18):  # with the two people of the demo: the twenty of 2013
        name, address = f"Deelnemer {number + 1:02} Voorbeeld", f"deelnemer{number + 1:02}@almere.example"
        add_member(session, name=name, email=address, today=START if number < 11 else date(2013, 6, 19))
    made = initiatives(session, ALMERE, START, today)
    zenit = register_initiative(
        session, name="VINDplaats Zenit", kind="community_garden", phase="idea", since=date(2013, 6, 19), today=today,
        latitude=52_380_000, longitude=5_255_000, about_text="Voortgekomen uit de kenniskring zelf.",
    )  # fmt: skip
    reach_phase(session, zenit.code, phase="plan", since=date(2014, 3, 1), today=today)
    reach_phase(session, made[4].code, phase="operational", since=date(2013, 4, 1), today=today)
    agenda = [
        {"title": "Bijpraten", "minutes": 45},
        {"title": "Thema", "minutes": 45},
        {"title": "De kring versterken", "minutes": 15},
        {"title": "Napraten", "minutes": 30},
    ]
    for title, kind, theme, day, attended in ALMERE_MEETINGS:
        meeting = plan_meeting(
            session, title=title, kind=kind, theme=theme, day=day, starts=time(19, 30), ends=time(22), agenda=agenda,
            place_name="Stadsboerderij Almere",
        )  # fmt: skip
        if day < today:  # a test's clock may stand earlier
            hold_meeting(session, meeting.code, attended=attended, members=[], notes="", today=today)
    plan_meeting(
        session, title="De bodem: wat groeit waar?", kind="circle", theme="soil", day=next_wednesday(today), starts=time(19, 30),
        ends=time(22), agenda=agenda, place_name="Stadsboerderij Almere",
    )  # fmt: skip
    share(session, ALMERE_LESSONS, today)


def next_wednesday(today: date) -> date:
    """A Wednesday two to three weeks ahead, so that there is always something to come."""
    ahead = today + timedelta(days=15)
    return ahead + timedelta(days=(2 - ahead.weekday()) % 7)


def dronten(session: Session, today: date) -> None:
    """Dronten's learning network of school gardens, by intervision."""
    describe_circle(
        session, name="Lerend Netwerk Schooltuinen Dronten", place_name="Dronten", latitude=52_525_000, longitude=5_718_000,
        about_text="Elke maand één casus, twee uur lang.", founded=date(2014, 11, 1), method="intervision", themes=["school"],
    )  # fmt: skip
    for number in range(2):  # with the two people of the demo: the four organisers
        add_member(
            session,
            name=f"Kartrekker {number + 1} Voorbeeld",
            email=f"kartrekker{number + 1}@dronten.example",
            today=date(2014, 11, 1),
        )
    initiatives(session, DRONTEN, date(2014, 11, 1), today)
    for title, day, attended in (("Casus: de daktuin", date(2014, 12, 10), 9), ("Casus: kassen delen", date(2015, 1, 14), 8)):
        meeting = plan_meeting(
            session, title=title, kind="intervision", theme="school", day=day, starts=time(15, 30), ends=time(17, 30), agenda=[],
            place_name="Het groene lyceum",
        )  # fmt: skip
        hold_meeting(session, meeting.code, attended=attended, members=[], notes="", today=today)
    share(session, DRONTEN_LESSONS, today)


def share(session: Session, lessons: Any, today: date) -> None:
    """Share these lessons, one a month, so that what somebody shares now is the newest."""
    for months, (title, kind, theme, phase, body) in enumerate(lessons, 1):
        day = today - timedelta(days=30 * months)
        share_lesson(session, None, today=day, title=title, kind=kind, theme=theme, phase=phase, body=body)


def main() -> None:
    """Load the circle that is asked for, in one transaction; once."""
    with open_node(load_settings()).transaction() as session:
        if session.scalar(select(func.count()).select_from(Initiative)) == 0:
            {"almere": almere, "dronten": dronten}[sys.argv[1]](session, date.today())  # noqa: DTZ011  # the machine's own day will do


if __name__ == "__main__":
    sys.exit(refuse_plainly(main, Refusal))
