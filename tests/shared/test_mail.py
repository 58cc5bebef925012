"""Mail over real SMTP: tried until it has gone, once; and nothing of one header gets into another."""

import socket
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from sqlalchemy import select

from shared.db import Base, Database
from shared.mail import TRIES_MAX, Away, compose, mail, mail_address, post_office, queue_mail, send_waiting
from tests.services import certificate, free_port

NOW = datetime(2015, 6, 1, 12, tzinfo=UTC)
SENDER = "Kenniskring Almere <kring@almere.example>"


class Inbox:
    """What a mail server does with what it is given: keeps it, or answers what a test says."""

    def __init__(self):
        self.mails, self.recipients, self.answer = [], [], {}

    async def handle_RCPT(self, _server, _session, envelope, address, _options):  # noqa: N802  # aiosmtpd's name
        if address in self.answer:
            return self.answer[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802  # aiosmtpd's name
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        self.recipients.append(envelope.rcpt_tos)
        return "250 OK"


@pytest.fixture
def server():
    """A mail server on a free port."""
    controller = Controller(Inbox(), hostname="127.0.0.1", port=free_port())
    controller.start()
    yield controller
    controller.stop()


@pytest.fixture
def address(server):
    return f"smtp://127.0.0.1:{server.port}"


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'mail.db'}")
    Base.metadata.create_all(database.engine, [mail])
    yield database
    database.close()


def ask(database, to="daan@almere.example", subject="Uw link", text="Klik hier.", now=NOW):
    with database.transaction() as session:
        queue_mail(session, to=to, subject=subject, text=text, now=now)


def rows(database):
    with database.reading() as session:
        return session.execute(select(mail).order_by(mail.c.id)).all()


def test_a_mail_travels_in_utf_8_and_its_words_do_not_stay_in_the_database(database, server, address):
    text = "Beste Zoë,\n\nde bijeenkomst is om half acht. ’s Avonds koffie ☕, ƒ 0.\n.\nTot dan!\n"
    ask(database, subject="Vóór de oogst: één bijeenkomst 🌻", text=text)
    assert send_waiting(database, post_office(address), SENDER, NOW) == 1
    (got,) = server.handler.mails
    assert got["Subject"] == "Vóór de oogst: één bijeenkomst 🌻"
    assert got.get_content().replace("\r\n", "\n") == text
    assert (got["From"], got["To"]) == (SENDER, "daan@almere.example")
    (row,) = rows(database)
    assert (row.sent_at, row.text, row.trouble) == (NOW, "", "")


def test_what_was_sent_is_not_sent_again(database, server, address):
    ask(database)
    for minutes in range(3):
        send_waiting(database, post_office(address), SENDER, NOW + timedelta(minutes=minutes))
    assert len(server.handler.mails) == 1


def test_a_mail_waits_for_the_server_with_doubling_pauses_up_to_a_day(database, server, address):
    ask(database)
    away, moment, pauses = post_office(f"smtp://127.0.0.1:{free_port()}"), NOW, []
    for _ in range(14):
        assert send_waiting(database, away, SENDER, moment) == 0
        (row,) = rows(database)
        pauses.append((row.next_try_at - moment) / timedelta(minutes=1))
        assert send_waiting(database, away, SENDER, row.next_try_at - timedelta(seconds=1)) == 0
        assert rows(database)[0].tries == row.tries, "it waits until it is due"
        moment = row.next_try_at
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440, 1440, 1440]
    assert "Refused" in row.trouble
    assert send_waiting(database, post_office(address), SENDER, moment) == 1
    assert len(server.handler.mails) == 1


def test_a_mail_that_is_tried_in_vain_for_a_month_stays_in_the_table(database):
    ask(database)
    moment = NOW
    away = post_office(f"smtp://127.0.0.1:{free_port()}")
    for _ in range(TRIES_MAX + 2):
        send_waiting(database, away, SENDER, moment)
        moment = rows(database)[0].next_try_at
    (row,) = rows(database)
    assert (row.tries, row.sent_at, row.text) == (TRIES_MAX, None, "Klik hier.")
    assert moment - NOW > timedelta(days=28)


def test_one_refused_mail_does_not_hold_up_the_others(database, server, address):
    server.handler.answer["weg@almere.example"] = "550 no such mailbox"
    for to in ("weg@almere.example", "geen adres", "daan@almere.example"):
        ask(database, to=to)
    assert send_waiting(database, post_office(address), SENDER, NOW) == 1
    gone, no_address, daan = rows(database)
    assert "550" in gone.trouble
    assert (gone.sent_at, no_address.sent_at, daan.sent_at) == (None, None, NOW)
    assert no_address.trouble.startswith("ValueError")


