"""With the keyboard alone, without a script, with a screen reader's eyes: the ways of using a page that axe cannot judge."""

import pytest

from tests.browser.places import log_in
from tests.browser.sites import serve_sites

FOCUS = """() => { const one = document.activeElement, seen = [one, one.closest(".ticks .choice")];
  return { text: (one.innerText || one.value || one.name || "").trim(), tag: one.tagName, name: one.name ?? "",
    ring: seen.some((at) => at && ["", "::after"].some((part) => { const style = getComputedStyle(at, part || null);
      return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2; })) }; }"""


@pytest.fixture(scope="module")
def own_sites(tmp_path_factory):
    """Sites that these stories may change."""
    with serve_sites(tmp_path_factory.mktemp("own-sites")) as served:
        yield served


@pytest.fixture
def reader(new_page, own_sites):
    """Opens a page of Almere's node: `reader("facilitator", "/meetings")`."""

    def open_page(role, path, **options):
        page = new_page(**{"reduced_motion": "reduce"} | options)
        log_in(page.context, own_sites.almere, role, "en")
        page.goto(own_sites.almere.url + path.format(**own_sites.almere.codes))
        return page

    return open_page


def tab_to(page, text="", name="", most=80):
    """Press Tab until what has the focus says this, or is the field of this name; every stop on the way must show where it is."""
    for _ in range(most):
        page.keyboard.press("Tab")
        here = page.evaluate(FOCUS)
        assert here["ring"] or here["tag"] == "BODY", f"no visible focus on {here}"
        if (text and here["text"].split("\n")[0].startswith(text)) or (name and here["name"] == name):
            return
    raise AssertionError(f"the keyboard does not come to {text or name!r}")


def test_the_keyboard_alone_skips_the_menu(reader):
    page = reader("member", "/lessons")
    tab_to(page, "Skip to the content", most=1)
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    tab_to(page, "Share a lesson", most=1)


def test_the_keyboard_alone_holds_an_evening(reader):
    page = reader("facilitator", "/", width=390, height=844)
    tab_to(page, "Who came?")
    page.keyboard.press("Enter")
    page.wait_for_url("**/hold")
    for _ in range(2):
        tab_to(page, name="members")
        page.keyboard.press("Space")
    assert page.locator(".keep button").inner_text() == "Save (2)"
    tab_to(page, "Save")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: not url.endswith("/hold"))
    assert page.get_by_role("status").inner_text().startswith("Written down.")
    tab_to(page, "Moestuin Poort")
    page.keyboard.press("Enter")
    page.wait_for_url("**/round/*")
    tab_to(page, name="learned")
    page.keyboard.type("Ask the neighbours first.")
    tab_to(page, "Save")
    page.keyboard.press("Enter")
    page.wait_for_url("**/meetings/*")
    assert page.get_by_text("Ask the neighbours first.").is_visible()


def test_a_menu_opens_and_closes_by_keyboard(reader):
    page = reader("member", "/")
    tab_to(page, "D")
    page.keyboard.press("Enter")
    tab_to(page, "My details", most=1)
    page.keyboard.press("Escape")
    assert not page.get_by_text("My details").is_visible()
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"


@pytest.mark.parametrize("script", [True, False], ids=["with scripts", "without scripts"])
def test_what_is_wrong_is_announced_and_led_to(reader, script):
    page = reader("facilitator", "/meetings/new", java_script_enabled=script)
    page.fill("[name=ends]", "18:00")
    page.click("main form.form > .actions button[type=submit]")
    summary = page.get_by_role("alert")
    assert summary.get_attribute("tabindex") == "-1"
    assert summary.evaluate("(one) => one === document.activeElement")
    assert page.title().startswith("Not right yet: Plan a meeting")
    page.locator(".error-summary a").first.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.name") == "title"
    field = page.locator("[name=title]")
    assert field.get_attribute("aria-invalid") == "true"
    described = field.get_attribute("aria-describedby").split()
    assert "Fill this in." in page.locator(f"#{described[-1]}").inner_text()
    assert page.input_value("[name=ends]") == "18:00", "what was typed is kept"


