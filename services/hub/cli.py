"""`hub`: the association's command line.

hub db upgrade                    make or update the tables
hub run web --port 8000           the web process
hub run worker                    the worker
hub town add almere "Almere"      make a town; prints its joining code
hub person add "Name" mail@…      somebody of the association
hub login-link mail@…             a one-time login link, for when mail is down
hub token mail@…                  an API token
hub rebuild                       fold the national log into the read models again
"""

import secrets
import sys

import click

from services.hub import worker
from services.hub.config import HERE, Settings, load_settings, open_hub, utc_now
from services.hub.towns.joining import add_town, found_association
from services.hub.towns.people import AssociationMember, find_by_email
from shared import login
from shared.inbox import rebuild
from shared.refusals import Refusal
from shared.serving import check_tables, refuse_plainly, serve_web, stopped_by_signals, upgrade_tables


@click.group(help=__doc__)
@click.pass_context
def cli(context: click.Context) -> None:
    context.obj = load_settings()


@cli.group()
def db() -> None:
    """The tables."""


@db.command()
@click.pass_obj
def upgrade(settings: Settings) -> None:
    """Make or update the tables."""
    database, _ = open_hub(settings)
    upgrade_tables(HERE / "migrations", database)
    with database.transaction() as session:
        found_association(session)


@db.command()
@click.pass_obj
def check(settings: Settings) -> None:
    """Whether the migrations say what the code says."""
    database, _ = open_hub(settings)
    check_tables(HERE / "migrations", database)


@cli.group()
def run() -> None:
    """The two processes."""


@run.command()
@click.option("--port", default=8000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.pass_obj
def web(settings: Settings, host: str, port: int) -> None:
    """The web process."""
    serve_web("services.hub.app:create_app()", host, port, settings.log_level)


@run.command("worker")
@click.pass_obj
def run_worker(settings: Settings) -> None:
    """The worker."""
    worker.run(settings, stopped_by_signals())


@cli.group()
def town() -> None:
    """Towns."""


@town.command("add")
@click.argument("slug")
@click.argument("name")
@click.pass_obj
def town_add(settings: Settings, slug: str, name: str) -> None:
    """Make a town and print its joining code."""
    database, _ = open_hub(settings)
    with database.transaction() as session:
        code = add_town(session, slug, name, utc_now())
    click.echo(code)


@cli.group()
def person() -> None:
    """People of the association."""


@person.command("add")
@click.argument("name")
@click.argument("email")
@click.pass_obj
def person_add(settings: Settings, name: str, email: str) -> None:
    """Let somebody of the association in."""
    database, _ = open_hub(settings)
    with database.transaction() as session:
        if find_by_email(session, email.casefold()) is None:
            session.add(
                AssociationMember(code=secrets.token_hex(6), name=name, email=email.casefold(), language="nl", role="association")
            )


def _somebody(settings: Settings, email: str) -> AssociationMember:
    database, _ = open_hub(settings)
    with database.reading() as session:
        who = find_by_email(session, email.casefold())
    if who is None:
        msg = f"nobody here has the address {email}"
        raise click.ClickException(msg)
    return who


@cli.command("login-link")
@click.argument("email")
@click.pass_obj
def login_link(settings: Settings, email: str) -> None:
    """Print a one-time login link."""
    database, _ = open_hub(settings)
    who = _somebody(settings, email)
    with database.transaction() as session:
        token = login.make_link(session, who.code, utc_now(), login.CLI_LINK_LASTS)
    click.echo(f"{settings.url}/login/link/{token}")


@cli.command()
@click.argument("email")
@click.option("--name", default="cli", show_default=True)
@click.pass_obj
def token(settings: Settings, email: str, name: str) -> None:
    """Print a new API token."""
    database, _ = open_hub(settings)
    who = _somebody(settings, email)
    with database.transaction() as session:
        click.echo(login.make_api_token(session, who.code, name, utc_now()))


@cli.command("rebuild")
@click.pass_obj
def rebuild_all(settings: Settings) -> None:
    """Fold the national log into the read models again."""
    database, _ = open_hub(settings)
    done = 0
    with database.transaction() as session:

        def show(count: int) -> None:
            nonlocal done
            done += count
            click.echo(f"\r{done} events folded", nl=False, err=True)

        rebuild(session, worker.PROJECTIONS, show)
    click.echo(err=True)


def main() -> None:
    """The console script; what cannot be done is said in one line."""
    sys.exit(refuse_plainly(cli, Refusal))
