"""Places as people write them, and as exact as they may be shown.

Three notations are read, in one field or out of two columns joined by a space (`read_place`):

- degrees, WGS 84: `52.3701, 5.2220`, `52,3701 5,2220`, `N 52.3701° E 5.2220°`, `52°22'12" N 5°13'19" O`;
- the same the wrong way round: the Netherlands lies so that no latitude can be taken for a longitude;
- metres in the national grid (RD, EPSG:28992): `155000 463000`, `155.000 463.000`.

What lies outside the European Netherlands is not understood, because there it is nearly always a slip; nothing is guessed, and no
address is looked up anywhere. `PlaceRead.how` says which notation it was, so that a page can show how it was understood.

From the national grid to WGS 84 goes the published approximation of Schreutelkamp and Strang van Hees (Geodesia, 2001), which is
right within half a metre.

`neighbourhood` makes a place as vague as a neighbourhood: the middle of its square in a fixed grid of about 500 metres. It draws
no lots: the same place always gives the same square, so a hundred events tell no more than one (R34).
"""

import itertools
import re
from dataclasses import dataclass
from typing import Literal

from shared.events import Place

Notation = Literal["degrees", "swapped", "rd"]

SOUTH, NORTH, WEST, EAST = 50.5, 53.8, 3.0, 7.5
"""Where the European Netherlands lies, in degrees, with a margin."""
_LONGEST = 100
_WORDS = {
    "lat", "latitude", "lon", "lng", "long", "longitude", "breedte", "breedtegraad", "lengte", "lengtegraad", "noorderbreedte",
    "oosterlengte", "noord", "oost", "north", "east", "nb", "nbr", "ol", "rd", "x", "y", "n", "e", "o",
}  # fmt: skip
"""Words that may stand beside numbers; a place is known by its range, so they need no further reading."""
_LETTERS = re.compile(r"[^\W\d_]+")
_SEXAGESIMAL = re.compile(r"(\d{1,3})°\s*(\d{1,2}(?:[.,]\d+)?)'(?:\s*(\d{1,2}(?:[.,]\d+)?)(?:\"|''))?")
_SAME = str.maketrans("\u00ba\u2032\u2018\u2019\u2033\u201c\u201d\u2212", "°'''\"\"\"-")


@dataclass(frozen=True)
class PlaceRead:
    """A place that was understood, and from which notation."""

    place: Place
    how: Notation


def read_place(text: str) -> PlaceRead | None:
    """The place that these coordinates mean; None when they mean none in the Netherlands."""
    for first, second in itertools.product(*_readings(text)):
        if place := _degrees(first, second):
            return PlaceRead(place, "degrees")
        if place := _degrees(second, first):
            return PlaceRead(place, "swapped")
        if place := _grid(first, second) or _grid(second, first):
            return PlaceRead(place, "rd")
    return None


def write_place(latitude: int, longitude: int) -> str:
    """As `read_place` reads it back to the same millionths of a degree, and as other maps take it."""
    return f"{latitude / 1e6:.6f}, {longitude / 1e6:.6f}"


SQUARE = _HIGH, _BROAD = 4_500, 7_300
"""A square of the grid in millionths of a degree: 500 m high, and 482 to 514 m broad between Den Helder and Maastricht."""


def neighbourhood(place: Place) -> Place:
    """The middle of the square in which the place lies."""
    return Place(
        latitude=place.latitude // _HIGH * _HIGH + _HIGH // 2,
        longitude=place.longitude // _BROAD * _BROAD + _BROAD // 2,
        exact=False,
    )


# ---- Reading -----------------------------------------------------------------------------------------------------------------

_NOTHING: tuple[list[float], list[float]] = ([], [])


