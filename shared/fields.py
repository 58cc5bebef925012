"""Fields that WTForms does not have, and `components.html` shows: rows of the same few fields, and texts in Markdown."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from wtforms import FieldList, TextAreaField

from shared.language import Words


class MarkedText(TextAreaField):
    """A text in Markdown; under it stands how to write it."""

    marked = True


class Rows(FieldList):
    """Rows of the same few fields, such as the items of an agenda; a row that is left empty is none.

    Its own buttons ask for more rows, or put one a place higher. The form's first button is one of them too, because that is what
    Enter presses in any field: it keeps everything as it is. They send the form, and it comes back with everything as it was typed,
    right or wrong (`pressed`); with JavaScript `enhance.js` does the same in place. Labels take the number of their row.
    """

    SPARE, MOST = 2, 100
    pressed = False
    """Whether one of its buttons sent the form: then nothing is saved yet."""
    stayed = False
    """Whether that was Enter, so that it has to be said."""
    first_new: int | None = None
    """The first of the rows that were asked for; the page opens there."""
    moved: int | None = None
    """Where the row is that was put higher."""

    def process(self, formdata: Any, data: Any = (), extra_filters: Any = None) -> None:
        # What was held before does not shine through in a row that was sent.
        super().process(formdata, () if formdata else data, extra_filters)
        more, up, stay = (formdata.get(f"{self.name}-{what}") if formdata else None for what in ("more", "up", "stay"))
        self.stayed = stay is not None
        self.pressed = self.stayed or more is not None or up is not None
        if more is not None:
            self.first_new = len(self.entries)
        if more is not None or not formdata or not self.entries:
            for _row in range(min(self.SPARE, self.MOST - len(self.entries))):
                self._add_entry()
        if up is not None and up.isascii() and up.isdigit() and 0 < int(up[:4]) < len(self.entries):
            self.moved = int(up[:4]) - 1
            self.entries.insert(self.moved, self.entries.pop(self.moved + 1))
            self._compact_indices()
        for number, entry in enumerate(self.entries, 1):
            for field in entry:
                field.label.text = Words(field.label.text.text, {"n": number})

    def _extract_indices(self, prefix: str, formdata: Iterable[str]) -> Iterator[int]:
        """WTForms takes ² for a digit, and falls over it."""
        found = (re.match(rf"{re.escape(prefix)}-([0-9]{{1,4}})-", name) for name in formdata)
        return (int(match[1]) for match in found if match)