def test_a_server_that_is_away_is_asked_once_and_not_for_each_mail(database):
    asked = []

    def away(message):
        asked.append(message)
        raise Away("nobody there")

    for number in range(5):
        ask(database, to=f"deelnemer{number}@almere.example")
    assert send_waiting(database, away, SENDER, NOW) == 0
    assert len(asked) == 1
    assert {row.next_try_at > NOW for row in rows(database)} == {True}


def test_a_crash_between_sending_and_recording_repeats_the_mail_once_with_the_same_message_id(database, server, address):
    class Died(BaseException):
        """The process is gone."""

    send = post_office(address)

    def send_and_die(message):
        send(message)
        raise Died

    ask(database)
    with pytest.raises(Died):
        send_waiting(database, send_and_die, SENDER, NOW)
    assert send_waiting(database, send, SENDER, NOW) == 0, "not at once: what cannot be recorded must not be sent at every start"
    for minutes in (1, 2, 5):
        send_waiting(database, send, SENDER, NOW + timedelta(minutes=minutes))
    first, second = server.handler.mails
    assert first["Message-ID"] == second["Message-ID"]
    assert bytes(first) == bytes(second)


def test_two_nodes_with_one_sender_never_use_the_same_message_id():
    letters = [
        compose(sender=SENDER, to=to, subject="Uw link", text=text, now=NOW, place="m1")
        for to, text in (("a@x.example", "1"), ("b@x.example", "1"), ("a@x.example", "2"))
    ]
    assert len({letter["Message-ID"] for letter in letters}) == 3


