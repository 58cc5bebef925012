"""Collects the marked texts into the three catalogues, or says what is missing (`--check`).

msgids are plain English. The English catalogue repeats them; the Dutch one is written by people. Three catalogues: `shared`, the
hub's, the node's.
"""

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.checkers import checkers
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("shared", "services/hub", "services/town_node")


def collect(room: str) -> Catalog:
    """The texts that a room marks."""
    pybabel = str(Path(sys.executable).parent / "pybabel")
    with tempfile.NamedTemporaryFile() as file:
        asked = ["--no-location", "--omit-header", "--sort-output", "-F", "babel.cfg", "-k", "N_", "-o", file.name, room]
        subprocess.run([pybabel, "--quiet", "extract", *asked], cwd=ROOT, check=True)
        return read_po(file)


def merged(room: str, locale: str, template: Catalog) -> Catalog:
    """The catalogue of a language with today's texts; English fills itself in."""
    path = ROOT / room / "translations" / locale / "LC_MESSAGES" / "messages.po"
    catalogue = read_po(path.open("rb"), locale=locale) if path.exists() else Catalog(locale=locale)
    catalogue.update(template, no_fuzzy_matching=True)
    catalogue.obsolete.clear()
    if locale == "en":
        for message in catalogue:
            if message.id:
                message.string = message.id
    return catalogue


def as_text(catalogue: Catalog) -> bytes:
    """The catalogue as it is kept."""
    out = io.BytesIO()
    write_po(out, catalogue, no_location=True, omit_header=True, sort_output=True, width=120)
    head = f'msgid ""\nmsgstr ""\n"Language: {catalogue.locale}\\n"\n"Content-Type: text/plain; charset=utf-8\\n"\n'
    head += f'"Plural-Forms: {catalogue.plural_forms}\\n"\n\n'
    return head.encode() + out.getvalue()


def complaints(catalogue: Catalog) -> list[str]:
    """What is missing, doubtful, or does not fill the same places."""
    found = []
    for message in catalogue:
        strings = message.string if isinstance(message.string, tuple | list) else (message.string,)
        if message.id and (not all(strings) or message.fuzzy):
            found.append(f"not translated: {message.id!r}")
        elif message.id:
            for check in checkers:
                try:
                    check(catalogue, message)
                except Exception as error:  # noqa: BLE001  # a checker's own classes differ from release to release
                    found.append(f"{message.id!r}: {error}")
    return found


def main() -> int:
    """Write the catalogues; with --check, complain and write nothing."""
    checking, trouble = "--check" in sys.argv, 0
    for room in ROOMS:
        template = collect(room)
        for locale in ("nl", "en"):
            catalogue = merged(room, locale, template)
            path = ROOT / room / "translations" / locale / "LC_MESSAGES" / "messages.po"
            if not checking:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(as_text(catalogue))
                continue
            found = complaints(catalogue)
            if not path.exists() or path.read_bytes() != as_text(catalogue):
                found.append("out of date: run `make translations`")
            for line in found:
                print(f"{room} {locale}: {line}")
            trouble += len(found)
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
