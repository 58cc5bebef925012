"""How often a guest may come, and what is answered to who comes oftener."""

import pytest

from shared import limits
from shared.limits import DOORS, GUESTS_MAX, Door, Limits, client_of
from tests.security.conftest import form_token

SMALL = Door("small", 3, 10, "three at once, then one every ten seconds")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_its_turns_and_fills_up_again():
    clock = Clock()
    bucket = Limits(clock=clock)
    assert [bucket.wait(SMALL, "a") for _ in range(3)] == [0, 0, 0]
    assert bucket.wait(SMALL, "a") == 10
    assert bucket.wait(SMALL, "b") == 0, "another guest has a bucket of their own"
    clock.now += 9
    assert bucket.wait(SMALL, "a") == 1
    clock.now += 1
    assert bucket.wait(SMALL, "a") == 0
    assert bucket.wait(SMALL, "a") == 10
    clock.now += 1000
    assert [bucket.wait(SMALL, "a") for _ in range(4)] == [0, 0, 0, 10]


def test_all_numbers_are_multiplied_and_nothing_is_counted_at_zero():
    twice, off = Limits(2, Clock()), Limits(0, Clock())
    assert [twice.wait(SMALL, "a") for _ in range(7)] == [0] * 6 + [5]
    assert not any(off.wait(SMALL, "a") for _ in range(1000))


def test_a_flood_of_made_up_guests_does_not_fill_the_memory():
    bucket = Limits(clock=Clock())
    for number in range(GUESTS_MAX + 500):
        bucket.wait(SMALL, str(number))
    assert len(bucket._full_at) == GUESTS_MAX


@pytest.mark.parametrize(
    ("address", "guest"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("", ""),
        (None, ""),
    ],
)
def test_a_household_is_one_guest(address, guest):
    assert client_of(address) == guest


def test_every_number_is_written_down():
    from pathlib import Path

    note = (Path(__file__).parents[2] / "deploy" / "security.md").read_text()
    for door in DOORS:
        assert f"`{door.name}`" in note
        assert f"{door.most:,}" in note


# ---- At the doors ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def narrow(monkeypatch):
    """Doors that let two in."""
    for door in DOORS:
        name = next(key for key, value in vars(limits).items() if value is door)
        monkeypatch.setattr(limits, name, Door(door.name, 2, 60, door.meaning))


def statuses(call, times=4):
    answers = [call() for _ in range(times)]
    return [answer.status_code for answer in answers], answers[-1]


def test_login_mails_are_counted_by_address(node, narrow):
    guest = node.guest()
    token = form_token(guest.get("/login"))
    seen, last = statuses(lambda: guest.post("/login", data={"csrf_token": token, "email": "nobody@example.org"}))
    assert seen == [200, 200, 429, 429]
    assert last.headers["Retry-After"] == "60"
    assert "Wait a minute" in last.text
    assert "<html" in last.text
    other = guest.post("/login", data={"csrf_token": token, "email": "x@example.org"}, environ_base={"REMOTE_ADDR": "203.0.113.9"})
    assert other.status_code == 200


def test_links_forms_and_the_api_are_counted(node, narrow, people):
    guest = node.guest(people["member"])
    assert statuses(lambda: guest.get("/login/link/none"))[0] == [410, 410, 429, 429]
    assert statuses(lambda: guest.post("/login/leave"))[0] == [400, 400, 429, 429]
    seen, last = statuses(lambda: guest.get("/api/v1/lessons"))
    assert seen == [200, 200, 429, 429]
    assert last.mimetype == "application/problem+json"
    assert last.get_json()["status"] == 429
    assert last.headers["Retry-After"] == "60"
    assert statuses(lambda: guest.get("/lessons"))[0] == [200] * 4, "reading pages is not counted"


def test_a_token_is_counted_wherever_it_comes_from(node, narrow):
    calls = iter(range(10))

    def call():
        address = {"REMOTE_ADDR": f"203.0.113.{next(calls)}"}
        return node.guest().get("/api/v1/lessons", headers={"Authorization": "Bearer tk_x"}, environ_base=address)

    assert statuses(call)[0] == [401, 401, 429, 429]


def test_joining_is_counted_by_address_and_by_code(hub, narrow):
    guest, body = hub.guest(), {"code": "AAAAA-BBBBB", "public_key": "x", "proof": "y"}
    assert statuses(lambda: guest.post("/federation/v1/join", json=body))[0] == [403, 403, 429, 429]
    calls = iter(range(10))

    def elsewhere():
        address = {"REMOTE_ADDR": f"203.0.113.{next(calls)}"}
        return guest.post("/federation/v1/join", json=body | {"code": "CCCCC"}, environ_base=address)

    assert statuses(elsewhere)[0] == [403, 403, 429, 429]


def test_calls_are_counted_before_any_signature_is_looked_at(hub, narrow):
    guest = hub.guest()
    assert statuses(lambda: guest.post("/federation/v1/heads", data=b"{}"))[0] == [401, 401, 429, 429]


def test_a_stranger_cannot_use_up_a_towns_turns(hub, narrow):
    calls = iter(range(10))

    def call():
        address = {"REMOTE_ADDR": f"203.0.113.{next(calls)}"}
        return hub.guest().get("/federation/v1/feed?town=almere&after=0", environ_base=address)

    assert statuses(call)[0] == [401] * 4


def test_limits_can_be_switched_off(build, narrow):
    guest = build(limits=0.0).guest()
    assert statuses(lambda: guest.get("/login/link/none"), 20)[0] == [410] * 20
