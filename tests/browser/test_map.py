"""The map in a browser: Leaflet takes the drawing's place, says what the list says, and fetches nothing from elsewhere."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.places import log_in

MARKS = "[data-map] .map-mark"


@pytest.fixture(scope="module")
def cookies():
    """A reader logs in once; the door lets nobody in too often."""
    return {}


@pytest.fixture
def open_map(sites, new_page, cookies):
    """Opens a page with a map, and says at the end whether it kept to itself. `open_map("hub", "/?phase=idea", width=390)`."""
    said, asked = [], []

    def open_page(name, path, role="", *, language="nl", hosts=(), **options):
        served = sites.named(name)
        page = new_page(reduced_motion="reduce", **options)
        log_in(page.context, served, "", language)
        if role:
            if (name, role) not in cookies:
                cookies[name, role] = served.cookie(role)
            page.context.add_cookies([{"name": served.session_cookie, "value": cookies[name, role], "url": served.url}])
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.allowed = (served.url, "data:", *hosts)
        page.goto(served.url + path.format(**served.codes))
        pages.append(page)
        return page

    pages = []
    yield open_page
    allowed = tuple(host for page in pages for host in page.allowed)
    assert [url for url in asked if not url.startswith(allowed)] == []
    assert said == []


def total(page):
    """How many initiatives the marks on the map stand for."""
    labels = page.locator(MARKS).evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
    return sum(int(match[1]) if (match := re.match(r"(\d+) ", label)) else 1 for label in labels)


def test_the_map_takes_the_place_of_the_drawing_and_says_what_the_list_says(open_map):
    page = open_map("hub", "/")
    expect(page.locator(MARKS).first).to_be_visible()
    expect(page.locator(".drawing")).to_be_hidden()
    assert total(page) == page.locator(".national-list .row").count()
    page.locator("a", has_text="Schooltuin").first.click()
    expect(page.locator(MARKS).first).to_be_visible()
    listed = page.locator(".national-list .row").count()
    assert 0 < listed == total(page)


def test_without_javascript_the_drawing_and_the_list_remain(sites, new_page):
    page = new_page(java_script_enabled=False)
    page.goto(sites.hub.url)
    expect(page.locator(".drawing")).to_be_visible()
    expect(page.locator(".national-list .row").first).to_be_visible()
    expect(page.locator("[data-map]")).to_be_hidden()
    expect(page.locator(".on-map").first).to_be_hidden()


def test_marks_that_touch_are_one_and_a_press_parts_them(open_map):
    page = open_map("hub", "/")
    together = page.locator(f"{MARKS}[aria-label*='Almere']").first
    expect(together).to_be_visible()
    before = page.locator(MARKS).count()
    together.click()
    expect(page.locator(f"{MARKS}[aria-label*=', Almere']").first).to_be_visible()
    assert page.locator(MARKS).count() > before


def test_the_list_shows_on_the_map_and_the_map_points_in_the_list(open_map):
    page = open_map("hub", "/", language="en")
    row = page.locator(".row", has_text="VINDplaats Zenit")
    row.locator(".on-map").click()
    popup = page.locator(".leaflet-popup")
    expect(popup).to_contain_text("VINDplaats Zenit")
    expect(popup.locator("a[href*='/initiatives/almere/']")).to_be_focused()
    expect(row).to_have_class(re.compile("chosen"))
    page.keyboard.press("Escape")
    expect(popup).to_have_count(0)
    expect(row.locator(".on-map")).to_be_focused()
    page.locator(f"{MARKS}[aria-label^='VINDplaats Zenit']").click()
    expect(row).to_have_class(re.compile("chosen"))
    page.locator(".leaflet-popup a[href*='/initiatives/almere/']").click()
    expect(page.locator("h1")).to_have_text("VINDplaats Zenit")


def test_the_map_works_with_the_keyboard_alone(open_map):
    page = open_map("almere", "/initiatives", "member")
    stop = page.locator(f"{MARKS}[tabindex='0']")
    expect(stop).to_have_count(1)
    stop.focus()
    labels = {page.evaluate("document.activeElement.getAttribute('aria-label')")}
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
        labels.add(page.evaluate("document.activeElement.getAttribute('aria-label')"))
    assert len(labels) > 2
    expect(stop).to_have_count(1)
    single = page.locator(f"{MARKS}[aria-label*=', Operationeel,']").first
    single.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".leaflet-popup a[href^='/initiatives/']")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator(".leaflet-popup")).to_have_count(0)
    page.locator(f"{MARKS}").first.focus()
    assert page.evaluate("document.activeElement.className").startswith("leaflet-marker-icon")


NAMES_AND_BUTTONS = """() => {
  const boxes = (what) => [...document.querySelectorAll(`[data-map] ${what}`)].map((one) => [one, one.getBoundingClientRect()]);
  const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  return boxes(".map-town span, .map-name span, .map-mark").flatMap(([one, box]) => boxes(".leaflet-control")
    .filter(([, other]) => meet(box, other)).map(() => one.getAttribute("aria-label") ?? one.textContent));
}"""


@pytest.mark.parametrize("width", [375, 768, 1280])
@pytest.mark.parametrize(("name", "path"), [("almere", "/initiatives"), ("hub", "/"), ("hub", "/towns/almere")])
def test_a_map_opens_with_nothing_under_its_buttons(open_map, name, path, width):
    page = open_map(name, path, width=width, height=800)
    expect(page.locator(MARKS).first).to_be_visible()
    assert page.evaluate(NAMES_AND_BUTTONS) == []


def test_a_map_that_nobody_moved_fits_again_when_a_phone_is_turned(open_map):
    page = open_map("almere", "/initiatives", width=844, height=390)
    expect(page.locator(MARKS).first).to_be_visible()
    here = total(page)
    page.set_viewport_size({"width": 375, "height": 844})
    inside = """(n) => { const box = document.querySelector("[data-map]").getBoundingClientRect(); return innerWidth === 375 &&
      [...document.querySelectorAll(".map-mark")].map((one) => one.getBoundingClientRect())
        .every((mark) => mark.left >= box.left && mark.right <= box.right && mark.top >= box.top && mark.bottom <= box.bottom); }"""
    page.wait_for_function(inside)
    assert total(page) == here
    assert page.evaluate(NAMES_AND_BUTTONS) == []


def test_no_name_is_written_under_the_buttons_when_the_map_moves(open_map):
    page = open_map("hub", "/")
    name, mark = page.locator(".map-town", has_text="Almere"), page.locator(f"{MARKS}[aria-label*='Almere']")
    expect(name).to_have_count(1)
    here, there = mark.bounding_box(), page.locator(".leaflet-control-zoom").bounding_box()
    page.mouse.move(20 + here["x"] + here["width"], here["y"])
    page.mouse.down()
    page.mouse.move(20 + here["x"] + here["width"] + there["x"] - here["x"], here["y"] + there["y"] - here["y"], steps=5)
    page.mouse.up()
    expect(name).to_have_count(0)
    expect(mark).to_have_count(1)
    page.locator(".national-list .on-map").first.click()
    lit = page.locator(".map-mark.lit")
    expect(lit).to_have_count(1)
    assert lit.get_attribute("aria-label") not in page.evaluate(NAMES_AND_BUTTONS)


def test_news_from_a_town_comes_onto_the_open_map(open_map, sites):
    page = open_map("hub", "/?kind=planters")
    expect(page.locator(MARKS).first).to_be_visible()
    with page.expect_response(re.compile(r"/map\.json")) as fetched:
        page.evaluate("document.dispatchEvent(new Event('news'))")
    assert fetched.value.ok
    expect(page.locator(MARKS).first).to_be_visible()


def test_a_press_on_the_map_fills_in_the_place(open_map):
    page = open_map("almere", "/initiatives/{garden}/edit", "member", width=390, height=844, has_touch=True)
    field, box = page.locator("#place"), page.locator("[data-map]")
    expect(page.locator(".map-chosen")).to_be_visible()
    was = field.input_value()
    box.scroll_into_view_if_needed()
    size = box.bounding_box()
    box.tap(position={"x": size["width"] - 60, "y": size["height"] - 60})
    expect(field).not_to_have_value(was)
    assert re.fullmatch(r"52\.\d{5}, 5\.\d{5}", field.input_value())
    expect(page.locator(".picking [role=status]")).to_contain_text(field.input_value())


def test_the_keyboard_chooses_a_place_without_sending_the_form(open_map):
    page = open_map("almere", "/initiatives/new", "member")
    field, box = page.locator("#place"), page.locator("[data-map]")
    expect(page.locator(MARKS).first).to_be_visible()
    box.focus()
    page.keyboard.press("Enter")
    expect(field).not_to_have_value("")
    first = field.input_value()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(field).not_to_have_value(first)
    assert page.url.endswith("/initiatives/new")


def test_what_is_typed_is_understood_and_shown_and_the_neighbourhood_is_drawn(open_map):
    page = open_map("almere", "/initiatives/new", "member", language="en")
    expect(page.locator(MARKS).first).to_be_visible()
    status = page.locator(".picking [role=status]")
    page.fill("#place", "155000 463000")
    page.keyboard.press("Tab")
    expect(status).to_contain_text("52.155174, 5.387206")
    expect(page.locator(".map-chosen")).to_be_visible()
    expect(page.locator(".map-square")).to_have_count(0)
    page.check("[name=place_shown][value=neighbourhood]")
    expect(page.locator(".map-square")).to_be_visible()
    page.fill("#place", "Bloemstraat 3")
    page.keyboard.press("Tab")
    expect(status).to_contain_text("no place in the Netherlands")
    expect(page.locator(".map-chosen")).to_have_count(0)


def test_the_background_is_fetched_only_where_the_operator_switched_it_on(open_map, sites, monkeypatch):
    monkeypatch.setattr(sites.hub.app.extensions["site"], "map_background", True)
    served, tile = [], "https://service.pdok.nl/"
    page = open_map("hub", "/initiatives", hosts=(tile,))  # a page without a map: nothing yet
    page.context.route(f"{tile}**", lambda route: (served.append(route.request.url), route.fulfill(status=200, body=PIXEL)))
    page.goto(sites.hub.url)
    expect(page.locator(".leaflet-tile-loaded").first).to_be_attached()
    credit = page.locator(".leaflet-control-attribution")
    expect(credit).to_have_text("Kaartgegevens © Kadaster, CC BY 4.0")
    credit.scroll_into_view_if_needed()
    expect(credit).to_be_in_viewport(ratio=1)
    expect(credit.get_by_role("link", name="Kadaster")).to_have_attribute("href", "https://www.kadaster.nl")
    expect(credit.get_by_role("link", name="CC BY 4.0")).to_have_attribute("href", re.compile("/licenses/by/4.0/"))
    form = re.compile(r"https://service\.pdok\.nl/brt/achtergrondkaart/wmts/v2_0/grijs/EPSG:3857/(\d+)/\d+/\d+\.png")
    zooms = {int(form.fullmatch(url)[1]) for url in served}
    assert zooms
    assert zooms <= set(range(6, 20)), "those that it has"


PIXEL = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89\0\0\0\rIDATx\x9cc\xf8\xff\xff?\0\x05\xfe\x02\xfe"
    b"\xa7\x35\x81\x84\0\0\0\0IEND\xaeB`\x82"
)


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_the_map_stays_inside_the_page(open_map, width, scheme):
    page = open_map("hub", "/", width=width, color_scheme=scheme)
    expect(page.locator(MARKS).first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_when_the_places_cannot_be_had_the_drawing_stays(sites, new_page):
    page = new_page()
    page.context.route("**/map.json*", lambda route: route.abort())
    with page.expect_console_message(lambda message: message.type == "warning"):
        page.goto(sites.hub.url)
    expect(page.locator(".drawing")).to_be_visible()
    expect(page.locator("[data-map]")).to_be_hidden()
    expect(page.locator(".on-map").first).to_be_hidden()


def test_circles_that_are_one_mark_are_named_together(open_map):
    page = open_map("hub", "/", width=320, height=640)
    expect(page.locator(".map-town").first).to_be_visible()
    while not page.locator(".map-town", has_text="Almere, Dronten").count():  # from farther and farther away
        farther = page.get_by_role("button", name="Verder weg")
        assert "leaflet-disabled" not in farther.get_attribute("class"), page.locator(".map-town").all_inner_texts()
        farther.click()
    assert page.locator(".map-town", has_text="Almere").count() == 1
    assert page.locator(".map-town", has_text="Dronten").count() == 1
