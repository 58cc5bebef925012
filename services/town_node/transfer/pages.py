"""Import and export for the facilitator: choose a kind and a file, look at what would happen, import; and everything out again.

Between the look and the import the file waits in the database (`model.Upload`), not in this process. The import itself answers
while it works: the page arrives in pieces, so that a long file shows how far it is, without a script.
"""

import io
import logging
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, redirect, request, send_file, stream_template, url_for
from flask_wtf.file import FileField
from sqlalchemy.exc import OperationalError
from wtforms import RadioField
from wtforms.validators import InputRequired

from services.town_node.circle.fields import AskingForm, one_line
from services.town_node.transfer import actions
from services.town_node.transfer.cells import short
from services.town_node.transfer.columns import COLUMNS, KINDS, sample
from services.town_node.transfer.model import Upload
from services.town_node.transfer.spreadsheets import FORMS, ROWS_MAX, Cell, Unreadable, write_csv, write_xlsx
from shared.finding import asked, here
from shared.language import N_, Words, _, ngettext, number, speak, spoken
from shared.refusals import NotFound, Refusal
from shared.web import Form, flash_ok, me, now, reading, render, require, today, transaction

log = logging.getLogger(__name__)
pages = Blueprint("transfer", __name__, url_prefix="/transfer")

PAGE = 50
NAMES = {"initiatives": N_("Initiatives"), "members": N_("Members"), "lessons": N_("Lessons"), "meetings": N_("Meetings")}
LISTS = {"initiatives": "initiatives.index", "members": "circle.people", "lessons": "lessons.index", "meetings": "meetings.index"}
STATES = {"wrong": N_("Not right"), "new": N_("New"), "changed": N_("Changed"), "unchanged": N_("Unchanged")}
MIMETYPES = {"csv": "text/csv", "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"}


