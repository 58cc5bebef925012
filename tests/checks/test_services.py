"""The real parts that other tests lean on do what they promise."""

import psycopg
import pytest
from kombu import Connection
from sqlalchemy import create_engine, make_url, text


def test_a_fresh_database_is_empty_and_one_of_many(postgres):
    first, second = postgres.fresh_database(), postgres.fresh_database()
    assert first != second
    with psycopg.connect(first) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        connection.execute("CREATE TABLE plot (name text)")
    copy = postgres.fresh_database(template=make_url(first).database)
    with psycopg.connect(copy) as connection:
        assert connection.execute("SELECT count(*) FROM plot").fetchone() == (0,)


def test_sqlalchemy_takes_the_address(postgres):
    engine = create_engine(postgres.fresh_database())
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 'é' COLLATE \"nl-x-icu\" < 'f'"))
    engine.dispose()


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_a_confirmed_message_outlives_rabbitmq(rabbit, ending):
    with Connection(rabbit.url, transport_options={"confirm_publish": True}) as connection:
        connection.SimpleQueue(f"survives-{ending}").put("still here")
    getattr(rabbit, ending)()
    with Connection(rabbit.url, connect_timeout=1) as connection, pytest.raises(OSError, match="refused"):
        connection.connect()
    rabbit.start()
    with Connection(rabbit.url) as connection:
        queue = connection.SimpleQueue(f"survives-{ending}")
        message = queue.get(timeout=10)
        assert message.payload == "still here"
        message.ack()


def test_rabbitmqctl_reaches_this_node(rabbit):
    assert "guest" in rabbit.rabbitmqctl("list_users")


def test_the_browser_opens_a_page_as_wide_as_a_phone(new_page):
    page = new_page(width=390, locale="nl-NL", color_scheme="dark")
    page.goto("data:text/html,<h1>Tuin</h1>")
    assert page.locator("h1").inner_text() == "Tuin"
    seen = page.evaluate("[innerWidth, navigator.language, matchMedia('(prefers-color-scheme: dark)').matches]")
    assert seen == [390, "nl-NL", True]


def test_the_browser_reaches_nothing_beyond_this_computer(new_page):
    from playwright.sync_api import Error

    page = new_page()
    with pytest.raises(Error, match="ERR_NAME_NOT_RESOLVED"):
        page.goto("http://tuinkoepel.example/")
