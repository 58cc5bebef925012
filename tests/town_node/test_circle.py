from datetime import date

import pytest

from services.town_node.circle.model import Circle, LastFacilitator, Member, theme_code

TODAY = date(2012, 6, 20)


def test_a_circle_tells_all_it_is():
    circle = Circle(code="circle01", name="Kring", place_name="Almere")
    said = circle.describe(themes=["water"], latitude=52_370_000, longitude=5_220_000)
    assert (said.name, said.themes, said.place.latitude, said.status) == ("Kring", ("water",), 52_370_000, "active")
    assert circle.count(13, TODAY).members == 13


def test_half_a_place_is_not_told():
    assert Circle(code="circle01", name="Kring", place_name="Almere", latitude=1).describe().place is None


def test_the_last_facilitator_can_neither_leave_nor_become_a_member():
    roos = Member(code="roos", name="Roos", email="roos@example.org", role="facilitator", joined_on=TODAY)
    with pytest.raises(LastFacilitator):
        roos.leave(TODAY, facilitators=1)
    with pytest.raises(LastFacilitator):
        roos.change_role("member", facilitators=1)
    roos.change_role("member", facilitators=2)
    assert roos.role == "member"


def test_who_leaves_cannot_be_reached_any_more():
    bas = Member(code="bas", name="Bas", email="bas@example.org", phone="036", role="member", joined_on=TODAY)
    bas.leave(TODAY, facilitators=1)
    assert (bas.email, bas.phone, bas.left_on) == (None, "", TODAY)


def test_a_theme_gets_the_spelling_that_travels():
    assert theme_code(" Bijen & Honing-één ") == "bijen_honing_een"
    assert theme_code("!") == ""