def _readings(text: str) -> tuple[list[float], list[float]]:
    """What the first and the second number may mean; both empty when these are not two numbers."""
    if len(text) > _LONGEST:
        return _NOTHING
    plain = _SEXAGESIMAL.sub(_to_decimal, text.translate(_SAME))
    if any(word.casefold() not in _WORDS for word in _LETTERS.findall(plain)):
        return _NOTHING
    plain = re.sub(r"[°:=()\[\]]", " ", _LETTERS.sub(" ", plain))
    words = [word for part in re.split(r"[\s;/|]+", plain) if (word := part.strip(","))]
    if len(words) == 1:
        words = _parted(words[0])
    elif len(words) == 4 and all(re.fullmatch(r"\d{3}([.,]\d+)?", words[nth]) for nth in (1, 3)):  # 155 000 463 000
        words = [words[0] + words[1], words[2] + words[3]]
    if len(words) != 2:
        return _NOTHING
    return _values(words[0]), _values(words[1])


def _to_decimal(match: re.Match[str]) -> str:
    """Degrees, minutes and seconds as decimal degrees."""
    whole, minutes, seconds = (float((part or "0").replace(",", ".")) for part in match.groups())
    return f"{whole + minutes / 60 + seconds / 3600:.7f} "


def _parted(word: str) -> list[str]:
    """Two numbers written together: `52.37,5.22`, `155000,463000` or `52,37,5,22`."""
    parts = word.split(",")
    middle = len(parts) // 2
    return [",".join(parts[:middle]), ",".join(parts[middle:])] if len(parts) in {2, 4} else []


def _values(word: str) -> list[float]:
    """What a number can mean: in `155.000` the point may part thousands, or decimals."""
    values = []
    if re.fullmatch(r"[+-]?\d+([.,]\d+)?", word):
        values.append(float(word.replace(",", ".")))
    for thousands, decimals in ((".", ","), (",", ".")):
        if re.fullmatch(rf"[+-]?\d{{1,3}}(\{thousands}\d{{3}})+(\{decimals}\d+)?", word):
            values.append(float(word.replace(thousands, "").replace(decimals, ".")))
    return values


def _degrees(latitude: float, longitude: float) -> Place | None:
    if SOUTH <= latitude <= NORTH and WEST <= longitude <= EAST:
        return Place(round(latitude * 1e6), round(longitude * 1e6))
    return None


# ---- The national grid -------------------------------------------------------------------------------------------------------
# Powers of the distance to Amersfoort (0, 0 below) in units of 100 km, and how many seconds of arc each adds.

_AMERSFOORT_X, _AMERSFOORT_Y = 155_000, 463_000
_AMERSFOORT_NORTH, _AMERSFOORT_EAST = 52.15517440, 5.38720621
_NORTHWARD = {
    (0, 1): 3235.65389, (2, 0): -32.58297, (0, 2): -0.24750, (2, 1): -0.84978, (0, 3): -0.06550, (2, 2): -0.01709,
    (1, 0): -0.00738, (4, 0): 0.00530, (2, 3): -0.00039, (4, 1): 0.00033, (1, 1): -0.00012,
}  # fmt: skip
_EASTWARD = {
    (1, 0): 5260.52916, (1, 1): 105.94684, (1, 2): 2.45656, (3, 0): -0.81885, (1, 3): 0.05594, (3, 1): -0.05607,
    (0, 1): 0.01199, (3, 2): -0.00256, (1, 4): 0.00128, (0, 2): 0.00022, (2, 0): -0.00022, (5, 0): 0.00026,
}  # fmt: skip


def _grid(x: float, y: float) -> Place | None:
    if not (10_000 <= x <= 300_000 and 289_000 <= y <= 629_000):  # x is 13,600 at Cadzand, and y is always more than x
        return None
    dx, dy = (x - _AMERSFOORT_X) / 100_000, (y - _AMERSFOORT_Y) / 100_000
    north = _AMERSFOORT_NORTH + sum(part * dx**p * dy**q for (p, q), part in _NORTHWARD.items()) / 3600
    east = _AMERSFOORT_EAST + sum(part * dx**p * dy**q for (p, q), part in _EASTWARD.items()) / 3600
    return _degrees(north, east)
