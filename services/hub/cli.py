"""The association's command line.

\b
hub db upgrade                    make or update the tables
hub run web --port 8000           the web process
hub run worker                    the worker; with --partition 0 for its part of the towns only
hub town add almere "Almere"      make a town; prints its joining code
hub town code almere              a new joining code, if the first was lost before the town joined
hub town readmit almere           a code for a town that lost its node or its key, or that left
hub town revoke almere            its key is in wrong hands: it counts no longer
hub person add "Name" mail@…      somebody of the association
hub login-link mail@…             a one-time login link, for when mail is down
hub token mail@…                  an API token
hub test-mail mail@…              try the mail settings
hub broker definitions            what RabbitMQ must have, as a file to import
hub broker users                  make every town's user on RabbitMQ again, when it was set up anew
hub rebuild                       fold the national log into the read models again
hub backup /safe/folder           a backup of the database, also while everything runs
hub settings                      every setting, with its meaning

Settings are read from the environment: TUINKOEPEL_HUB_STATE is the one that must be set. What cannot be done is said in one line,
with an exit code that is not 0.
"""  # noqa: D301  # \b is click's: leave these lines as they are

import json
import secrets
import sys
from pathlib import Path

import click

from services.hub.config import HERE, PREFIX, Settings, load_settings, open_hub, utc_now, web_secret
from services.hub.memory import PROJECTIONS, keyring, open_remembering
from services.hub.towns.broker import definitions, forget_users
from services.hub.towns.joining import add_town, found_association, readmit_town, renew_code
from services.hub.towns.parting import revoke_keys
from services.hub.towns.people import AssociationMember, find_by_email
from shared import login
from shared.backup import back_up
from shared.projections import foldable, rebuild
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
BESIDE = ("erasures", "reach.json", "keys.json")
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
    database, _ = open_hub(settings)
    upgrade_tables(HERE / "migrations", database)
    with database.transaction() as session:
        found_association(session)


@db.command()
@settled
def check(settings: Settings) -> None:
    """Whether the migrations say what the code says."""
    database, _ = open_hub(settings)
    check_tables(HERE / "migrations", database)


@cli.group()
def run() -> None:
    """The two processes."""


def _make_ready(settings: Settings) -> None:
    """Find at the start, and say in one line, what would otherwise be found later and in many."""
    database, _ = open_hub(settings)
    require_tables(HERE / "migrations", database, "hub")
    keyring(settings).read()
    web_secret(settings)


