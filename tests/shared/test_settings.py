"""Settings: read once, and what cannot be used is said in one line."""

from dataclasses import fields

import pytest

from services.hub import config as hub_config
from services.town_node import config as node_config
from shared.settings import BadSetting, read_settings, settings_table

CONFIGS = [hub_config, node_config]


def read(config, **given):
    environ = {f"{config.PREFIX}_STATE": "/somewhere"} | {f"{config.PREFIX}_{name}": text for name, text in given.items()}
    return read_settings(config.Settings, environ, prefix=config.PREFIX)


@pytest.mark.parametrize("config", CONFIGS)
def test_only_the_state_folder_must_be_set(config):
    settings = read(config)
    assert str(settings.state) == "/somewhere"
    assert settings.database_url.startswith("sqlite:////somewhere/")
    assert settings.mail_url == "folder:/somewhere/mail"
    with pytest.raises(BadSetting, match=f"{config.PREFIX}_STATE is not set"):
        read_settings(config.Settings, {}, prefix=config.PREFIX)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("BUS", "redis://localhost"),
        ("BUS", "amqp://"),
        ("BUS", "amqp://host:port"),
        ("BUS", "rabbit"),
        ("BUS", "sqlite://"),
        ("DATABASE", "mysql://localhost/x"),
        ("DATABASE", "sqlite://"),
        ("DATABASE", "hub.db"),
        ("URL", "almere.example"),
        ("URL", "https://"),
        ("URL", "http://[::1"),
        ("MAIL", "mail.example"),
        ("MAIL", "smtp://"),
        ("MAIL", "smtp://host:port"),
        ("MAIL", "folder:"),
        ("MAIL_FROM", "the circle"),
        ("MAIL_FROM", "Kring <kring@example.org>\nBcc: everybody@example.org"),
        ("DEMO", "perhaps"),
        ("LOG_LEVEL", "LOUD"),
        ("FAILPOINT", "relay.published:0"),
        ("STATIE", "/elsewhere"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_in_one_line(config, name, text):
    with pytest.raises(BadSetting, match=f"{config.PREFIX}_{name}") as refused:
        read(config, **{name: text})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("BUS", "amqps://almere:secret@bus.example:5671/tuin", "amqps://almere:secret@bus.example:5671/tuin"),
        ("BUS", "sqlite:////srv/our bus.db", "sqlite:////srv/our bus.db"),
        ("DATABASE", "postgresql+psycopg://tuin@db/tuin", "postgresql+psycopg://tuin@db/tuin"),
        ("URL", "https://almere.example/", "https://almere.example"),
        ("MAIL", "smtps://user:p%40ss@mail.example", "smtps://user:p%40ss@mail.example"),
        ("MAIL_FROM", "Kring Tuinën <kring@example.org>", "Kring Tuinën <kring@example.org>"),
        ("LOG_LEVEL", "warning", "WARNING"),
        ("DEMO", "On", True),
        ("DEMO", "", False),
    ],
)
def test_a_good_value_is_read(name, text, value):
    assert getattr(read(node_config, **{name: text}), name.lower()) == value


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon", "1e9"])
def test_a_period_is_a_number_of_seconds(text):
    with pytest.raises(BadSetting, match="seconds above zero"):
        read(node_config, HEAD_PERIOD=text)


@pytest.mark.parametrize("who", ["almere:geheim", "almere:geh/geheim", "almere@mail.example:geheim", "almere:g geheim"])
def test_a_password_is_not_repeated_in_the_complaint(who):
    with pytest.raises(BadSetting) as refused:
        read(node_config, BUS=f"amqq://{who}@bus.example")
    assert "geheim" not in str(refused.value)
    assert "bus.example" in str(refused.value)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_table_has_a_line_for_each_setting(config):
    table = settings_table(config.Settings, config.PREFIX)
    for one in fields(config.Settings):
        assert f"| `{config.PREFIX}_{one.name.upper()}` |" in table