class FileForm(Form):
    kind = RadioField(Words(N_("What is in the file?")), validators=[InputRequired()])
    file = FileField(
        Words(N_("The file")),
        description=Words(N_("An Excel file (.xlsx) or a CSV file. Nothing is changed yet: you see first what would happen.")),
        render_kw={"accept": ".csv,.txt,.tsv,.xlsx"},
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind.choices = [(kind, _(NAMES[kind])) for kind in KINDS]


@pages.route("", methods=["GET", "POST"])
@require("facilitator")
def index() -> Any:
    form = FileForm()
    if not form.is_submitted():
        form.kind.data = asked("kind") if asked("kind") in KINDS else None
    if form.validate_on_submit():
        content = form.file.data.read() if form.file.data else b""
        try:
            if not form.file.data:
                raise Unreadable(N_("Choose a file first."))
            with transaction() as session:
                name = one_line(form.file.data.filename) or "?"
                upload = actions.keep_upload(session, me() or "", kind=form.kind.data, name=name, content=content, now=now())
                code = upload.code
            return redirect(url_for(".preview", code=code))
        except Unreadable as refusal:
            form.file.errors = [str(refusal.words)]
    names = [(kind, _(NAMES[kind])) for kind in KINDS]
    return render("transfer/index.html", form=form, names=names, most=number(ROWS_MAX)), 422 if form.is_submitted() else 200


@pages.get("/<code>")
@require("facilitator")
def preview(code: str) -> Any:
    with reading() as session:
        return _shown(actions.find_upload(session, code, me() or "", now()), AskingForm())


def _shown(upload: Upload, form: AskingForm, typed: dict[str, str] | None = None, trouble: str = "") -> str:
    """The preview. `typed` are the columns as somebody just chose them, when that cannot be."""
    with reading() as session:
        plan = actions.plan_upload(session, upload, today())
    tally = {state: plan.count(state) for state in actions.STATES}
    remarks = sum(bool(step.notes) for step in plan.steps)
    wanted = asked("show") or ("wrong" if tally["wrong"] else "")
    steps = [
        step
        for step in plan.steps
        if wanted not in {*tally, "remarks"} or step.state == wanted or (wanted == "remarks" and step.notes)
    ]
    page = int(asked("page", 4)) if asked("page", 4).isascii() and asked("page", 4).isdigit() else 1
    first = (max(1, page) - 1) * PAGE
    mapping = plan.mapping if typed is None else {int(place): field for place, field in typed.items() if field}
    unfilled = {header for step in plan.steps for header, _words in step.errors}
    missing = [
        known.header for known in COLUMNS[upload.kind] if known.header in unfilled and known.field not in plan.mapping.values()
    ]
    return render(
        "transfer/preview.html",
        upload=upload,
        name=_(NAMES[upload.kind]),
        form=form,
        plan=plan,
        names=plan.names,
        states={state: _(word) for state, word in STATES.items()},
        counts=[
            {"number": number(tally[state]), "label": _(STATES[state]), "url": here(show=state)} for state in STATES if tally[state]
        ],
        wrong=tally["wrong"],
        remarks=remarks,
        remarks_url=here(show="remarks"),
        everything_url=here(show="all"),
        wanted=wanted,
        steps=steps[first : first + PAGE],
        total=len(steps),
        next_url=here(page=page + 1) if first + PAGE < len(steps) else None,
        previous_url=here(page=page - 1) if page > 1 else None,
        headers=[
            (place, header, _example(plan, place), mapping.get(place, ""))
            for place, header in enumerate(plan.table.headers)
            if header
        ],
        fields=[(known.field, known.header) for known in COLUMNS[upload.kind]],
        unknown=plan.unknown,
        missing=missing,
        trouble=trouble,
    )


def _example(plan: actions.Plan, place: int) -> str:
    """The first thing that stands in a column, so that one sees what it is."""
    return next((short(row.cells[place]) for row in plan.table.rows if len(row.cells) > place and row.cells[place] is not None), "")


@pages.post("/<code>/columns")
@require("facilitator")
def choose_columns(code: str) -> Any:
    typed = {
        name.removeprefix("column-"): value
        for name, value in request.form.items()
        if name.startswith("column-") and name.removeprefix("column-").isascii() and name.removeprefix("column-").isdigit()
    }
    with transaction() as session:
        upload = actions.find_upload(session, code, me() or "", now())
        try:
            actions.choose_columns(session, upload, typed)
        except Unreadable as refusal:
            trouble = str(refusal.words)
        else:
            trouble = ""
    if trouble:
        return _shown(upload, AskingForm(formdata=None), typed, trouble), 422
    return redirect(url_for(".preview", code=code))


@pages.post("/<code>/forget")
@require("facilitator")
def forget(code: str) -> Any:
    with transaction() as session:
        upload = actions.find_upload(session, code, me() or "", now())
        actions.forget_upload(session, upload.code)
    flash_ok(_("The file is erased. Nothing was imported."))
    return redirect(url_for(".index"))


@pages.post("/<code>")
@require("facilitator")
def carry_out(code: str) -> Any:
    form = AskingForm()
    with reading() as session:
        upload = actions.find_upload(session, code, me() or "", now())
        plan = actions.plan_upload(session, upload, today())
    if not plan.ready or not form.validate_on_submit() or not _agreed(form, plan.names):
        return _shown(upload, form), 422
    page = stream_template(
        "transfer/done.html",
        work=_Work(code, form),
        name=_(NAMES[upload.kind]),
        list_url=url_for(LISTS[upload.kind]),
        upload=upload,
    )
    return _in_language(spoken(), page), {"X-Accel-Buffering": "no"}  # nginx would keep the pieces until all is done


def _in_language(language: str, page: Iterator[str]) -> Iterator[str]:
    """The request has ended, and its language with it, before the first piece is asked for."""
    with speak(language):
        yield from page


def _agreed(form: AskingForm, found: list[str]) -> bool:
    """Whether nothing leaves that was not shown beside the tick (R34); if not, the preview asks."""
    seen = set((form.names_seen.data or "").split("|"))
    if not found or (form.names_agreed.data and set(found) <= seen):
        return True
    form.names_agreed.data = False
    form.names_agreed.errors = [_("Look at these words before this leaves the town: %(words)s", words=", ".join(found))]
    return False


class _Work:
    """The import, while its page is written. `words` says afterwards how it went; `ok`, whether it was done."""

    def __init__(self, code: str, form: AskingForm) -> None:
        self.code, self.form = code, form
        self.words, self.ok = "", False
        self.total = 0

    def __iter__(self) -> Iterator[int]:
        """How many rows are done, now and then."""
        try:
            with transaction() as session:
                upload = actions.find_upload(session, self.code, me() or "", now())
                actions.forget_upload(session, self.code)
                plan = actions.plan_upload(session, upload, today())
                if not _agreed(self.form, plan.names):
                    raise Refusal
                self.total = len(plan.steps)
                every = max(25, self.total // 40)
                for done in actions.carry_out(session, plan):
                    if done % every == 0:
                        yield done
                new, changed, same = (plan.count(state) for state in ("new", "changed", "unchanged"))
            self.ok = True
            told = [
                ngettext("%(n)s line is new.", "%(n)s lines are new.", new) if new else "",
                ngettext("%(n)s line was changed.", "%(n)s lines were changed.", changed) if changed else "",
                ngettext("%(n)s line was known already.", "%(n)s lines were known already.", same) if same else "",
            ]
            self.words = " ".join(filter(None, told))
        except Refusal as refusal:
            self.words = str(refusal.words) or _("Something changed in the meantime. Look at the preview again.")
        except OperationalError:
            log.exception("import.not_written")
            self.words = _(
                "We cannot write anything down right now: the disk may be full. Please tell the person who runs this site."
            )
        except Exception:  # the page has begun, so no other page can take its place
            log.exception("import.failed")
            self.words = _("Something went wrong on our side. Nothing of yours is lost; try again in a minute.")


# ---- Out -------------------------------------------------------------------------------------------------------------------


@pages.get("/export/<kind>.<form>")
@require("facilitator")
def export(kind: str, form: str) -> Any:
    _must_be_known(kind, form)
    with reading() as session:
        rows = actions.export(session, kind, today())
    return _file(rows, f"{_(NAMES[kind])} {today().isoformat()}".lower().replace(" ", "-"), kind, form)


@pages.get("/sample/<kind>.<form>")
@require("facilitator")
def example(kind: str, form: str) -> Any:
    _must_be_known(kind, form)
    name = _("sample %(kind)s", kind=_(NAMES[kind]))
    return _file(sample(kind), name.lower().replace(" ", "-"), kind, form)


def _must_be_known(kind: str, form: str) -> None:
    if kind not in KINDS or form not in FORMS:
        raise NotFound


def _file(rows: list[list[Cell]], name: str, kind: str, form: str) -> Any:
    content = write_csv(rows) if form == "csv" else write_xlsx(rows, _(NAMES[kind]))
    answer = send_file(io.BytesIO(content), MIMETYPES[form], as_attachment=True, download_name=f"{name}.{form}", max_age=0)
    answer.headers["Cache-Control"] = "no-store"
    return answer