@run.command()
@click.option("--port", type=PORT, default=8000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; a proxy stands before it.")
@settled
def web(settings: Settings, host: str, port: int) -> None:
    """The web process: pages, API, and the doors of the protocol."""
    _make_ready(settings)
    serve_web("services.hub.app:create_app()", host, port, settings.log_level)


@run.command("worker")
@click.option("--partition", "partitions", type=int, multiple=True, help="Take in this partition only; may be given again.")
@settled
def run_worker(settings: Settings, partitions: tuple[int, ...]) -> None:
    """The worker: takes in what the towns send, folds it, and passes it on."""
    from services.hub.worker import run  # late: the web process needs no bus

    if not all(0 <= partition < settings.partitions for partition in partitions):
        raise click.ClickException(f"the partitions are 0 to {settings.partitions - 1}: see {PREFIX}_INGEST_PARTITIONS")
    _make_ready(settings)
    run(settings, stopped_by_signals(), partitions)


@cli.group()
def town() -> None:
    """Towns."""


@town.command("add")
@click.argument("slug")
@click.argument("name")
@settled
def town_add(settings: Settings, slug: str, name: str) -> None:
    """Make a town and print its joining code. Whoever uses it is let in at once."""
    database, _ = open_remembering(settings)
    with database.transaction() as session:
        code = add_town(session, slug, name, utc_now())
    click.echo(code)


@town.command("code")
@click.argument("slug")
@settled
def town_code(settings: Settings, slug: str) -> None:
    """Print a new joining code for a town that has not joined yet; the one before stops working."""
    database, _ = open_remembering(settings)
    with database.transaction() as session:
        code = renew_code(session, slug, utc_now())
    click.echo(code)


@town.command("readmit")
@click.argument("slug")
@settled
def town_readmit(settings: Settings, slug: str) -> None:
    """Print a code with which a town that lost its node and its key, or that left, joins anew; the old key counts until then."""
    database, _ = open_remembering(settings)
    with database.transaction() as session:
        code = readmit_town(session, slug, utc_now())
    click.echo(code)


@town.command("revoke")
@click.argument("slug")
@click.option("--last", type=int, help="The last event of its log that is believed; what is held now when not given.")
@settled
def town_revoke(settings: Settings, slug: str, last: int | None) -> None:
    """End a town's key that is in wrong hands. Afterwards the town joins anew, with a code of `readmit`."""
    database, _ = open_remembering(settings)
    with database.transaction() as session:
        revoke_keys(session, slug, utc_now(), last)


@cli.command("put-back")
@settled
def put_back(settings: Settings) -> None:
    """Say that this hub was put back from a backup and its reach.json is gone: a new feed begins. Stop the worker first."""
    from services.hub.towns.setback import keep_in_step
    from services.hub.worker import speak_for_association
    from shared.restore import Sidecar

    database, _ = open_remembering(settings)
    speak_for_association(database)
    keep_in_step(database, Sidecar(settings.state / "reach.json"), keyring(settings), put_back=True)
    click.echo("The towns read everything again from here.")


@cli.group()
def person() -> None:
    """People of the association."""


@person.command("add")
@click.argument("name")
@click.argument("email", type=EMAIL)
@settled
def person_add(settings: Settings, name: str, email: str) -> None:
    """Let somebody of the association in; does nothing when the address is known already."""
    database, _ = open_hub(settings)
    with database.transaction() as session:
        if find_by_email(session, email) is None:
            session.add(AssociationMember(code=secrets.token_hex(6), name=name, email=email, language="nl", role="association"))


def _somebody(settings: Settings, email: str) -> AssociationMember:
    database, _ = open_hub(settings)
    with database.reading() as session:
        who = find_by_email(session, email)
    if who is None:
        raise click.ClickException(f"nobody here has the address {email}")
    return who


@cli.command("login-link")
@click.argument("email", type=EMAIL)
@settled
def login_link(settings: Settings, email: str) -> None:
    """Print a one-time login link, good for a day."""
    database, _ = open_hub(settings)
    who = _somebody(settings, email)
    with database.transaction() as session:
        token = login.make_link(session, who.code, utc_now(), login.CLI_LINK_LASTS)
    click.echo(f"{settings.url}/login/link/{token}")


@cli.command()
@click.argument("email", type=EMAIL)
@click.option("--name", default="cli", show_default=True)
@settled
def token(settings: Settings, email: str, name: str) -> None:
    """Print a new API token, which is shown this once."""
    database, _ = open_hub(settings)
    who = _somebody(settings, email)
    with database.transaction() as session:
        click.echo(login.make_api_token(session, who.code, name, utc_now()))


@cli.command("test-mail")
@click.argument("email", type=EMAIL)
@settled
def test_mail(settings: Settings, email: str) -> None:
    """Send one mail now, and say plainly what went wrong."""
    try_mail(settings.mail_url, settings.mail_from, email, utc_now())


@cli.group()
def broker() -> None:
    """RabbitMQ."""


@broker.command("definitions")
@settled
def broker_definitions(settings: Settings) -> None:
    """Print what RabbitMQ must have, each town's user included, for `rabbitmqctl import_definitions`."""
    database, _ = open_hub(settings)
    with database.reading() as session:
        click.echo(json.dumps(definitions(session, settings), indent=1))


@broker.command("users")
@settled
def broker_users(settings: Settings) -> None:
    """Let the worker make every town's user on RabbitMQ again, with the password it was told: the broker was set up anew."""
    database, _ = open_hub(settings)
    if not settings.broker_api:
        raise click.ClickException(f"{PREFIX}_BROKER_API is not set")
    with database.transaction() as session:
        forget_users(session)


@cli.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--keep", type=click.IntRange(1), default=14, show_default=True, help="So many of the latest stay there.")
@settled
def backup(settings: Settings, folder: Path, keep: int) -> None:
    """Back up the database into this folder, also while everything runs, with the files that have to stay beside it."""
    click.echo(back_up(settings.database_url, "hub", settings.state, BESIDE, folder, keep, utc_now()))


@cli.command("settings")
def show_settings() -> None:
    """Print every setting: its name, its meaning, and what holds when it is not set."""
    click.echo(settings_table(Settings, PREFIX))


@cli.command("rebuild")
@settled
def rebuild_all(settings: Settings) -> None:
    """Fold the national log into the read models again.

    Readers see the old rows until it is done, and the worker may go on: it waits with folding.
    """
    database, _ = open_hub(settings)
    with database.reading() as session:
        total = foldable(session)
    bar = click.progressbar(length=total, label="events", show_pos=True, show_percent=False, file=sys.stderr)
    with database.transaction() as session, bar:
        rebuild(session, PROJECTIONS, bar.update)
    click.echo(f"{total} events folded", err=True)


def main() -> None:
    """The console script; what cannot be done is said in one line."""
    sys.exit(refuse_plainly(lambda: cli.main(standalone_mode=False), Refusal))