def test_rows_come_and_go_up_in_place(reader):
    page = reader("facilitator", "/meetings/new")
    page.fill("[name=title]", "With a guest")
    page.get_by_role("button", name="More rows").click()
    assert page.locator(".entries > .entry").count() == 7
    assert page.evaluate("document.activeElement.name") == "agenda-6-title"
    page.keyboard.type("Guest of the municipality")
    page.keyboard.press("Tab")
    page.keyboard.type("40")
    over = "The agenda takes 160 minutes; the evening has 150. Too much: 10."
    assert page.locator(".entries-sum").inner_text() == over
    page.fill("[name=ends]", "22:30")
    assert page.locator(".entries-sum").inner_text() == "The agenda takes 160 of the evening's 180 minutes. Still free: 20."
    page.get_by_label("Item 7: minutes").focus()
    page.keyboard.press("Tab")
    for row in (7, 6, 5, 4):
        here = page.evaluate("document.activeElement.getAttribute('aria-label')")
        assert here == f"Move row {row} up"
        page.keyboard.press("Enter")
    assert page.get_by_label("Item 3: what").input_value() == "Guest of the municipality"
    assert page.get_by_label("Item 3: minutes").input_value() == "40"
    assert page.get_by_label("Item 7: what").input_value() == ""
    assert page.input_value("[name=title]") == "With a guest", "the page was not left"
    page.fill("[name=day]", "2015-07-02")
    page.focus("[name=title]")
    page.keyboard.press("Enter")  # neither saves, nor presses a button of a row
    page.get_by_text("Nothing is saved yet.").wait_for()
    assert page.get_by_label("Item 3: what").input_value() == "Guest of the municipality"
    page.get_by_role("button", name="Save").click()
    page.wait_for_url(lambda url: not url.endswith("/new"))
    agenda = page.locator("ol.agenda li").all_inner_texts()
    assert len(agenda) == 5
    assert "Guest of the municipality" in agenda[2]


def test_rows_come_and_go_up_without_a_script(reader):
    page = reader("facilitator", "/meetings/new", java_script_enabled=False)
    page.fill("[name=title]", "Without a script")
    page.get_by_role("button", name="More rows").click()
    assert page.locator(".entries > .entry").count() == 8
    assert page.evaluate("document.activeElement.name") == "agenda-6-title"
    page.keyboard.type("Guest of the municipality")
    page.get_by_role("button", name="Move row 7 up").click()
    assert page.get_by_label("Item 6: what").input_value() == "Guest of the municipality"
    page.fill("[name=day]", "2015-07-02")
    page.get_by_role("button", name="Save").click()
    assert page.get_by_role("heading", level=1).inner_text() == "Without a script"
    assert page.locator("ol.agenda li").count() == 5


def test_what_is_empty_or_first_does_not_go_up(reader):
    for script in (True, False):
        page = reader("facilitator", "/meetings/new", java_script_enabled=script)
        movable = page.get_by_role("button", name="Move row").filter(visible=True)
        assert movable.count() == 3, "of four items; the two empty rows below do not go up"
        page.get_by_label("Item 6: minutes").fill("5")
        assert movable.count() == 4
        page.get_by_label("Item 2: what").fill("")
        assert movable.count() == 4, "its minutes are still there"
        page.get_by_label("Item 2: minutes").fill("")
        assert movable.count() == 3


def test_enter_goes_on_in_the_rows_and_saves_nothing(reader):
    page = reader("facilitator", "/meetings/new")
    page.fill("[name=title]", "By accident")
    page.fill("[name=day]", "2015-07-02")
    page.get_by_label("Item 6: what").fill("Drinks")
    for name in ("agenda-5-minutes", "agenda-6-title", "agenda-6-minutes", "agenda-7-title"):
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.name") == name
    assert page.url.endswith("/new")
    page.goto(page.url.replace("/new", ""))
    assert "By accident" not in page.locator("main").inner_text()


