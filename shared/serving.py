"""How a service is run from its command line: web and worker processes, tables, and trouble said in one line."""

import logging
import signal
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from sqlalchemy.exc import SQLAlchemyError

from shared.db import Database
from shared.observability import start_logging
from shared.settings import BadSetting

WEB_THREADS = 4


def serve_web(app: str, host: str, port: int, log_level: str) -> None:
    """Serve with gunicorn: one process with a few threads, enough for a circle and light on a Raspberry Pi."""
    from gunicorn.app.base import BaseApplication  # imported late: only the web process pays for it
    from gunicorn.util import import_app

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            msg = f"port {port} on {host} cannot be used: {error.strerror}"
            raise click.ClickException(msg) from None
    start_logging(app.rpartition(".app")[0], log_level)

    class Server(BaseApplication):
        def load_config(self) -> None:
            chosen = {
                "bind": f"{host}:{port}",
                "workers": 1,
                "threads": WEB_THREADS,
                "worker_class": "gthread",
                "timeout": 60,
                "loglevel": "warning",
                "control_socket_disable": True,  # one path per user: hub and nodes would overwrite each other's
            }
            for name, value in chosen.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            return import_app(app)

    Server().run()


def stopped_by_signals() -> Callable[[], bool]:
    """A question that is answered yes after SIGTERM or SIGINT."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _frame: asked.append(got))
    return lambda: bool(asked)


def upgrade_tables(migrations: Path, database: Database) -> None:
    """Bring the tables to what this release needs."""
    from alembic import command

    command.upgrade(_alembic(migrations, database), "head")


def check_tables(migrations: Path, database: Database) -> None:
    """Raise when the migrations do not lead to what the mapped classes say."""
    from alembic import command

    command.check(_alembic(migrations, database))


def _alembic(migrations: Path, database: Database) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations))
    config.set_main_option("path_separator", "os")
    config.attributes["database"] = database
    return config


def refuse_plainly(cli: click.Group, refusal: type[Exception]) -> int:
    """Run a command line; what cannot be done is said in one line, with an exit code that is not 0."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Exit as error:
        return int(error.exit_code)
    except BadSetting as error:
        click.echo(f"Setting: {error}", err=True)
    except refusal as error:
        click.echo(str(error), err=True)
    except SQLAlchemyError as error:
        logging.getLogger(__name__).debug("database", exc_info=True)
        click.echo(f"Database: {getattr(error, 'orig', error)}", err=True)
    except (OSError, sqlite3.Error) as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
    else:
        return 0
    return 1
