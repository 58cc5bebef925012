"""The whole way of a lesson, as people go it with a real browser through real processes: hub, Almere and Dronten, each with its web
process and its worker.

Once in Dutch on a desk, with nothing but the keyboard; once in English on a phone, with a thumb. What is pressed is found by the
words that stand on it, and what is filled in by its label.
"""

import re
from dataclasses import dataclass
from datetime import datetime

import pytest
from playwright.sync_api import Error, Locator, Page, expect

from services.hub.config import HERE as HUB
from services.town_node.config import HERE as NODE
from shared import language
from tests.processes import FACILITATOR, World
from tests.services import wait_until

PATIENCE = 30_000
"""Milliseconds that anything may take here; only a failure waits so long."""
TABS_MOST = 150
"""Presses of Tab after which nobody looks for a button any more."""
AWAY = "The association has not answered since %(moment)s. What you write is safe here, and goes out by itself."
ALL_THERE = "The association has received everything until %(moment)s."
ON_ITS_WAY = "%(count)s change on its way to the association. Last answer: %(moment)s."


@pytest.fixture(scope="module")
def land():
    for folder in (HUB, NODE):
        language.use_catalogues(folder / "translations")
    with World(town_settings={"DEMO": "yes"}, hub_settings={"DEMO": "yes"}, forked=True) as made:
        made.start()
        yield made


class Person:
    """Somebody with a mouse: what stands there is pressed and filled in."""

    language, window = "nl", {"width": 1280, "height": 800, "locale": "nl-NL"}

    def __init__(self, page: Page) -> None:
        self.page = page
        page.set_default_timeout(PATIENCE)

    def say(self, text: str, **values: object) -> str:
        """These words, as this person reads them."""
        with language.speak(self.language):
            return language._(text, **values)

    # -- What a person does --

    def go(self, item: str) -> None:
        """Choose from the menu."""
        menu = self.page.get_by_role("navigation", name=self.say("Main menu"))
        link = menu.get_by_role("link", name=self.say(item), exact=True).filter(visible=True)
        if not link.count():
            self._press(menu.locator("summary"))
        self._press(link)

    def press(self, text: str, **values: object) -> None:
        """Press the button or the link that says this; what it counts behind its words does not matter."""
        words = re.compile(rf"^{re.escape(self.say(text, **values))}( \(\d+\))?$")
        self._press(self.page.get_by_role("button", name=words).or_(self.page.get_by_role("link", name=words)).first)

    def fill(self, label: str, words: str) -> None:
        field = self._field(label)
        self._reach(field)
        field.fill(words)

    def choose(self, label: str, option: str) -> None:
        self._field(label).select_option(label=self.say(option))

    def tick(self, label: str) -> None:
        self._press(self.page.get_by_label(label, exact=True))

    def _field(self, label: str) -> Locator:
        return self.page.locator("main").get_by_label(re.compile(rf"^\s*{re.escape(self.say(label))}\s*(\(.*\))?\s*$"))

    def _press(self, goal: Locator) -> None:
        """Press it, and wait for the page that it leads to."""
        try:
            goal.wait_for(state="attached")
        except Error as error:
            there = self.page.locator("body").inner_text()
            raise AssertionError(f"nothing to press for {goal} on {self.page.url}:\n{there}") from error
        if goal.evaluate("one => one.matches('summary, [type=checkbox]')"):
            self._touch(goal)
        else:
            with self.page.expect_navigation():
                self._touch(goal)

    def _touch(self, goal: Locator) -> None:
        goal.click()

    def _reach(self, field: Locator) -> None:
        field.focus()

    # -- What a person sees --

    def sees(self, words: str) -> None:
        expect(self.page.locator("main")).to_contain_text(words, timeout=PATIENCE)

    def reads_in_the_foot(self, *texts: str) -> None:
        """Look again until the foot of the page says one of these."""
        with language.speak(self.language):
            one = language.ngettext(ON_ITS_WAY, ON_ITS_WAY, 1, count=1, moment="@")
        openings = [(one if text is ON_ITS_WAY else self.say(text, moment="@")).partition("@")[0] for text in texts]

        def said() -> bool:
            self.page.reload()
            foot = self.page.locator("footer").inner_text()
            return any(words in foot for words in openings)

        wait_until(said, f"{openings} in the foot", PATIENCE / 1000)


class AtTheKeyboard(Person):
    """Without a mouse: Tab, Enter, Space, and the letters."""

    def choose(self, label: str, option: str) -> None:
        field = self._field(label)
        self._reach(field)
        self.page.keyboard.type(self.say(option))
        assert field.locator("option:checked").inner_text() == self.say(option)

    def _touch(self, goal: Locator) -> None:
        self._reach(goal)
        box = goal.evaluate("one => one.type === 'checkbox'")
        self.page.keyboard.press("Space" if box else "Enter")

    def _reach(self, goal: Locator) -> None:
        for _press in range(TABS_MOST):
            if goal.evaluate("one => one === document.activeElement"):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not lead to {goal} on {self.page.url}")


