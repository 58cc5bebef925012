"""The map on a page: what `map.js` is told, the places it fetches, and the background that an operator may switch on.

A map is an addition. Without JavaScript the hub shows the map that the server drew and every page its list; with it, Leaflet takes
the drawing's place. All it needs comes from this site: the outline of the country and the places, as JSON from one address with an
ETag. Only where the operator switched on the background do a reader's browser fetch images elsewhere, from the Kadaster's
public map service (PDOK), and only then, and on pages with a map only, does the Content-Security-Policy allow it.

Places are grouped by town, in hundred-thousandths of a degree (a metre); codes travel, and the page brings the words for them.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from flask import Response, after_this_request, request

from shared.coordinates import SQUARE
from shared.events import INITIATIVE_KINDS, PHASES, Place
from shared.labels import choices
from shared.language import _
from shared.site import CSP
from shared.web import asset, leading_out, site

BACKGROUND = "https://service.pdok.nl"
_TILES = BACKGROUND + "/brt/achtergrondkaart/wmts/v2_0/grijs/EPSG:3857/{z}/{x}/{y}.png"
"""The grey one of its four: our marks are in colour. It has the zooms 6 to 19 (`map.js`)."""
_OWNER, _LICENCE = "https://www.kadaster.nl", "https://creativecommons.org/licenses/by/4.0/"

EXACT, NEAR, WITH_CIRCLE = range(3)
"""How exactly a mark stands where its initiative is; a place that is not told stands with the circle of its town."""


@dataclass(frozen=True)
class Mark:
    """An initiative as a map shows it."""

    town: str
    code: str
    name: str
    phase: str
    kind: str
    place: Place | None


def places(marks: Iterable[Mark], names: Mapping[str, str], homes: Mapping[str, Place]) -> bytes:
    """What `map.js` fetches: the marks by town. A mark without a place stands with its town's circle, or is left out."""
    towns: dict[str, dict[str, Any]] = {}
    for slug in (*homes, *names):
        home = homes.get(slug)
        towns[slug] = {"town": slug, "name": names.get(slug, slug), "at": _at(home) if home else None, "marks": []}
    for mark in marks:
        place = mark.place or homes.get(mark.town)
        if place is None:
            continue
        how = WITH_CIRCLE if mark.place is None else EXACT if place.exact else NEAR
        town = towns.setdefault(mark.town, {"town": mark.town, "name": mark.town, "at": None, "marks": []})
        kind = INITIATIVE_KINDS.index(mark.kind) if mark.kind in INITIATIVE_KINDS else -1
        phase = PHASES.index(mark.phase) if mark.phase in PHASES else 0
        town["marks"].append([mark.code, mark.name, phase, kind, *_at(place), how])
    return orjson.dumps({"towns": [town for town in towns.values() if town["at"] or town["marks"]]})


def _at(place: Place) -> list[int]:
    return [round(place.latitude / 10), round(place.longitude / 10)]


def answer_places(make: Callable[[], bytes], tag: str = "") -> Response:
    """The places, or 304 for who has them. With a `tag` that changes whenever they do, nothing is looked up for a 304."""
    tag = tag and f"{tag}-{asset('map.js')[-12:]}"  # a new release may ask for another form
    known = bool(tag) and request.if_none_match.contains_weak(tag)  # weak, once it was compressed
    answer = Response(b"" if known else make(), mimetype="application/json")
    answer.set_etag(tag or hashlib.sha256(answer.get_data()).hexdigest()[:16])
    answer.headers["Cache-Control"] = "no-cache"
    answer.vary.update(("Cookie",))
    answer.make_conditional(request)
    return answer


def told(places_url: str, mark_url: str, **more: Any) -> dict[str, Any]:
    """What a page tells its map. In `mark_url` `{town}` and `{code}` are filled in.

    More that `map.js` knows: `fit` (show the places rather than the country), `choose` (the mark to begin with), and `pick`
    (`field`, `shown`, `url` and `own`: it fills in a form).
    """
    facts = {
        "places": places_url,
        "mark": mark_url,
        "outline": asset("vendor/netherlands.json"),
        "phases": choices("phase"),
        "kinds": choices("initiative_kind"),
        "square": SQUARE,
        "words": _words(),
    } | more
    if site().map_background:
        facts["tiles"], facts["credit"] = _TILES, _credit()
        after_this_request(_allow_background)
    return facts


def _credit() -> str:
    """What stands on the map, as HTML: whose data it is and by which licence (CC BY asks for both, with their addresses)."""
    owner, licence = leading_out(_OWNER, "Kadaster"), leading_out(_LICENCE, "CC BY 4.0")
    return _("Map data © %(owner)s, %(licence)s", owner=owner, licence=licence)


def _allow_background(answer: Response) -> Response:
    answer.headers["Content-Security-Policy"] = CSP.replace("img-src 'self'", f"img-src 'self' {BACKGROUND}")
    return answer


def _words() -> dict[str, str]:
    return {
        "map": _("Map of the initiatives. The arrow keys move it, plus and minus change its size."),
        "pick": _("Map for choosing a place. Move it with the arrow keys and press Enter to choose its middle."),
        "closer": _("Closer"),
        "farther": _("Farther away"),
        "close": _("Close"),
        "together": _("{n} initiatives"),
        "more": _("and {n} more"),
        "near": _("Somewhere in this neighbourhood."),
        "with_circle": _("Its place is not told; it stands with its circle."),
        "picked": _("Chosen: {place}"),
    }
