"""The JSON API that both services share: `/api/v1`, problem details, OpenAPI 3.1 generated from the schemas in use (design §7)."""

from collections.abc import Sequence
from typing import Any

import flask_smorest
from flask import Flask
from werkzeug.exceptions import HTTPException

from shared.web import answer_trouble


class Interface(flask_smorest.Api):
    """The JSON API: flask-smorest, whose own error handler would also catch the pages' errors (`libraries.md` §0.8)."""

    def handle_http_exception(self, error: HTTPException) -> Any:
        return answer_trouble(error)


def open_interface(app: Flask, blueprints: Sequence[Any]) -> Interface:
    """Add `/api/v1`; tokens, never cookies, so no CSRF protection is needed there."""
    api = Interface(app)
    for blueprint in blueprints:
        api.register_blueprint(blueprint)
        app.extensions["csrf"].exempt(blueprint)
    return api
