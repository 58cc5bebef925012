"""Every page of the sites, for whom it is, and how to get there. A page that is not here is not looked at."""

from dataclasses import dataclass

from tests.browser.sites import Served, Sites


@dataclass(frozen=True)
class Place:
    """A page as one reader meets it; `sends` is what the reader filled in wrongly before the page came back."""

    name: str
    site: str
    role: str
    path: str
    sends: tuple[tuple[str, str], ...] | None = None

    def address(self, sites: Sites) -> str:
        served = sites.named(self.site)
        return served.url + self.path.format(**served.codes, **served.people)


def _almere(role: str, *places: tuple[str, str]) -> list[Place]:
    return [Place(f"almere-{role or 'stranger'}-{name}", "almere", role, path) for name, path in places]


def _hub(role: str, *places: tuple[str, str]) -> list[Place]:
    return [Place(f"hub-{role or 'stranger'}-{name}", "hub", role, path) for name, path in places]


EVERYTHING_WRONG = (
    ("title", "Avond met Fenna Facilitator"),
    ("day", "2015-06-10"),
    ("starts", "21:00"),
    ("ends", "20:00"),
    ("agenda-4-minutes", "5"),
)
PLACES = [
    *_almere(
        "",
        ("today", "/"),
        ("circle", "/circle"),
        ("meetings", "/meetings"),
        ("meeting", "/meetings/{before}"),
        ("login", "/login"),
        ("enter", "/login/link/{link}"),
        ("dead-link", "/login/link/none"),
        ("missing", "/nothing-here"),
        ("sync", "/sync"),
        ("begun", "/membership/begin"),
    ),
    *_almere(
        "member",
        ("today", "/"),
        ("initiatives", "/initiatives"),
        ("nothing-found", "/initiatives?phase=stopped"),
        ("initiative", "/initiatives/{garden}"),
        ("register", "/initiatives/new"),
        ("phase", "/initiatives/{garden}/phase"),
        ("meeting", "/meetings/{evening}"),
        ("round", "/meetings/{evening}/round/{silent}"),
        ("lessons", "/lessons"),
        ("lesson", "/lessons/{lesson}"),
        ("passed", "/meetings/{passed}"),
        ("share", "/lessons/new"),
        ("association", "/association"),
        ("elsewhere", "/association/dronten/{elsewhere}"),
        ("people", "/circle/people"),
        ("details", "/circle/people/{member}"),
        ("forbidden", "/meetings/new"),
        ("initiative-edit", "/initiatives/{garden}/edit"),
        ("lesson-edit", "/lessons/{lesson}/edit"),
        ("tokens", "/tokens"),
        ("trail", "/trail"),
        ("docs", "/api/docs"),
        ("erase", "/erasures/lesson/{lesson}"),
        ("erasures", "/erasures"),
    ),
    *_almere(
        "facilitator",
        ("today", "/"),
        ("meetings", "/meetings"),
        ("plan", "/meetings/new"),
        ("evening", "/meetings/{evening}"),
        ("hold", "/meetings/{evening}/hold"),
        ("coming", "/meetings/{coming}"),
        ("passed", "/meetings/{passed}"),
        ("held", "/meetings/{before}"),
        ("report", "/meetings/{before}/report"),
        ("people", "/circle/people"),
        ("person", "/circle/people/{member}"),
        ("add-person", "/circle/people/new"),
        ("circle-edit", "/circle/edit"),
        ("initiative", "/initiatives/{garden}"),
        ("meeting-edit", "/meetings/{coming}/edit"),
        ("transfer", "/transfer"),
        ("membership", "/membership"),
        ("joined", "/membership/join"),
        ("sheet", "/membership/sheet"),
        ("leave", "/membership/leave"),
    ),
    Place(
        "import-right",
        "almere",
        "facilitator",
        "/transfer?kind=initiatives",
        (("file", "@Naam;Soort;Fase\nTuin Nieuw;Schooltuin;Idee\n"),),
    ),
    Place("import-wrong", "almere", "facilitator", "/transfer?kind=initiatives", (("file", "@Naam;Soort;Fase\n;Kasteel;Klaar\n"),)),
    Place("fresh-today", "fresh", "facilitator", "/"),
    Place("fresh-meetings", "fresh", "facilitator", "/meetings"),
    Place("fresh-initiatives", "fresh", "facilitator", "/initiatives"),
    Place("fresh-lessons", "fresh", "facilitator", "/lessons"),
    Place("fresh-association", "fresh", "facilitator", "/association"),
    Place("fresh-circle", "fresh", "facilitator", "/circle"),
    Place("fresh-people", "fresh", "facilitator", "/circle/people"),
    Place("blank-begin", "blank", "", "/"),
    Place("blank-wrong", "blank", "", "/membership/begin", (("name", "Eva"), ("email", "eva"), ("code", "ABC"))),
    Place("alone-today", "alone", "facilitator", "/"),
    Place("alone-sync", "alone", "facilitator", "/sync"),
    Place("alone-join", "alone", "facilitator", "/membership/join"),
    Place("alone-wrong-join", "alone", "facilitator", "/membership/join", (("hub", "http://127.0.0.1:9"), ("code", "ABC"))),
    Place("alone-membership", "alone", "facilitator", "/membership"),
    Place("alone-erasures", "alone", "facilitator", "/erasures"),
    Place("fresh-sync", "fresh", "facilitator", "/sync"),
    Place("troubled-sync", "troubled", "facilitator", "/sync"),
    Place("troubled-erasures", "troubled", "facilitator", "/erasures"),
    Place("wrong-meeting", "almere", "facilitator", "/meetings/new", (("title", ""), ("starts", "21:00"), ("ends", "20:00"))),
    Place("wrong-everywhere", "almere", "facilitator", "/meetings/new", EVERYTHING_WRONG),
    Place(
        "wrong-agenda",
        "almere",
        "facilitator",
        "/meetings/new",
        (("title", "Avond"), ("day", "2015-07-01"), ("agenda-1-minutes", "1441"), ("agenda-4-minutes", "5")),
    ),
    Place("asked-day", "almere", "facilitator", "/meetings/new", (("title", "Avond met Fenna Facilitator"), ("day", "2015-06-10"))),
    Place("wrong-login", "almere", "", "/login", (("email", "fenna"),)),
    Place("asked-lesson", "almere", "member", "/lessons/new", (("title", "Fenna Facilitator"), ("body", "Bel 06 1234 5678."))),
    Place("login-sent", "almere", "", "/login", (("email", "nobody@almere.example"),)),
    *_hub(
        "",
        ("national", "/"),
        ("initiatives", "/initiatives"),
        ("initiative", "/initiatives/almere/{garden}"),
        ("meetings", "/meetings"),
        ("meeting", "/meetings/almere/{meeting}"),
        ("lessons", "/lessons"),
        ("nothing-found", "/lessons?q=kangoeroe"),
        ("lesson", "/lessons/almere/{lesson}"),
        ("towns", "/towns"),
        ("town", "/towns/almere"),
        ("components", "/dev/components"),
        ("mail", "/dev/mail"),
    ),
    *_hub(
        "association",
        ("national", "/"),
        ("sync", "/association"),
        ("new-town", "/association/towns/new"),
        ("town-guarded", "/association/towns/almere"),
        ("town-frozen", "/association/towns/dronten"),
        ("town-asking", "/association/towns/urk"),
        ("town-left", "/association/towns/elburg"),
        ("frozen", "/association/towns/dronten/frozen"),
        ("revoke", "/association/towns/almere/revoke"),
        ("leave", "/association/towns/almere/leave"),
        ("told", "/association/towns/elburg/told"),
        ("quarantine", "/association/quarantine"),
        ("quarantine-town", "/association/quarantine?town=almere"),
        ("refused", "/association/quarantine/1"),
        ("town", "/towns/almere"),
        ("tokens", "/tokens"),
        ("trail", "/trail"),
        ("docs", "/api/docs"),
    ),
    Place("hub-wrong-town", "hub", "association", "/association/towns/new", (("name", "Urk"), ("slug", "U"))),
    Place("hub-wrong-place", "hub", "association", "/association/towns/almere/revoke", (("last", "9999"),)),
    Place("hub-code", "hub", "association", "/association/towns/new", (("name", "Urk"), ("slug", "urk-{language}"))),
]
NOT_LOOKED_AT = (
    *("/static/", "/shared/", "/api/v1/", "/federation/", "/login/language/", "/healthz", "/readyz", "/metrics"),
    *("/transfer/export/", "/transfer/sample/", "/transfer/<code>", "/membership/everything.zip", "/association/towns/<slug>/code"),
)
"""Addresses that are no page, or are opened by sending a form."""


def open_place(page, place: Place, sites: Sites, language: str = "nl") -> None:
    """Go there, and fill in what the place says; after an @, the content of a file."""
    page.goto(place.address(sites))
    if place.sends is not None:
        for name, value in place.sends:
            if value.startswith("@"):
                file = {"name": "tuinen.csv", "mimeType": "text/csv", "buffer": value[1:].encode()}
                page.set_input_files(f"[name={name}]", [file])
            else:
                page.fill(f"[name={name}]", value.format(language=language))
        page.click("main form.form > .actions button[type=submit]")


def log_in(context, served: Served, role: str, language: str) -> None:
    """The cookies of a reader with this role, who chose this language."""
    cookies = [{"name": "language", "value": language, "url": served.url}]
    if role:
        cookies.append({"name": served.session_cookie, "value": served.cookie(role), "url": served.url})
    context.add_cookies(cookies)
