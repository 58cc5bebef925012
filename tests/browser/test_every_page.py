"""Every page of every site, as each kind of reader, in both languages and both colour schemes: no barrier, nothing cut off.

With TUINKOEPEL_SCREENSHOTS=/some/folder pictures of all of them are written there (light and dark, phone and desktop, and PDF of
what is printed). They are for looking at; nothing compares them.
"""

import contextlib
import os
from pathlib import Path

import axe_playwright_python
import pytest
from werkzeug.exceptions import NotFound

from tests.browser.places import NOT_LOOKED_AT, PLACES, log_in, open_place

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
PICTURES = os.environ.get("TUINKOEPEL_SCREENSHOTS", "")
LANGUAGES = ("nl", "en")
SIZES = {"phone": {"width": 390, "height": 844}, "desktop": {"width": 1280, "height": 800}}
README = {"hub-stranger-national": "desktop", "almere-facilitator-evening": "phone"}
"""The two in `deploy/screenshots`, as they fill a screen."""
PRINTED = ("meeting", "evening", "held", "coming", "lesson")

FIND_BARRIERS = """(rules) => axe.run(document, {resultTypes: ["violations"], ...rules}).then((found) => found.violations.map(
    (one) => `${one.id} (${one.help}): ${one.nodes.map((node) => node.target + " " + (node.any[0]?.message ?? "")).join("; ")}`))"""
ALL_RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
BUT_COLOURS = ALL_RULES | {"rules": {"color-contrast": {"enabled": False}}}
COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}

WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
TOO_SMALL = """() => [...document.querySelectorAll(
    "button, summary, .button, .target, .back, nav a, .languages a, .head-link, .brand, input, select, textarea, label.choice")]
  .filter((one) => one.checkVisibility({visibilityProperty: true}) && one.type !== "hidden")
  .filter((one) => one.matches(".choice") || !one.closest(".choice, .leaflet-container, .visually-hidden"))
  .map((one) => [one, one.getBoundingClientRect()]).filter(([one, box]) => box.width && (box.height < 43.5 || box.width < 43.5))
  .map(([one, box]) => `${one.outerHTML.slice(0, 80)} ${box.width}×${box.height}`)"""
CUT_OFF = """() => [...document.querySelectorAll("main h1, main h2, main p, main a, main button, main dd, main li, .site-nav span")]
  .filter((one) => one.checkVisibility() && !one.closest(".visually-hidden, .leaflet-container, .facet, svg")
    && one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0 && getComputedStyle(one).display !== "inline")
  .map((one) => `${one.outerHTML.slice(0, 80)} ${one.scrollWidth}>${one.clientWidth}`)"""
IN_LINES = """new Set([...document.querySelectorAll(".site-nav > ul > li")].filter((one) => one.checkVisibility())
  .map((one) => one.offsetTop)).size"""
IN_TWO = """() => {
  const HIDDEN = ".visually-hidden, .skip, script, svg, option, textarea, pre, code, [data-map]";
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), range = document.createRange(), found = [];
  while (walk.nextNode()) {
    const text = walk.currentNode, one = text.parentElement;
    if (!one.checkVisibility() || one.closest(HIDDEN)) continue;
    for (const word of text.data.matchAll(/[\\p{L}]{4,}/gu)) {
      range.setStart(text, word.index);
      range.setEnd(text, word.index + word[0].length);
      if (new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1) found.push(word[0]);
    }
  }
  return found;
}"""


@pytest.fixture(scope="module")
def readers(browser, sites):
    """A browser window for every kind of reader and language, opened once."""
    windows = {}

    def window(site, role, language):
        if (site, role, language) not in windows:
            context = browser.new_context(viewport=SIZES["phone"], locale="nl-NL", color_scheme="light", reduced_motion="reduce")
            context.add_init_script(AXE)
            log_in(context, sites.named(site), role, language)
            windows[site, role, language] = context
        return windows[site, role, language]

    yield window
    for context in windows.values():
        context.close()


@pytest.fixture(scope="module", params=PLACES, ids=lambda place: place.name)
def opened(request, readers, sites):
    """This page in each language, as it was loaded on a phone; pages wait for no script of ours."""
    place, pages, said = request.param, {}, []
    for language in LANGUAGES:
        page = readers(place.site, place.role, language).new_page()
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        open_place(page, place, sites, language)
        pages[language] = page
    yield place, pages, said
    for page in pages.values():
        page.close()


