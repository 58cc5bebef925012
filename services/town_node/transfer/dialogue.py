"""Import and export at the command line: the same plan as on the page, in lines of text."""

import locale
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click

from services.town_node.config import HERE, utc_now
from services.town_node.transfer import actions
from services.town_node.transfer.columns import COLUMNS, name_by_hand, open_table
from services.town_node.transfer.spreadsheets import FORMS, read_table, write_csv, write_xlsx
from shared.db import Database
from shared.language import HERE as LOCAL
from shared.language import LANGUAGES, _, ngettext, speak, use_catalogues
from shared.refusals import Refusal

SHOWN = 200
"""Rows of each sort; a terminal is no place for thousands."""


def import_by_hand(
    database: Database, kind: str, content: bytes, mapped: Sequence[str], *, names_agreed: bool, yes: bool, language: str | None
) -> None:
    """Show the plan, ask, and carry it out in one transaction. Raises `ClickException`."""
    with closing(database), speak(_language(language)):
        try:
            rows = read_table(content)
            by_hand = name_by_hand(open_table(rows, kind), kind, mapped)
            today = utc_now().astimezone(LOCAL).date()
            with database.reading() as session:
                plan = actions.plan_import(session, kind, rows, by_hand, today)
            _show(plan)
            if plan.count("wrong"):
                raise click.ClickException(_("Nothing is imported. Correct the file and try again."))
            if not plan.ready:
                return
            if plan.names and not names_agreed:
                raise click.ClickException(
                    _(
                        "These words may tell who somebody is: %(words)s. If they agreed, add --names-agreed.",
                        words=", ".join(plan.names),
                    )
                )
            if not yes:
                click.confirm(_("Import this?"), abort=True)
            agreed = set(plan.names)
            with database.transaction() as session:
                plan = actions.plan_import(session, kind, rows, by_hand, today)
                if not set(plan.names) <= agreed:
                    raise click.ClickException(_("Something changed in the meantime. Look at the preview again."))
                with click.progressbar(length=len(plan.steps), label=_("Importing")) as bar:
                    for _done in actions.carry_out(session, plan):
                        bar.update(1)
            click.echo(_("The file is imported."))
        except Refusal as refusal:
            raise click.ClickException(str(refusal.words)) from None


def _language(wanted: str | None) -> str:
    use_catalogues(HERE / "translations")
    spoken = wanted or (locale.getlocale()[0] or "")[:2]
    return spoken if spoken in LANGUAGES else "en"


def _show(plan: actions.Plan) -> None:
    if plan.unknown:
        click.echo(_("Left out, because it is unknown: %(names)s. Use --map 'column=field'.", names=", ".join(plan.unknown)))
        click.echo(_("Fields: %(names)s", names=", ".join(known.field for known in COLUMNS[plan.kind.name])))
    for state in actions.STATES:
        of_this = [step for step in plan.steps if step.state == state]
        if not of_this:
            continue
        click.echo(f"{_WORDS[state](len(of_this))}")
        for step in of_this[:SHOWN] if state != "unchanged" else ():
            click.echo("  " + _("line %(line)s: %(title)s", line=step.line, title=step.title))
            for header, words in step.errors:
                click.echo(f"    {header}: {words}" if header else f"    {words}")
            for words in step.notes:
                click.echo(f"    {words}")
            for change in step.changes if state == "changed" else ():
                click.echo(f"    {change.header}: {change.before or '–'} → {change.after or '–'}")
            if step.names:
                click.echo("    " + _("Tells this who somebody is? %(words)s", words=", ".join(step.names)))


_WORDS = {
    "wrong": lambda n: ngettext("%(n)s line is not right.", "%(n)s lines are not right.", n),
    "new": lambda n: ngettext("%(n)s line is new.", "%(n)s lines are new.", n),
    "changed": lambda n: ngettext("%(n)s line would be changed.", "%(n)s lines would be changed.", n),
    "unchanged": lambda n: ngettext("%(n)s line is known already.", "%(n)s lines are known already.", n),
}


def export_to(database: Database, kind: str, file: str, *, language: str | None) -> None:
    """Write everything of a kind to a file. Raises `ClickException`."""
    path = Path(file)
    form = path.suffix.removeprefix(".").lower()
    with closing(database), speak(_language(language)):
        if form not in FORMS:
            raise click.ClickException(_("The name of the file must end in .csv or .xlsx."))
        with database.reading() as session:
            rows = actions.export(session, kind, utc_now().astimezone(LOCAL).date())
        path.write_bytes(write_csv(rows) if form == "csv" else write_xlsx(rows, kind))
        click.echo(ngettext("%(n)s line is written.", "%(n)s lines are written.", len(rows) - 1))
