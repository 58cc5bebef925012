"""Places as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.coordinates import neighbourhood, read_place, write_place
from shared.events import Place

ALMERE = Place(52_370_100, 5_222_000)
LATITUDES, LONGITUDES = st.integers(50_500_000, 53_800_000), st.integers(3_000_000, 7_500_000)


@pytest.mark.parametrize(
    "text",
    [
        "52.3701, 5.2220",
        "52,3701 5,2220",
        "52,3701, 5,2220",
        "52.3701,5.2220",
        "52,3701,5,2220",
        "52,3701;5,2220",
        "52,3701\t5,222",
        " 52.3701 , 5.222 ",
        "52.3701° N, 5.2220° E",
        "N52.3701 E5.2220",
        "52.3701 NB 5.2220 OL",
        "lat: 52.3701, lon: 5.2220",
        "(52.3701, 5.2220)",
    ],
)
def test_degrees_are_read_as_people_write_them(text: str) -> None:
    read = read_place(text)
    assert read
    assert read.how == "degrees"
    assert read.place == ALMERE


def test_minutes_and_seconds_are_read_too() -> None:
    read = read_place("52°22'12.36\" N 5°13\u203219,2\u2033 O")
    assert read
    assert read.how == "degrees"
    assert read.place == ALMERE


@pytest.mark.parametrize("text", ["5.2220, 52.3701", "5,2220 52,3701", "E 5.2220 N 52.3701"])
def test_swapped_degrees_are_recognised(text: str) -> None:
    read = read_place(text)
    assert read
    assert read.how == "swapped"
    assert read.place == ALMERE


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("155000 463000", Place(52_155_174, 5_387_206)),
        ("155.000 463.000", Place(52_155_174, 5_387_206)),
        ("155 000 463 000", Place(52_155_174, 5_387_206)),
        ("155000,463000", Place(52_155_174, 5_387_206)),
        ("463000 155000", Place(52_155_174, 5_387_206)),
        ("RD x=155000 y=463000", Place(52_155_174, 5_387_206)),
        ("120700,723 487525,501", Place(52_374_533, 4_883_526)),  # the Westertoren in Amsterdam, as published
        ("233.883,131 582.065,167", Place(53_219_383, 6_568_201)),  # the Martinitoren in Groningen
    ],
)
def test_the_national_grid_is_recognised(text: str, place: Place) -> None:
    read = read_place(text)
    assert read
    assert read.how == "rd"
    assert abs(read.place.latitude - place.latitude) <= 5  # half a metre
    assert abs(read.place.longitude - place.longitude) <= 8


@pytest.mark.parametrize(
    "text",
    ["", "52.3701", "52,37", "Bloemstraat 52 5", "1315 AB Almere", "48.85, 2.35", "1 2 3", "52.37 5.22 7", "0 0", "²² ²", "9" * 200,
     "- , -", "nan nan", "inf 5", "52.37N 5.22W"],
)  # fmt: skip
def test_nothing_is_guessed(text: str) -> None:
    assert read_place(text) is None


@given(st.text())
def test_any_text_is_answered(text: str) -> None:
    read_place(text)


@given(LATITUDES, LONGITUDES)
def test_what_is_written_is_read_back(latitude: int, longitude: int) -> None:
    read = read_place(write_place(latitude, longitude))
    assert read
    assert read.how == "degrees"
    assert read.place == Place(latitude, longitude)


@given(LATITUDES, LONGITUDES)
def test_a_neighbourhood_is_near_and_stays_the_same(latitude: int, longitude: int) -> None:
    place = Place(latitude, longitude)
    near = neighbourhood(place)
    assert abs(near.latitude - latitude) * 0.1113 <= 251  # metres
    assert abs(near.longitude - longitude) * 0.0708 <= 259
    assert neighbourhood(near) == near