@pytest.mark.parametrize("field", ["title", "ends", "agenda-1-title", "agenda-1-minutes", "agenda-5-title"])
def test_enter_saves_nothing_without_a_script(reader, field):
    page = reader("facilitator", "/meetings/new", java_script_enabled=False)
    page.fill("[name=title]", "By accident")
    page.fill("[name=day]", "2015-07-02")
    page.focus(f"[name={field}]")
    page.keyboard.press("Enter")
    page.get_by_text("Nothing is saved yet.").wait_for()
    assert page.input_value("[name=title]") == "By accident"
    page.goto(page.url.replace("/new", ""))
    assert "By accident" not in page.locator("main").inner_text()


def test_enter_in_the_title_of_a_lesson_shows_it_and_shares_nothing(reader):
    page = reader("member", "/lessons/new")
    page.fill("[name=body]", "- soup\n- **cake**")
    page.fill("[name=title]", "By accident")
    page.keyboard.press("Enter")
    shown = page.get_by_role("region", name="How it will look")
    shown.wait_for()
    assert shown.locator("li").all_inner_texts() == ["soup", "cake"]
    assert shown.evaluate("(one) => one === document.activeElement")
    assert page.input_value("[name=title]") == "By accident"
    page.goto(page.url.replace("/new", ""))
    assert "By accident" not in page.locator("main").inner_text()


@pytest.mark.parametrize("width", [320, 375])
def test_the_times_of_an_evening_stand_evenly_beside_each_other_on_a_phone(reader, width):
    page = reader("facilitator", "/meetings/new", width=width)
    starts, ends = (page.locator(f"[name={name}]").bounding_box() for name in ("starts", "ends"))
    assert (starts["y"], starts["width"]) == (ends["y"], ends["width"])
    label, other = (page.locator(f"label[for={name}]").bounding_box() for name in ("starts", "ends"))
    assert label["y"] == other["y"]


def test_everything_works_without_a_script(reader):
    page = reader("facilitator", "/meetings/{coming}", java_script_enabled=False)
    page.get_by_text("Cancel the meeting", exact=True).click()
    page.get_by_role("button", name="Yes, cancel the meeting").click()
    assert page.get_by_role("status").inner_text() == "The meeting is cancelled."
    page.get_by_role("link", name="Plan a meeting").click()
    for name, value in (("title", "Evening without a script"), ("day", "2015-07-01"), ("starts", "19:30")):
        page.fill(f"[name={name}]", value)
    page.get_by_role("button", name="Save").click()
    assert page.get_by_role("heading", level=1).inner_text() == "Evening without a script"


def test_who_wants_no_movement_gets_none(reader):
    page = reader("member", "/lessons")
    assert page.locator(".button").first.evaluate("(one) => getComputedStyle(one).transitionDuration") in {"0s", ""}


def test_a_printed_meeting_is_the_meeting_and_nothing_else(reader):
    page = reader("facilitator", "/meetings/{before}")
    page.emulate_media(media="print")
    for gone in (".site-nav", ".site-tools", ".actions", ".back", ".fold"):
        assert not page.locator(gone).first.is_visible(), gone
    for kept in ("h1", ".agenda", ".prose"):
        assert page.locator(kept).first.is_visible(), kept
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.parametrize("name", ["almere", "hub"])
def test_a_first_visit_is_light(new_page, own_sites, name):
    """150 kB for a slow phone, with everything the first page needs."""
    page, received = new_page(width=390), []
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    network.on("Network.loadingFinished", lambda told: received.append(told["encodedDataLength"]))
    page.goto(own_sites.named(name).url + "/", wait_until="networkidle")
    assert 0 < sum(received) <= 150_000, received


def test_the_page_of_the_house_style_shows_rows_and_a_text_that_is_looked_at(new_page, own_sites):
    page = new_page()
    page.goto(own_sites.hub.url + "/dev/components")
    assert page.locator(".entries-sum").inner_text() == "The agenda takes 60 of 90 minutes. Still free: 30."
    assert page.locator(".entries > .entry").count() == 4
    page.locator("[name=agenda-1-title]").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.name") == "agenda-1-minutes"
    assert page.locator(".preview strong").inner_text() == "and begin with coffee"