@pytest.mark.parametrize("name", ["almere", "hub"])
def test_every_page_is_looked_at(sites, name):
    seen = set()
    for place in PLACES:
        served = sites.named(place.site)
        if place.site == name or place.path.startswith(("/login", "/dev")):  # the same on every site
            with contextlib.suppress(NotFound):
                path = place.address(sites).removeprefix(served.url).partition("?")[0]
                seen.add(served.app.url_map.bind("localhost").match(path)[0])
    pages = {
        rule.endpoint
        for rule in sites.named(name).app.url_map.iter_rules()
        if "GET" in rule.methods and not rule.rule.endswith((".json", ".ico")) and not rule.rule.startswith(NOT_LOOKED_AT)
    }
    assert pages <= seen, f"add to places.py: {pages - seen}"


def test_a_page_has_no_barriers(opened):
    _place, pages, said = opened
    barriers = [f"nl: {found}" for found in pages["nl"].evaluate(FIND_BARRIERS, ALL_RULES)]
    barriers += [f"en: {found}" for found in pages["en"].evaluate(FIND_BARRIERS, BUT_COLOURS)]
    pages["nl"].emulate_media(color_scheme="dark")
    barriers += [f"dark: {found}" for found in pages["nl"].evaluate(FIND_BARRIERS, COLOURS)]
    pages["nl"].emulate_media(color_scheme="light")
    assert not barriers, "\n".join(barriers)
    assert not [words for words in said if "Failed to load resource: the server responded with a status of 4" not in words]


def test_a_page_says_what_it_is_in_the_readers_language(opened):
    _place, pages, _said = opened
    for language, page in pages.items():
        assert page.locator("html").get_attribute("lang") == language
        assert page.locator("h1").count() == 1
        title, _dash, site = page.title().rpartition(" – ")
        assert title
        assert site
        for landmark in ("header.site-head", "nav.site-nav", "main#content", "footer.site-foot"):
            assert page.locator(landmark).count() == 1, landmark
        assert page.locator(".skip").get_attribute("href") == "#content"


def test_a_page_has_at_most_one_next_step(opened):
    _place, pages, _said = opened
    if "components" in pages["nl"].url:
        return
    buttons = pages["nl"].locator("main .button.primary:visible:not(.search .button)").all_inner_texts()
    assert len(buttons) <= 2 - ("form.form" not in pages["nl"].content()), buttons


def test_a_page_fits_a_narrow_phone_and_a_thumb(opened):
    _place, pages, _said = opened
    for language, page in pages.items():
        for width in (320, 390):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate(WIDER) <= 0, f"{language}: wider than {width}px"
            assert not page.evaluate(CUT_OFF), f"{language}: cut off at {width}px"
        assert not page.evaluate(TOO_SMALL)
        page.set_viewport_size({"width": 640, "height": 400})  # a window of 1280px at 200 %
        assert page.evaluate(WIDER) <= 0, f"{language}: wider than the window at 200 %"
        page.set_viewport_size(SIZES["phone"])


def test_a_page_has_room_on_a_small_desk(opened):
    _place, pages, _said = opened
    for language, page in pages.items():
        for width in (1024, 1100, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate(IN_LINES) == 1, f"{language}: the menu takes two lines at {width}px"
            assert page.evaluate(WIDER) <= 0, f"{language}: wider than {width}px"
            assert not page.evaluate(CUT_OFF), f"{language}: cut off at {width}px"
            assert not page.evaluate(IN_TWO), f"{language}: words broken in two at {width}px"
        page.set_viewport_size(SIZES["phone"])


@pytest.mark.parametrize("size", SIZES)
def test_a_page_has_its_picture_taken(opened, size):
    place, pages, _said = opened
    if not PICTURES:
        return
    for language, page in pages.items():
        page.set_viewport_size(SIZES[size])
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            folder = Path(PICTURES) / f"{size}-{scheme}-{language}"
            page.screenshot(path=folder / f"{place.name}.png", full_page=True)
        page.emulate_media(color_scheme="light")
        if README.get(place.name) == size:
            page.screenshot(path=Path(PICTURES) / f"readme-{language}" / f"{place.name}.png")
        if size == "desktop" and place.name.endswith(PRINTED):
            page.pdf(path=Path(PICTURES) / f"print-{language}" / f"{place.name}.pdf", format="A4")
