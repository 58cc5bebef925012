"""Who acts in the stories, over HTTP alone: people with the forms of the pages, and programs with the API."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from html.parser import HTMLParser
from typing import Any

import urllib3

from shared import language
from tests.processes import PATIENCE, Service, Visitor
from tests.services import wait_until

TODAY = datetime.now(language.HERE).date().isoformat()


def say(text: str, **values: object) -> str:
    """These words as the pages say them in Dutch."""
    with language.speak("nl"):
        return language._(text, **values)


class Person(Visitor):
    """Somebody with a browser, who fills in the forms of the pages and leaves standing what they offer."""

    def offered(self, page: str) -> dict[str, Any]:
        """What the form on this page holds when it opens."""
        reader = _FormReader()
        reader.feed(self.get(page))
        return reader.held

    def offered_choices(self, page: str, name: str) -> list[str]:
        """What can be ticked there under this name."""
        return re.findall(rf'<input[^>]*name="{name}"[^>]*value="([^"]*)"', self.get(page))

    def fills_in(self, page: str, **told: Any) -> str:
        """Open a form, change what is told, send it; where that leads."""
        return self.send(page, **(self.offered(page) | told)).partition("#")[0]

    def is_refused(self, page: str, status: int = 422, form: str = "", **told: Any) -> str:
        """The same, and the form comes back: the page."""
        held = self.offered(form or page)
        answer = self.call("POST", page, **({"csrf_token": self._token(form or page)} | held | told))
        assert answer.status == status, f"{page}: {answer.status}"
        return answer.data.decode()

    def presses(self, path: str, on: str) -> str:
        """Press a button that is a form of its own, on another page."""
        self.forget_form()
        return self.send(path, page=on)

    def _token(self, page: str) -> str:
        found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.get(page))
        return found[1] if found else ""

    # -- What a circle does --

    def registers(self, name: str, **told: Any) -> str:
        """Its address."""
        return self.fills_in("/initiatives/new", **({"name": name, "kind": "community_garden", "phase": "plan"} | told))

    def plans(self, title: str, **told: Any) -> str:
        """Its address."""
        evening = {"title": title, "day": TODAY, "starts": "19:30", "ends": "22:00", "theme": "water"}
        return self.fills_in("/meetings/new", **(evening | told))

    def holds(self, meeting: str, attended: int, **told: Any) -> None:
        self.fills_in(f"{meeting}/hold", attended=attended, **told)

    def writes_down(self, meeting: str, initiative: str, **answers: str) -> None:
        """What an initiative tells in the round."""
        self.fills_in(f"{meeting}/round/{code_of(initiative)}", **answers)

    def finds(self, path: str) -> list[str]:
        """The titles of a list."""
        return re.findall(r'<a class="cover" href="[^"]*">([^<]*)</a>', self.get(path))


class _FormReader(HTMLParser):
    """Reads what the first long form of a page holds."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, Any] = {}
        self._inside, self._area, self._select = False, "", ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        name = told.get("name", "")
        if tag == "form":
            self._inside = told.get("class") == "form"
        elif not self._inside:
            return
        elif tag == "textarea":
            self._area, self.held[name] = name, ""
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select and ("selected" in told or self._select not in self.held):
            self.held[self._select] = told["value"]  # a browser takes the first when none is selected
        elif tag == "input" and name and name != "csrf_token":
            if told.get("type") not in {"checkbox", "radio"}:
                self.held[name] = told.get("value", "")
            elif "checked" in told:
                self.held.setdefault(name, []).append(told.get("value", "y"))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False
        elif tag == "textarea":
            self.held[self._area] = self.held[self._area].removeprefix("\r\n").removeprefix("\n")
            self._area = ""
        elif tag == "select":
            self._select = ""

    def handle_data(self, data: str) -> None:
        if self._area:
            self.held[self._area] += data


def log_in(service: Service, email: str = "") -> Person:
    """Somebody of this service, on a day on which the mail is of no interest."""
    who = Person(service.url)
    who._cookies = service.visitor(email)._cookies
    return who


def code_of(address: str) -> str:
    """The code in `/initiatives/<code>`."""
    return address.partition("#")[0].rpartition("/")[2]


def linked(page: str, pattern: str) -> list[str]:
    """Where the links of a page lead to, as far as they look so."""
    return [found.replace("&amp;", "&") for found in re.findall(rf'href="({pattern})"', page)]


class Program:
    """A script that talks to the API of a service, with a token or without."""

    def __init__(self, service: Service, token: str = "") -> None:
        self._url, self._token = f"{service.url}/api/v1", token

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and what was answered."""
        headers = {"Connection": "close"} | ({"Authorization": f"Bearer {self._token}"} if self._token else {})
        answer = urllib3.request(method, self._url + path, json=body, headers=headers, retries=False, timeout=PATIENCE)
        return answer.status, json.loads(answer.data) if answer.data else None

    def get(self, path: str) -> Any:
        status, said = self.ask("GET", path)
        assert status == 200, f"{path}: {status} {said}"
        return said

    def list(self, path: str) -> list[Mapping[str, Any]]:
        return self.get(path)["items"]


def soon(look: Any, what: str) -> None:
    """Look again until it is so: what was told is on its way."""
    wait_until(look, what, PATIENCE)
