"""`town-node`: a town's command line.

town-node db upgrade                          make or update the tables
town-node join --hub https://… CODE           join the association with its code
town-node person add "Name" mail@… --role facilitator
town-node run web --port 8001                 the web process
town-node run worker                          the worker
town-node login-link mail@…                   a one-time login link, for when mail is down
town-node token mail@…                        an API token
town-node test-mail mail@…                    try the mail settings
"""

import smtplib
import sys

import click
from sqlalchemy import select

from services.town_node import worker
from services.town_node.circle import actions
from services.town_node.circle.membership import join_association, open_node
from services.town_node.circle.model import Member
from services.town_node.config import HERE, Settings, load_settings, utc_now
from shared import login
from shared.language import HERE as LOCAL
from shared.mail import compose, post_office
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
    from shared.db import Database  # a database without tables cannot say yet whether this node has joined

    settings.state.mkdir(parents=True, exist_ok=True)
    upgrade_tables(HERE / "migrations", Database(settings.database_url))


@db.command()
@click.pass_obj
def check(settings: Settings) -> None:
    """Whether the migrations say what the code says."""
    check_tables(HERE / "migrations", open_node(settings))


@cli.command()
@click.option("--hub", required=True, help="The hub's address.")
@click.argument("code")
@click.pass_obj
def join(settings: Settings, hub: str, code: str) -> None:
    """Join the association with the code it gave."""
    joined = join_association(settings, open_node(settings), hub, code)
    click.echo(f"Joined {joined.association} as {joined.name} ({joined.town}).")


@cli.group()
def run() -> None:
    """The two processes."""


@run.command()
@click.option("--port", default=8001, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.pass_obj
def web(settings: Settings, host: str, port: int) -> None:
    """The web process."""
    serve_web("services.town_node.app:create_app()", host, port, settings.log_level)


@run.command("worker")
@click.pass_obj
def run_worker(settings: Settings) -> None:
    """The worker."""
    worker.run(settings, stopped_by_signals())


@cli.group()
def person() -> None:
    """People of the circle."""


@person.command("add")
@click.argument("name")
@click.argument("email")
@click.option("--role", type=click.Choice(["member", "facilitator"]), default="member", show_default=True)
@click.pass_obj
def person_add(settings: Settings, name: str, email: str, role: str) -> None:
    """Let somebody in; does nothing when the address is known already."""
    database = open_node(settings)
    with database.transaction() as session:
        if session.scalar(select(Member).where(Member.email == email.casefold())) is None:
            actions.add_member(session, name=name, email=email, role=role, today=utc_now().astimezone(LOCAL).date())


def _somebody(settings: Settings, email: str) -> Member:
    with open_node(settings).reading() as session:
        who = session.scalar(select(Member).where(Member.email == email.casefold(), Member.left_on.is_(None)))
    if who is None:
        msg = f"nobody here has the address {email}"
        raise click.ClickException(msg)
    return who


@cli.command("login-link")
@click.argument("email")
@click.pass_obj
def login_link(settings: Settings, email: str) -> None:
    """Print a one-time login link."""
    who = _somebody(settings, email)
    with open_node(settings).transaction() as session:
        token = login.make_link(session, who.code, utc_now(), login.CLI_LINK_LASTS)
    click.echo(f"{settings.url}/login/link/{token}")


@cli.command()
@click.argument("email")
@click.option("--name", default="cli", show_default=True)
@click.pass_obj
def token(settings: Settings, email: str, name: str) -> None:
    """Print a new API token."""
    who = _somebody(settings, email)
    with open_node(settings).transaction() as session:
        click.echo(login.make_api_token(session, who.code, name, utc_now()))


@cli.command("test-mail")
@click.argument("email")
@click.pass_obj
def test_mail(settings: Settings, email: str) -> None:
    """Send one mail now, and say plainly what went wrong."""
    message = compose(
        sender=settings.mail_from,
        to=email,
        subject="Tuinkoepel",
        text="De mail werkt. / Mail works.",
        now=utc_now(),
        place="test",
    )
    try:
        post_office(settings.mail_url)(message)
    except (OSError, smtplib.SMTPException, ValueError) as error:
        msg = f"the mail could not be sent: {error}"
        raise click.ClickException(msg) from None
    click.echo(f"Sent to {email}.")


def main() -> None:
    """The console script; what cannot be done is said in one line."""
    sys.exit(refuse_plainly(cli, Refusal))
