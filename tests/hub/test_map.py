"""The national map: what the script fetches, and what the server draws for who has none."""

import gzip
import json
import re
from datetime import date

import pytest

from services.hub.app import create_app
from services.hub.config import Settings
from shared import events
from shared.db import Base, Database
from shared.inbox import KOEPEL
from tests.hub.conftest import garden

TOWNS, EACH = 20, 50


@pytest.fixture
def hub(tmp_path):
    settings = Settings(state=tmp_path)
    database = Database(settings.database_url)
    Base.metadata.create_all(database.engine)
    database.close()
    app = create_app(settings)
    yield app
    app.extensions["site"].database.close()


@pytest.fixture
def session(hub):
    with hub.extensions["site"].database.transaction() as open_session:
        yield open_session


@pytest.fixture
def thousand(session, tell):
    """A thousand initiatives in twenty towns."""
    for n in range(TOWNS):
        slug = f"stad-{n:02}"
        tell(session, KOEPEL, events.TownAdmitted(town=slug, name=f"Stad {n}", key_id="k" * 12, public_key="p" * 44))
        at = events.Place(51_500_000 + n * 80_000, 4_600_000 + (n * 37 % 20) * 90_000)
        tell(session, slug, events.CircleDescribed(circle="circle", name=f"Kring {n}", place_name=f"Stad {n}", place=at))
        tell(session, slug, *[_garden(slug, n, m, at) for m in range(EACH)])
    session.commit()


def _garden(slug, n, m, at):
    phase = events.PHASES[(n + m) % 5]
    place = events.Place(at.latitude + m * 1711 % 40_000, at.longitude + m * 3217 % 60_000, m % 3 > 0)
    return garden(
        initiative=f"{(n * 7919 + m * 104_729) % 999_983:012x}",
        name=f"Buurtmoestuin {('De Zon', 'Het Hof', 'Aarde')[m % 3]} {n}.{m}",
        kind=events.INITIATIVE_KINDS[m % 8],
        history=(events.PhaseStep(phase, date(2014, 1, 1)),),
        place=None if m % 10 == 0 else place,
    )


def all_marks(answer):
    return [mark for town in answer.json["towns"] for mark in town["marks"]]


def test_the_map_is_told_each_initiative_with_its_phase_and_how_exactly_it_stands(hub, almere, tell):
    near = events.Place(52_363_750, 5_223_150, exact=False)
    tell(almere, "almere", garden(initiative="buurt-01", name="Ergens", place=near))
    tell(almere, "almere", garden(initiative="stil-001", name="Stil", place=None))
    almere.commit()
    answer = hub.test_client().get("/map.json")
    (town,) = answer.json["towns"]
    assert (town["town"], town["name"], town["at"]) == ("almere", "Almere", [5_237_000, 521_500])
    by_name = {mark[1]: mark for mark in town["marks"]}
    assert by_name["Stadslandbouw Zenit"] == ["zenit-01", "Stadslandbouw Zenit", 3, 0, 5_236_500, 522_000, 0]
    assert by_name["Ergens"][4:] == [5_236_375, 522_315, 1]
    assert by_name["Stil"][4:] == [5_237_000, 521_500, 2]


@pytest.mark.usefixtures("thousand")
def test_the_map_and_the_list_are_filtered_alike(hub):
    reader = hub.test_client()
    for choice in ("", "?phase=idea", "?kind=school_garden", "?phase=idea&kind=school_garden", "?phase=nonsense"):
        page = reader.get("/" + choice).text
        marks = all_marks(reader.get("/map.json" + choice))
        asked = json.loads(re.search(r"data-map='([^']*)'", page)[1])["places"]
        assert len(all_marks(reader.get(asked))) == len(marks)
        listed = page.count('class="row linked"')
        assert listed == min(len(marks), 40)
        assert (len(marks) > 40) == ('rel="next"' in page)


@pytest.mark.usefixtures("thousand")
def test_the_list_goes_on_where_a_page_ends(hub):
    pages = [hub.test_client().get(f"/?phase=idea&page={n}").text for n in range(1, 7)]
    names = [name for page in pages for name in re.findall(r'class="cover" href="/initiatives/[^"]*">([^<]*)<', page)]
    assert len(names) == len(set(names)) == len(all_marks(hub.test_client().get("/map.json?phase=idea")))


@pytest.mark.usefixtures("thousand")
def test_a_thousand_initiatives_are_light_on_the_wire(hub):
    answer = hub.test_client().get("/map.json")
    assert len(all_marks(answer)) == TOWNS * EACH
    assert len(gzip.compress(answer.data, 6)) < 60_000
    page = hub.test_client().get("/")
    assert page.text.count("<title>Stad ") == TOWNS  # the drawing shows towns, for a thousand marks would hide each other
    assert len(gzip.compress(page.data, 6)) < 30_000


@pytest.mark.usefixtures("thousand")
def test_who_has_the_map_is_not_sent_it_again_until_something_changed(hub):
    first = hub.test_client().get("/map.json", headers={"Accept-Encoding": "gzip"})
    again = hub.test_client().get("/map.json", headers={"If-None-Match": first.headers["ETag"], "Accept-Encoding": "gzip"})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["Cache-Control"] == "no-cache"


def test_a_small_country_is_drawn_mark_by_mark(hub, almere):
    almere.commit()
    page = re.sub(r">\s+<", "><", hub.test_client().get("/").text)
    assert '<use href="#pin-operational" /><title>Stadslandbouw Zenit' in page
    assert "pdok" not in page


def test_an_inexact_place_says_so(hub, almere, tell):
    tell(almere, "almere", garden(initiative="buurt-01", place=events.Place(52_363_750, 5_223_150, exact=False)))
    almere.commit()
    reader = hub.test_client()
    reader.set_cookie("language", "en")
    assert "not the exact place" in reader.get("/initiatives/almere/buurt-01").text
    assert "not the exact place" not in reader.get("/initiatives/almere/zenit-01").text


def test_a_background_is_allowed_on_maps_only_and_only_when_switched_on(hub, almere):
    almere.commit()
    reader = hub.test_client()
    assert "pdok" not in reader.get("/").headers["Content-Security-Policy"]
    hub.extensions["site"].map_background = True
    page = reader.get("/")
    assert "img-src 'self' https://service.pdok.nl data:;" in page.headers["Content-Security-Policy"]
    assert page.headers["Content-Security-Policy"].count("pdok") == 1, "images and nothing else"
    assert "Kaartgegevens" in page.text
    assert "pdok" not in reader.get("/lessons").headers["Content-Security-Policy"]
