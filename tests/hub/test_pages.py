import pytest

from services.hub.app import create_app
from services.hub.config import Settings, open_hub
from shared.db import Base
from shared.projections import projection_table


@pytest.fixture
def database(tmp_path):
    empty, _ = open_hub(Settings(state=tmp_path))
    Base.metadata.create_all(empty.engine)
    empty.close()
    app = create_app(Settings(state=tmp_path))
    opened = app.extensions["site"].database
    opened.app = app
    yield opened
    opened.close()


@pytest.fixture
def visitor(database, almere):
    almere.get_transaction().commit()
    return database.app.test_client()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/?phase=operational&kind=community_garden",
        "/?phase='><b>",
        "/initiatives",
        "/initiatives?page=2",
        "/initiatives?page=99999999",
        "/initiatives?page=²",
        "/initiatives/almere/zenit-01",
        "/meetings",
        "/meetings?town=almere",
        "/meetings/almere/bijeen01",
        "/lessons",
        "/lessons?q=vrijwilligers&theme=volunteers",
        "/lessons?q=%22)%20OR%20*",
        "/lessons?q=%00",
        "/lessons/almere/les-0001",
        "/towns",
        "/towns/almere",
        "/numbers.json",
    ],
)
def test_every_page_opens(visitor, path):
    assert visitor.get(path).status_code == 200


@pytest.mark.parametrize(
    "path", ["/initiatives/almere/nope", "/meetings/almere/nope", "/lessons/nope/les-0001", "/towns/nope", "/towns/%00"]
)
def test_what_is_not_there_is_not_found(visitor, path):
    assert visitor.get(path).status_code == 404


def test_what_a_town_says_is_never_markup(database, almere, tell, share):
    tell(almere, "almere", share("les-0009", "<img src=x onerror=1>", "<script>alert(1)</script> [x](javascript:alert(1))"))
    almere.get_transaction().commit()
    for path in ("/lessons", "/lessons/almere/les-0009", "/towns/almere"):
        page = database.app.test_client().get(path).text
        assert "<img src=x" not in page
        assert "<script>alert" not in page
        assert 'href="javascript' not in page


def test_the_member_count_is_for_the_association_only(visitor):
    assert "Members" not in visitor.get("/towns/almere").text


def test_numbers_are_sent_only_when_they_changed(visitor, database):
    first = visitor.get("/numbers.json")
    assert first.json["counts"]["initiatives"] == first.json["counts"]["phase-operational"] == 1
    seen = {"If-None-Match": first.headers["ETag"]}
    assert visitor.get("/numbers.json", headers=seen).status_code == 304
    with database.transaction() as session:
        session.execute(projection_table.insert(), {"name": "towns", "folded_with": "", "version": 7})
    assert visitor.get("/numbers.json", headers=seen).status_code == 200


def test_choices_narrow_the_list_and_count_what_the_others_leave(visitor):
    page = visitor.get("/lessons?theme=soil", headers={"Accept-Language": "en"}).text
    assert "Compost maken" in page
    assert "Vrijwilligers vinden" not in page
    assert "/lessons?theme=volunteers" in page