class OnThePhone(Person):
    """With a thumb, on a small screen."""

    language, window = "en", {"width": 390, "height": 844, "locale": "en-GB", "has_touch": True, "is_mobile": True}

    def _touch(self, goal: Locator) -> None:
        goal.evaluate("one => one.scrollIntoView({block: 'center'})")  # from under the bar at the bottom
        goal.tap()


@dataclass(frozen=True)
class Told:
    """What happens in a story."""

    garden: str
    evening: str
    learned: str
    lesson: str
    sought: str
    """Another form of a word in the lesson."""


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (
            AtTheKeyboard,
            Told(
                garden="Tuin de Regenton",
                evening="Water in de tuin",
                learned="Vraag de gemeente vroeg om een watertappunt. Het duurt een jaar.",
                lesson="Vraag de gemeente vroeg om een watertappunt",
                sought="gemeenten",
            ),
        ),
        (
            OnThePhone,
            Told(
                garden="Schooltuin Noord",
                evening="De school doet mee",
                learned="Laat schoolklassen zelf zaaien. Dan komen ze terug.",
                lesson="Laat schoolklassen zelf zaaien",
                sought="schoolklas",
            ),
        ),
    ],
    ids=["keyboard-nl", "phone-en"],
)
def test_what_was_learned_on_an_evening_is_found_in_the_other_town(land, new_page, kind, told):
    land.settle()
    almere, dronten = land.towns["almere"], land.towns["dronten"]
    fenna = kind(new_page(**kind.window))
    passer_by = kind(new_page(**kind.window))
    before = looks_at_the_national_view(passer_by, land.hub.url)

    logs_in_by_mail(fenna, almere.url)
    registers(fenna, told)
    evening = plans_and_holds(fenna, told)
    writes_down_and_shares(fenna, told)
    fenna.page.goto(evening)
    publishes_the_report(fenna, told)

    sees_it_come_in(passer_by, before, told)
    looks_it_up(passer_by, told)
    finds_it_elsewhere(passer_by, dronten.url, told)


def looks_at_the_national_view(person: Person, url: str) -> dict[str, int]:
    """Open it and leave it open; what it counts."""
    person.page.goto(url)
    counts = {name: int(count(person, name).inner_text()) for name in ("initiatives", "meetings", "lessons")}
    person.page.evaluate("() => { document.body.dataset.opened = 'once' }")
    return counts


def count(person: Person, name: str) -> Locator:
    return person.page.locator(f"[data-count={name}]")


def logs_in_by_mail(person: Person, url: str) -> None:
    person.page.goto(f"{url}/dev/mail")
    mails = person.page.locator("article.mail")
    before = mails.count()
    person.page.goto(url)
    person.press("Log in")
    person.fill("E-mail address", FACILITATOR)
    person.press("Send me the link")
    person.press("Read the demo mail")

    def arrived() -> bool:
        person.page.reload()
        return mails.count() > before

    wait_until(arrived, "the mail", PATIENCE / 1000)
    person.press("Open the link")
    person.press("Log in as %(name)s", name="Fenna Facilitator")
    expect(person.page.get_by_role("heading", level=1)).to_contain_text("Almere")


def registers(person: Person, told: Told) -> None:
    person.go("Initiatives")
    person.press("Register an initiative")
    person.fill("Name", told.garden)
    person.choose("Kind", "School garden")
    person.choose("Phase", "Plan")
    person.fill("About the initiative", "Twaalf bakken en een regenton.")
    person.press("Save")
    expect(person.page.get_by_role("heading", level=1)).to_have_text(told.garden)


def plans_and_holds(person: Person, told: Told) -> str:
    """Plan a meeting for today, and write down who came; its address."""
    person.go("Meetings")
    person.press("Plan a meeting")
    person.fill("Title", told.evening)
    person.choose("Theme", "Water")
    person.fill("Day", f"{datetime.now(language.HERE):%Y-%m-%d}")
    person.fill("From", "19:30")
    person.fill("Until", "22:00")
    person.press("Save")
    expect(person.page.get_by_role("heading", level=1)).to_have_text(told.evening)
    address = person.page.url
    person.press("Who came?")
    person.tick("Daan Deelnemer")
    person.fill("How many people came?", "13")
    person.fill("Notes", "De sleutel ligt onder de pot.")
    person.press("Save")
    person.sees("Daan Deelnemer")
    return address


def writes_down_and_shares(person: Person, told: Told) -> None:
    """What the garden tells in the round becomes a lesson in one step."""
    person.press(told.garden)
    person.fill("What did you learn?", told.learned)
    person.press("Save")
    person.press("Make this a lesson for others")
    expect(person._field("In one sentence")).to_have_value(told.lesson)
    expect(person._field("The whole story")).to_have_value(told.learned)
    person.press("Share")
    expect(person.page.get_by_role("heading", level=1)).to_have_text(told.lesson)


def publishes_the_report(person: Person, told: Told) -> None:
    person.press("Publish the report")
    expect(person._field("Report")).to_have_value(re.compile(re.escape(told.garden)))  # the draft holds the round
    person.fill("Report", f"Dertien mensen kwamen, en {told.garden} vertelde.")
    person.press("Publish")
    person.sees("Dertien mensen kwamen")


