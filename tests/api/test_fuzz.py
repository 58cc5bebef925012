"""Schemathesis throws what the documents allow, and what they forbid, at both interfaces (no server, no network).

Whatever comes: no 5xx, and no answer that the document does not announce, in status, type, headers and schema.
"""

import random

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

load_all_checks()
KEPT = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
"""Not whether all that fits the schema is accepted: the circle's own rules (an order of phases, names in a text) refuse more."""
EXAMPLES = 8


def real(site):
    """Paths of things that are there, so that not every call ends at 404."""
    town = {} if "facilitator" in site.tokens else {"town": "almere"}
    found = {"town": ["almere", "dronten", "zwolle"], "code": ["les-0001", "tuin-0001", "avond-01"]}
    for path in ("initiatives", "meetings", "lessons"):
        found["code"] += [item["code"] for item in site.call("GET", f"/{path}", **town).get_json()["items"]]
    return found


def fill(site):
    """A node's own things."""
    if "facilitator" in site.tokens:
        site.call("POST", "/initiatives", "member", name="De Regenton", kind="community_garden", phase="idea")
        site.call("POST", "/meetings", "facilitator", title="Water", kind="circle", day="2015-06-01", starts="19:30")
        site.call("POST", "/lessons", "member", title="Vraag", body="Het duurt.", kind="do", theme="water")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "unfitting"])
def test_no_call_breaks_it_and_no_answer_is_a_surprise(site, mode):
    fill(site)
    paths = real(site)
    token = site.tokens.get("facilitator") or site.tokens["association"]
    checks = [check for check in CHECKS.get_all() if check.__name__ in KEPT]
    assert len(checks) == len(KEPT)
    chance = random.Random(1)
    seen: dict[int, int] = {}
    for found in schemathesis.openapi.from_wsgi("/api/v1/openapi.json", site.app).get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def throw(case):
            for name in case.path_parameters or {}:
                if chance.random() < 0.7:
                    case.path_parameters[name] = chance.choice(paths[name])
            headers = {"Authorization": f"Bearer {token}"} if chance.random() < 0.9 else {}
            answer = case.call(headers=headers)
            seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
            case.validate_response(answer, checks=checks)

        try:
            throw()
        except Unsatisfiable:  # nothing can be unfitting about an operation that takes nothing
            assert mode is GenerationMode.NEGATIVE
    print(seen)
    assert set(seen) & {200, 404} if mode is GenerationMode.POSITIVE else 422 in seen
