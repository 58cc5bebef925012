"""The map of the Netherlands as shapes: pure geometry, drawn by a template as SVG.

The projection is the simplest that looks right for one small country: degrees of longitude shrunk by the cosine of its middle
latitude. Gardens of one town lie so close together that their marks would hide each other, so `spread` moves a mark to the nearest
free spot; on a map of a country nobody misses the kilometre.
"""

import json
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import shared

WEST, EAST, SOUTH, NORTH = 3.25, 7.32, 50.68, 53.62
WIDTH = 600.0
_SHRINK = math.cos(math.radians((SOUTH + NORTH) / 2))
_SCALE = WIDTH / ((EAST - WEST) * _SHRINK)
HEIGHT = round((NORTH - SOUTH) * _SCALE, 1)
GAP = 13.0
"""Least distance between two marks."""
_TRIES = 400
_LETTER, _LINE = 8.6, 15.0
"""How wide a letter of a town's name is, roundly, and how high."""
_GOLDEN = math.pi * (3 - math.sqrt(5))
_OUTLINE = Path(shared.__file__).parent / "static" / "vendor" / "netherlands.json"

Point = tuple[float, float]


def point(latitude: int, longitude: int) -> Point | None:
    """Where a place (in millionths of a degree) lies on the map; None when it is not in the Netherlands."""
    north, east = latitude / 1e6, longitude / 1e6
    if not (SOUTH <= north <= NORTH and WEST <= east <= EAST):
        return None
    return _project(north, east)


def _project(north: float, east: float) -> Point:
    return round((east - WEST) * _SHRINK * _SCALE, 1), round((NORTH - north) * _SCALE, 1)


@lru_cache(maxsize=1)
def outline() -> str:
    """The coast and the borders as an SVG path; empty when the build has not made the file."""
    if not _OUTLINE.is_file():
        return ""
    shape = json.loads(_OUTLINE.read_text())["geometry"]
    polygons = shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
    rings = [ring for polygon in polygons for ring in polygon]
    return "".join("M" + "L".join("{} {}".format(*_project(north, east)) for east, north in ring) + "Z" for ring in rings)


def spread(points: Sequence[Point], taken: Iterable[Point] = ()) -> list[Point]:
    """The same points, each moved along a spiral to the nearest spot where it touches no other."""
    grid: dict[tuple[int, int], list[Point]] = {}

    def cell(at: Point) -> tuple[int, int]:
        return int(at[0] // GAP), int(at[1] // GAP)

    def free(at: Point) -> bool:
        column, row = cell(at)
        near = (other for dx in (-1, 0, 1) for dy in (-1, 0, 1) for other in grid.get((column + dx, row + dy), ()))
        return all(math.dist(at, other) >= GAP for other in near)

    for at in taken:
        grid.setdefault(cell(at), []).append(at)
    placed = []
    for x, y in points:
        spots = (
            (x + GAP / 2 * math.sqrt(n) * math.cos(n * _GOLDEN), y + GAP / 2 * math.sqrt(n) * math.sin(n * _GOLDEN))
            for n in range(_TRIES)
        )
        spot = next((at for at in spots if free(at)), (x, y))
        grid.setdefault(cell(spot), []).append(spot)
        placed.append((round(spot[0], 1), round(spot[1], 1)))
    return placed


def label_spots(names: Sequence[tuple[Point, str]], marks: Sequence[Point]) -> list[Point]:
    """Where to write the names (the middle of their base line): near their place, where they hide the fewest marks and names."""
    written: list[tuple[Point, float]] = []
    for (x, y), name in names:
        half = len(name) * _LETTER / 2
        spots = [(x + dx, y + dy) for dy in range(5, 90, 9) for dx in (0.0, half + GAP, -half - GAP)]
        spots += [(x + dx, y - dy) for dy in range(13, 90, 9) for dx in (0.0, half + GAP, -half - GAP)]
        inside = [at for at in spots if half <= at[0] <= WIDTH - half and _LINE <= at[1] <= HEIGHT - 4] or spots[:1]
        best = min(inside, key=lambda at: (_hidden(at, half, marks, written), math.dist(at, (x, y + 5))))
        written.append((best, half))
    return [(round(at[0], 1), round(at[1], 1)) for at, _half in written]


def _hidden(at: Point, half: float, marks: Sequence[Point], written: Sequence[tuple[Point, float]]) -> int:
    middle = at[1] - _LINE / 3
    over_marks = sum(abs(x - at[0]) < half + 6 and abs(y - middle) < _LINE / 2 + 5 for x, y in marks)
    over_names = sum(abs(x - at[0]) < half + other + 4 and abs(y - at[1]) < _LINE + 1 for (x, y), other in written)
    return over_marks + 5 * over_names
