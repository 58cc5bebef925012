"""A town's command line.

\b
town-node db upgrade                          make or update the tables
town-node setup-code                          what the first page of a new node asks for
town-node join --hub https://… CODE           join the association with its code
town-node rotate-key                          sign with a new key from now on
town-node person add "Name" mail@… --role facilitator
town-node run web --port 8001                 the web process
town-node run worker                          the worker
town-node login-link mail@…                   a one-time login link, for when mail is down
town-node token mail@…                        an API token
town-node test-mail mail@…                    try the mail settings
town-node import members list.xlsx            look what a file would do, and do it
town-node export members list.csv             everything of a kind, which can be imported again
town-node backup /safe/folder                 a backup of the database, also while everything runs
town-node settings                            every setting, with its meaning

Settings are read from the environment: TUINKOEPEL_NODE_STATE is the one that must be set. What cannot be done is said in one line,
with an exit code that is not 0.
"""  # noqa: D301  # \b is click's: leave these lines as they are

import sys
from pathlib import Path
from typing import BinaryIO

import click
from sqlalchemy import select

from services.town_node.circle import actions
from services.town_node.circle.membership import erasures, join_association, open_node, present_key, rotate_key, spelled
from services.town_node.circle.model import Member
from services.town_node.config import HERE, PREFIX, Settings, load_settings, utc_now, web_secret
from shared import login
from shared.backup import back_up
from shared.db import Database
from shared.language import HERE as LOCAL
from shared.refusals import Refusal
from shared.serving import (
    EMAIL,
    PORT,
    check_tables,
    handed,
    refuse_plainly,
    require_tables,
    serve_web,
    stopped_by_signals,
    try_mail,
    upgrade_tables,
)
from shared.settings import settings_table

settled = handed(load_settings)
BESIDE = ("erasures", "confirmed.json")
"""Files of the state folder that stay with a backup, each the latest there is: what the database must not forget."""


@click.group(help=__doc__)
def cli() -> None:
    pass


@cli.group()
def db() -> None:
    """The tables."""


@db.command()
@settled
def upgrade(settings: Settings) -> None:
    """Make or update the tables."""
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    upgrade_tables(
        HERE / "migrations", Database(settings.database_url)
    )  # without tables nobody can say yet whether this node has joined


@db.command()
@settled
def check(settings: Settings) -> None:
    """Whether the migrations say what the code says."""
    check_tables(HERE / "migrations", open_node(settings))


@cli.command()
@click.option("--hub", required=True, help="The hub's address.")
@click.option("--again", is_flag=True, help="This node has joined before, and its key is lost, stolen or not known there.")
@click.argument("code")
@settled
def join(settings: Settings, hub: str, code: str, *, again: bool) -> None:
    """Join the association with the code it gave."""
    from services.town_node.home.slices import SLICES  # late: everything the circle has to tell
    from services.town_node.home.sync import glance
    from shared.heads import AT_DOOR

    database = Database(settings.database_url) if again else open_node(settings)  # its key may be gone
    joined = join_association(settings, database, hub, code, SLICES, again=again)
    with database.reading() as session:
        waits, key = glance(session).trouble == AT_DOOR, present_key(session, settings)
    if waits and key is not None:
        click.echo(f"{joined.association} has the code for {joined.name} ({joined.town}), and has to let it in.")
        click.echo(f"Call them, and read out the short name of this node's key: {spelled(key[0])}")
    else:
        click.echo(f"Joined {joined.association} as {joined.name} ({joined.town}).")


@cli.command("setup-code")
@settled
def print_setup_code(settings: Settings) -> None:
    """Print the code that the first page of a new node asks for; it works once, while there are no people."""
    from services.town_node.home.setup import setup_code  # late, as in `join`

    with open_node(settings).reading() as session:
        click.echo(setup_code(settings, session))


@cli.command("rotate-key")
@settled
def rotate(settings: Settings) -> None:
    """Sign with a new key from now on; the association and the other towns hear of it by themselves."""
    click.echo(f"The town signs with key {rotate_key(settings, open_node(settings))} now.")


@cli.group()
def run() -> None:
    """The two processes."""


def _make_ready(settings: Settings) -> None:
    """Find at the start, and say in one line, what would otherwise be found later and in many."""
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    require_tables(HERE / "migrations", Database(settings.database_url), "town-node")
    open_node(settings).close()
    web_secret(settings)


