"""A bare list to measure ours beside: Flask, the ORM and the least Jinja, on the same table, served by the same gunicorn.

    python -m tests.benchmarks.bare sqlite:///node.db 8005

The shape "ORM + Jinja" of `limits.md` B7. No layout, no login, no languages, no choices beside the list, nothing compressed.
"""

import sys

from flask import Flask, render_template_string
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from shared.serving import serve_web

PAGE = (
    "<!doctype html><title>Initiatives</title><h1>Initiatives</h1><ul>{% for it in rows %}"
    '<li><a href="/initiatives/{{ it.code }}">{{ it.name }}</a> {{ it.kind }}, {{ it.place_name }} ({{ it.phase }})</li>'
    "{% endfor %}</ul>"
)


class _Base(DeclarativeBase):
    pass


class Garden(_Base):
    """As much of an initiative as a list shows."""

    __tablename__ = "initiative"
    code: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    kind: Mapped[str]
    phase: Mapped[str]
    place_name: Mapped[str]


def create_app() -> Flask:
    """The application."""
    app, engine = Flask(__name__), create_engine(sys.argv[1])

    @app.get("/")
    def index() -> str:
        with Session(engine) as session:
            rows = session.scalars(select(Garden).order_by(Garden.name).limit(50)).all()
            return render_template_string(PAGE, rows=rows)

    return app


if __name__ == "__main__":
    serve_web(f"{__spec__.name}:create_app()", "127.0.0.1", int(sys.argv[2]), "WARNING")