@pytest.mark.parametrize("break_", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\x00"])
def test_no_header_can_be_put_into_a_subject(database, server, address, break_):
    ask(database, subject=f"Hallo{break_}Bcc: iedereen@almere.example{break_}{break_}Andere tekst")
    assert send_waiting(database, post_office(address), SENDER, NOW) == 1
    (got,) = server.handler.mails
    assert got["Bcc"] is None
    assert got["Subject"] == "Hallo Bcc: iedereen@almere.example Andere tekst"
    assert got.get_content().strip() == "Klik hier."
    assert server.handler.recipients == [["daan@almere.example"]]


@pytest.mark.parametrize(
    "to",
    [
        "daan@almere.example\nBcc: iedereen@almere.example",
        "daan@almere.example\r\n\r\nAndere tekst",
        "daan@almere.example, iedereen@almere.example",
        "Daan <daan@almere.example>",
        "daan@almere.example\x00",
        "@",
        "",
        '"@almere.example',
    ],
)
def test_an_address_is_one_address_or_none(to):
    with pytest.raises(ValueError, match="no e-mail address"):
        compose(sender=SENDER, to=to, subject="Hallo", text="Dag", now=NOW, place="m1")


@pytest.mark.parametrize("sender", ["Kring\nBcc: x@y.example <kring@almere.example>", "Kring\x00 <kring@almere.example>"])
def test_no_header_can_be_put_into_the_senders_name(sender):
    with pytest.raises(ValueError, match="expected Name"):
        compose(sender=sender, to="daan@almere.example", subject="Hallo", text="Dag", now=NOW, place="m1")


def test_a_server_that_says_nothing_is_away(database, monkeypatch):
    monkeypatch.setattr("shared.mail.TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ask(database)
        assert send_waiting(database, post_office(f"smtp://127.0.0.1:{silent.getsockname()[1]}"), SENDER, NOW) == 0
    (row,) = rows(database)
    assert "Timeout" in row.trouble or "timed out" in row.trouble


# ---- Providers: TLS, a name and a password -----------------------------------------------------------------------------------

ELSEWHERE = "127.0.0.2"
"""A server on another machine, as far as `mail.py` sees."""


@pytest.fixture
def provider(tmp_path, monkeypatch):
    """Starts mail servers elsewhere, each with a certificate that this machine trusts, and "daan" with "p@ss/w" as who may send."""
    started = []

    def start(made=None, *, hostname: str = ELSEWHERE, trusted: bool = True, at_once: bool = False, **options):
        made = made or certificate(tmp_path, f"IP:{ELSEWHERE}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made, made.parent / "key.pem")
        if trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(made))
        inbox = Inbox()
        inbox.asked = []

        def authenticator(_server, session, _envelope, _how, told):
            inbox.asked.append((told.login, told.password, session.ssl is not None or at_once))
            known = (told.login, told.password) == (b"daan", b"p@ss/w")
            return AuthResult(success=known, handled=known)  # what is not handled is answered with 535

        how = {"ssl_context": context} if at_once else {"tls_context": context, "require_starttls": True}
        how |= {"authenticator": authenticator, "auth_required": not at_once, "auth_require_tls": not at_once}
        controller = Controller(inbox, hostname=hostname, port=free_port(), **(how | options))
        controller.start()
        started.append(controller)
        return controller

    yield start
    for controller in started:
        controller.stop()


def login_at(server, scheme="smtp", password="p%40ss%2Fw"):
    return f"{scheme}://daan:{password}@{ELSEWHERE}:{server.port}"


def refusal(database, address, caplog):
    """What one line of the log says, and the table too, when mail cannot leave; it waits."""
    ask(database)
    ask(database, to="fenna@almere.example")
    assert send_waiting(database, post_office(address), SENDER, NOW) == 0
    assert {row.next_try_at > NOW for row in rows(database)} == {True}, "they wait"
    (line,) = [line for line in caplog.records if line.name == "shared.mail"]
    assert (line.message, line.facts["waiting"]) == ("mail.server_away", 2)
    assert {row.trouble for row in rows(database)} == {line.facts["error"]}
    assert "\n" not in line.facts["error"]
    assert "p@ss" not in line.facts["error"]
    return line.facts["error"]


def test_a_provider_gets_name_and_password_after_starttls(database, provider):
    server = provider()
    ask(database, subject="Één link")
    assert send_waiting(database, post_office(login_at(server)), SENDER, NOW) == 1
    assert server.handler.asked == [(b"daan", b"p@ss/w", True)]
    assert server.handler.mails[0]["Subject"] == "Één link"


def test_smtps_speaks_tls_from_the_first_byte(database, provider):
    server = provider(at_once=True)
    ask(database)
    assert send_waiting(database, post_office(login_at(server, "smtps")), SENDER, NOW) == 1
    assert server.handler.asked == [(b"daan", b"p@ss/w", True)]
    assert len(server.handler.mails) == 1


def test_starttls_is_taken_where_it_is_offered_also_without_a_password(database, provider):
    server = provider(authenticator=None, auth_required=False)
    ask(database)
    assert send_waiting(database, post_office(f"smtp://{ELSEWHERE}:{server.port}"), SENDER, NOW) == 1
    assert len(server.handler.mails) == 1, "it takes nothing before STARTTLS"


@pytest.mark.parametrize(("scheme", "at_once"), [("smtp", False), ("smtps", True)])
def test_a_wrong_password_makes_mail_wait_and_is_named(database, provider, caplog, scheme, at_once):
    server = provider(at_once=at_once)
    said = refusal(database, login_at(server, scheme, "wrong"), caplog)
    assert said.startswith("the mail server does not take this name and password: 535 ")
    assert send_waiting(database, post_office(login_at(server, scheme)), SENDER, NOW + timedelta(minutes=2)) == 2


def test_a_password_is_not_sent_to_a_server_without_tls(database, provider, caplog):
    server = provider(tls_context=None, require_starttls=False, auth_required=False, auth_require_tls=False)
    said = refusal(database, login_at(server), caplog)
    assert said == "the mail server offers no TLS (STARTTLS), so it does not get the password"
    assert server.handler.asked == []


def test_a_server_on_this_machine_gets_it_all_the_same(database, provider):
    server = provider(tls_context=None, require_starttls=False, auth_required=False, auth_require_tls=False, hostname="127.0.0.1")
    ask(database)
    address = login_at(server).replace(ELSEWHERE, "127.0.0.1")
    assert send_waiting(database, post_office(address), SENDER, NOW) == 1
    assert server.handler.asked == [(b"daan", b"p@ss/w", False)]


def test_the_certificate_of_a_server_on_this_machine_is_not_asked_for(database, provider):
    server = provider(trusted=False, require_starttls=False, authenticator=None, auth_required=False, hostname="127.0.0.1")
    ask(database)
    assert send_waiting(database, post_office(f"smtp://127.0.0.1:{server.port}"), SENDER, NOW) == 1


@pytest.mark.parametrize(("scheme", "at_once"), [("smtp", False), ("smtps", True)])
def test_a_certificate_that_nobody_vouches_for_is_named(database, provider, caplog, scheme, at_once):
    server = provider(trusted=False, at_once=at_once)
    said = refusal(database, login_at(server, scheme), caplog)
    assert said == "the mail server's certificate is not trusted: self-signed certificate"
    assert server.handler.asked == []


@pytest.mark.parametrize(("scheme", "at_once"), [("smtp", False), ("smtps", True)])
def test_an_expired_certificate_is_named(database, provider, caplog, tmp_path, scheme, at_once):
    server = provider(expired(tmp_path), at_once=at_once)
    said = refusal(database, login_at(server, scheme), caplog)
    assert said == "the mail server's certificate is not trusted: certificate has expired"
    assert server.handler.asked == []


def test_somebody_elses_certificate_is_named(database, provider, caplog, tmp_path):
    server = provider(certificate(tmp_path, "DNS:elsewhere.example"))
    said = refusal(database, login_at(server), caplog)
    assert "not trusted" in said
    assert f"not valid for '{ELSEWHERE}'" in said


def test_a_port_where_nobody_logs_in_is_named(database, server, caplog):
    said = refusal(database, f"smtp://daan:secret@127.0.0.1:{server.port}", caplog)
    assert said == "the mail server lets nobody log in at this port (it offers no AUTH)"


def test_a_server_that_wants_another_way_of_logging_in_is_named(database, provider, caplog):
    server = provider(auth_exclude_mechanism=["LOGIN", "PLAIN"])
    assert refusal(database, login_at(server), caplog) == "the mail server wants another way of logging in than name and password"


def expired(folder):
    """A certificate for ELSEWHERE that was good for a month, long ago."""
    (folder / "index.txt").write_text("")
    (folder / "ca.conf").write_text(
        f"[ca]\ndefault_ca=a\n[a]\ndatabase={folder}/index.txt\nnew_certs_dir={folder}\nrand_serial=yes\ndefault_md=sha256\n"
        f"policy=p\nx509_extensions=x\n[p]\ncommonName=supplied\n[x]\nsubjectAltName=IP:{ELSEWHERE}\n"
    )
    certificate(folder, f"IP:{ELSEWHERE}")
    ask_for = ["openssl", "req", "-new", "-key", folder / "key.pem", "-subj", "/CN=test", "-out", folder / "csr.pem"]
    give = ["openssl", "ca", "-batch", "-selfsign", "-config", folder / "ca.conf", "-keyfile", folder / "key.pem", "-notext"]
    month = ["-startdate", "20150101000000Z", "-enddate", "20150201000000Z"]
    for command in (ask_for, [*give, *month, "-in", folder / "csr.pem", "-out", folder / "cert.pem"]):
        subprocess.run(command, check=True, capture_output=True)
    return folder / "cert.pem"


@pytest.mark.parametrize(
    ("address", "port"),
    [("smtp://mail.example", 25), ("smtp://daan:x@mail.example", 587), ("smtps://daan:x@mail.example", 465)],
)
def test_the_usual_ports_need_not_be_named(monkeypatch, address, port):
    asked = []

    def connect(where, *_args, **_options):
        asked.append(where)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(Away):
        post_office(address)(compose(sender=SENDER, to="a@b.example", subject="x", text="x", now=NOW, place="m1"))
    assert asked == [("mail.example", port)]


@pytest.mark.parametrize(
    "address",
    [
        "smtp://daan:pa/ss@mail.example",
        "smtp://daan:12#34@mail.example",
        "smtp://daan:12?34@mail.example",
        "smtp://daan@mail.example",
        "smtp://:secret@mail.example",
        "smtp://daan:geh%C3%A9im@mail.example",
        "smtp://daan:geheim@",
        "smtp://mail.example:0",
        "smtp://mail.example:post",
        "smtp://mail.example/inbox",
        "mail.example",
        "folder:",
    ],
)
def test_an_address_by_which_no_mail_can_leave_is_refused_at_the_start(address):
    with pytest.raises(ValueError, match=r"expected|in a password|without accents"):
        mail_address(address)


def test_the_demos_post_office_keeps_each_mail_once_and_for_its_owner_only(database, tmp_path):
    folder = tmp_path / "post"
    ask(database, subject="Één link")
    assert send_waiting(database, post_office(f"folder:{folder}"), SENDER, NOW) == 1
    (file,) = folder.iterdir()
    assert file.suffix == ".eml"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert message_from_bytes(file.read_bytes(), policy=policy.default)["Subject"] == "Één link"