@run.command()
@click.option("--port", type=PORT, default=8001, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; a proxy stands before it.")
@settled
def web(settings: Settings, host: str, port: int) -> None:
    """The web process: the circle's pages and API."""
    from services.town_node.home.erasures import erase_again  # late, as in `join`

    _make_ready(settings)
    database = open_node(settings)
    erase_again(database, erasures(settings), utc_now())
    database.close()
    serve_web("services.town_node.app:create_app()", host, port, settings.log_level)


@run.command("worker")
@settled
def run_worker(settings: Settings) -> None:
    """The worker: sends what was committed, and keeps in step with the association."""
    from services.town_node.worker import run  # late: the web process needs no bus

    _make_ready(settings)
    run(settings, stopped_by_signals())


@cli.group()
def person() -> None:
    """People of the circle."""


@person.command("add")
@click.argument("name")
@click.argument("email", type=EMAIL)
@click.option("--role", type=click.Choice(["member", "facilitator"]), default="member", show_default=True)
@settled
def person_add(settings: Settings, name: str, email: str, role: str) -> None:
    """Let somebody in; does nothing when the address is known already."""
    database = open_node(settings)
    with database.transaction() as session:
        if session.scalar(select(Member).where(Member.email == email)) is None:
            actions.add_member(session, name=name, email=email, role=role, today=utc_now().astimezone(LOCAL).date())


def _somebody(settings: Settings, email: str) -> Member:
    with open_node(settings).reading() as session:
        who = session.scalar(select(Member).where(Member.email == email, Member.left_on.is_(None)))
    if who is None:
        raise click.ClickException(f"nobody here has the address {email}")
    return who


@cli.command("login-link")
@click.argument("email", type=EMAIL)
@settled
def login_link(settings: Settings, email: str) -> None:
    """Print a one-time login link, good for a day."""
    who = _somebody(settings, email)
    with open_node(settings).transaction() as session:
        token = login.make_link(session, who.code, utc_now(), login.CLI_LINK_LASTS)
    click.echo(f"{settings.url}/login/link/{token}")


@cli.command()
@click.argument("email", type=EMAIL)
@click.option("--name", default="cli", show_default=True)
@settled
def token(settings: Settings, email: str, name: str) -> None:
    """Print a new API token, which is shown this once."""
    who = _somebody(settings, email)
    with open_node(settings).transaction() as session:
        click.echo(login.make_api_token(session, who.code, name, utc_now()))


@cli.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--keep", type=click.IntRange(1), default=14, show_default=True, help="So many of the latest stay there.")
@settled
def backup(settings: Settings, folder: Path, keep: int) -> None:
    """Back up the database into this folder, also while everything runs, with the files that have to stay beside it."""
    click.echo(back_up(settings.database_url, "node", settings.state, BESIDE, folder, keep, utc_now()))


@cli.command("settings")
def show_settings() -> None:
    """Print every setting: its name, its meaning, and what holds when it is not set."""
    click.echo(settings_table(Settings, PREFIX))


@cli.command("test-mail")
@click.argument("email", type=EMAIL)
@settled
def test_mail(settings: Settings, email: str) -> None:
    """Send one mail now, and say plainly what went wrong."""
    try_mail(settings.mail_url, settings.mail_from, email, utc_now())


KIND = click.Choice(["initiatives", "members", "lessons", "meetings"])


@cli.command("import")
@click.argument("kind", type=KIND)
@click.argument("file", type=click.File("rb"))
@click.option("--map", "mapped", multiple=True, metavar="COLUMN=FIELD", help="Say what a column is: --map 'Tuintje=name'.")
@click.option("--names-agreed", is_flag=True, help="The people whose names or numbers were found in the texts agreed.")
@click.option("--yes", is_flag=True, help="Do not ask; a file with a mistake is not imported all the same.")
@click.option("--language", type=click.Choice(["nl", "en"]), help="Of the messages; by default the terminal's.")
@settled
def import_file(
    settings: Settings, kind: str, file: BinaryIO, *, mapped: tuple[str, ...], names_agreed: bool, yes: bool, language: str | None
) -> None:
    """Show what a spreadsheet (CSV or XLSX) would do, and after a yes do it: all of it, or nothing."""
    from services.town_node.transfer.dialogue import import_by_hand

    import_by_hand(open_node(settings), kind, file.read(), mapped, names_agreed=names_agreed, yes=yes, language=language)


@cli.command("export")
@click.argument("kind", type=KIND)
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--language", type=click.Choice(["nl", "en"]), help="Of the headers; by default the terminal's.")
@settled
def export_file(settings: Settings, kind: str, file: str, language: str | None) -> None:
    """Write everything of a kind to a file that ends in .csv or .xlsx."""
    from services.town_node.transfer.dialogue import export_to

    export_to(open_node(settings), kind, file, language=language)


def main() -> None:
    """The console script; what cannot be done is said in one line."""
    sys.exit(refuse_plainly(lambda: cli.main(standalone_mode=False), Refusal))
