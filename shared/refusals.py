"""Refusals: what a person (or another program) asked for that cannot be done, named for its reason.

Domain code raises a `Refusal` with a marked, untranslated text; `web.py` translates it and answers with its status, a worker logs
it. `fields` names the wrong fields of a form or a JSON body, so that the answer can stand beside them.
"""

from collections.abc import Mapping

from shared.language import N_, Words


class Refusal(Exception):  # noqa: N818  # subclasses are named for their reason: NoSeatsLeft
    """Something cannot be done, for a reason that a person may read."""

    status: int = 409
    text: str = ""
    """Marked with `N_`; may hold `%(name)s` places, filled from `values`."""

    def __init__(self, *, fields: Mapping[str, Words | str] | None = None, **values: object) -> None:
        super().__init__(type(self).__name__)
        self.fields = dict(fields or {})
        self.words = Words(self.text, values)

    def __str__(self) -> str:
        return f"{type(self).__name__}: {self.words}"


class NotFound(Refusal):
    """There is no such thing, or no longer."""

    status = 404
    text = N_("This page does not exist, or no longer does.")


class Invalid(Refusal):
    """Something that was sent does not fit; `fields` says what, where."""

    status = 422
    text = N_("Something is not right yet.")


class NotAllowed(Refusal):
    """This is for somebody with another role."""

    status = 403
    text = N_("This page is for the facilitator of the circle.")