def sees_it_come_in(person: Person, before: dict[str, int], told: Told) -> None:
    """Counts and list follow, on the page that was open all the time."""
    for name, number in before.items():
        expect(count(person, name)).to_have_text(str(number + 1), timeout=PATIENCE)
    expect(person.page.locator("#list")).to_contain_text(told.garden, timeout=PATIENCE)
    assert person.page.evaluate("document.body.dataset.opened") == "once", "the page was loaded again"


def looks_it_up(person: Person, told: Told) -> None:
    """The initiative, the meeting and the lesson, as the association shows them to everybody."""
    person.press(told.garden)
    person.sees("Twaalf bakken")
    person.go("Meetings")
    person.press(told.evening)
    person.sees("Dertien mensen kwamen")
    person.sees("13")
    expect(person.page.locator("main")).not_to_contain_text("sleutel")
    expect(person.page.locator("main")).not_to_contain_text("Daan")
    person.press(told.lesson)
    expect(person.page.get_by_role("heading", level=1)).to_have_text(told.lesson)
    person.sees("Almere")


def finds_it_elsewhere(person: Person, url: str, told: Told) -> None:
    """The other town's node finds the lesson by another form of its word."""
    wait_until(lambda: person.page.goto(f"{url}/association").text().count(told.lesson), "the lesson in Dronten", PATIENCE / 1000)
    person.page.goto(url)
    person.go("Association")
    person.fill("What do you want to know?", told.sought)
    person.press("Search")
    person.press(told.lesson)
    expect(person.page.get_by_role("heading", level=1)).to_have_text(told.lesson)
    person.sees(told.learned)
    person.sees("Almere")


def test_what_other_towns_learned_stays_when_the_association_is_off(land, new_page):
    almere, dronten, hub = land.towns["almere"], land.towns["dronten"], land.hub
    almere.visitor().share("Zet de bijenkasten uit de wind")
    land.settle()
    reader, writer = Person(new_page(**Person.window)), Person(new_page(**Person.window))
    arrives_with_a_session(writer, almere)
    reader.page.goto(dronten.url)
    reader.reads_in_the_foot(ALL_THERE)

    for kind in ("web", "worker"):
        hub.stop(kind)
    reader.go("Association")
    reader.fill("What do you want to know?", "bijenkast")
    reader.press("Search")
    reader.sees("Zet de bijenkasten uit de wind")
    reader.reads_in_the_foot(AWAY)

    writer.page.goto(f"{almere.url}/lessons/new")
    writer.fill("In one sentence", "Geschreven zonder vereniging")
    writer.fill("The whole story", "Dat kan gewoon.")
    writer.choose("Kind", "Tip")
    writer.choose("Theme", "Water")
    writer.press("Share")
    expect(writer.page.get_by_role("heading", level=1)).to_have_text("Geschreven zonder vereniging")
    writer.reads_in_the_foot(AWAY, ON_ITS_WAY)

    for kind in ("web", "worker"):
        hub.start(kind)
    writer.reads_in_the_foot(ALL_THERE)
    land.settle()
    reader.page.goto(f"{dronten.url}/association")
    reader.sees("Geschreven zonder vereniging")
    reader.reads_in_the_foot(ALL_THERE)
    reader.page.goto(f"{hub.url}/lessons")
    reader.sees("Geschreven zonder vereniging")


def arrives_with_a_session(person: Person, town) -> None:
    """Logged in already, as on the other days of the 90."""
    cookies = town.visitor()._cookies
    person.page.context.add_cookies([{"name": name, "value": value, "url": town.url} for name, value in cookies.items()])


@pytest.mark.parametrize("kind", [Person, OnThePhone], ids=["desk-nl", "phone-en"])
def test_a_form_that_is_not_right_keeps_what_was_typed_and_says_it_beside_the_field(land, new_page, kind):
    almere = land.towns["almere"]
    fenna = kind(new_page(**kind.window))
    arrives_with_a_session(fenna, almere)
    fenna.page.context.add_cookies([{"name": "language", "value": kind.language, "url": almere.url}])
    fenna.page.goto(f"{almere.url}/meetings/new")
    typed = {"Title": "Te lang overlegd", "From": "21:00", "Until": "20:00", "Place": "Stadsboerderij"}
    typed[fenna.say("Item %(n)s: what", n=2)] = "Rondje"
    for label, words in typed.items():
        fenna.fill(label, words)
    fenna.press("Save")

    expect(fenna.page.locator(".error-summary")).to_be_focused()
    expect(fenna._field("Day")).to_have_accessible_description(fenna.say("Fill this in."))
    for label, words in typed.items():
        expect(fenna._field(label)).to_have_value(words)
    today = f"{datetime.now(language.HERE):%Y-%m-%d}"
    fenna.fill("Day", today)
    fenna.press("Save")
    expect(fenna._field("Until")).to_have_accessible_description(fenna.say("The meeting would end before it starts."))
    expect(fenna._field("Day")).to_have_value(today)
    fenna.fill("Until", "22:00")
    fenna.press("Save")
    expect(fenna.page.get_by_role("heading", level=1)).to_have_text("Te lang overlegd")
