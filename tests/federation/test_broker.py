"""RabbitMQ as the association runs it: `deploy/rabbitmq.conf`, set up as the runbook says, TLS, a user for each town, partitions.

Every part is a real process; the towns speak to the broker by TLS, as their own users.
"""

import re
import shlex
import threading
from collections import Counter
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import urllib3
from amqp.exceptions import AccessRefused, NotAllowed
from kombu import Connection
from sqlalchemy import func, select, update

from services.hub.towns.broker import LIMITS
from services.hub.towns.joining import Town, readmit_town
from services.town_node.circle.membership import _call_hub, membership
from shared import bus as bus_module
from shared.bus import TROUBLE, Publisher
from shared.envelope import pack
from shared.eventlog import append, read_head, read_log
from shared.events import LessonShared
from shared.inbox import inbox_cursor
from shared.keys import KeyPair
from shared.quarantine import quarantine_count
from shared.routes import EXCHANGE, INGEST, ingest_queues, key_of, partition_of, queue_of
from tests.processes import World, utc_now
from tests.services import Rabbit, certificate, clear, free_port, fresh_folder, wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"
RUNBOOK = (DEPLOY / "rabbitmq.md").read_text()


class Broker:
    """RabbitMQ, set up by the words of the runbook; the password is "secret" everywhere."""

    def __init__(self, folder: Path) -> None:
        self.certificate = certificate(folder, "IP:127.0.0.1")
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755)  # for the user rabbitmq
        self.tls = free_port()
        conf = (DEPLOY / "rabbitmq.conf").read_text().replace("/etc/rabbitmq/tls/chain.pem", "/etc/rabbitmq/tls/cert.pem")
        conf = conf.replace("/etc/rabbitmq/tls", str(folder)).replace("ssl.default = 5671", f"ssl.default = 127.0.0.1:{self.tls}")
        conf = re.sub(r"^(listeners\.tcp|management\.).*\n", "", conf, flags=re.MULTILINE)  # tests have ports of their own
        self.server = Rabbit(managed=True, conf=conf)
        for line in re.findall(r"^ +(rabbitmqctl (?:add_user|set_).*)$", RUNBOOK, re.MULTILINE):
            self.server.rabbitmqctl(*shlex.split(line.replace("PASSWORD", "secret"), comments=True)[1:])
        self.operator = self.server.url
        self.bus = f"amqp://hub:secret@127.0.0.1:{self.server.port}/"
        self.town_bus = f"amqps://127.0.0.1:{self.tls}/"
        self.api = f"http://keeper:secret@127.0.0.1:{urlsplit(self.server.api).port}"

    def ask(self, method: str, path: str, who: str = "guest:guest"):
        """The management's answer."""
        url = f"http://127.0.0.1:{urlsplit(self.api).port}/api/{path}"
        return urllib3.request(method, url, headers=urllib3.util.make_headers(basic_auth=who), timeout=10, retries=False)

    def users(self) -> set[str]:
        """Who has one, besides those of the runbook."""
        return {user["name"] for user in self.ask("GET", "users").json()} - {"guest", "hub", "keeper"}

    def queues(self) -> set[str]:
        """What there is to be filled."""
        return {queue["name"] for queue in self.ask("GET", "queues/%2F").json()}

    @contextmanager
    def channel(self, address: str):
        """A channel of somebody, opened as our own code does."""
        with bus_module._connection(address) as connection:
            yield connection.default_channel

    def clean(self) -> None:
        """Nothing is left of an earlier world."""
        with Connection(self.operator) as connection:
            for queue in self.queues():
                connection.default_channel.queue_delete(queue)
        for user in self.users():
            self.ask("DELETE", f"users/{user}")


@pytest.fixture(scope="module")
def broker():
    folder = fresh_folder()
    made = Broker(folder)
    yield made
    made.server.end()
    clear(folder)


@pytest.fixture
def worlds(broker, monkeypatch):
    """Makes worlds around the broker, with settings of the hub; they end with the test."""
    monkeypatch.setenv("SSL_CERT_FILE", str(broker.certificate))  # an authority that everybody here knows
    broker.clean()
    made = []

    def make(*towns: str, **settings: str) -> World:
        told = {"BUS": broker.bus, "TOWN_BUS": broker.town_bus} | settings
        made.append(World(towns, hub_settings=told))
        return made[-1]

    yield make
    for world in made:
        world.end()


def address_of(town) -> str:
    """The bus address that it was told."""
    with town.database.reading() as session:
        return membership(session).bus_url


def share(town, count: int, name: str = "Les") -> None:
    """Lessons, straight into its log."""
    for number in range(count):
        told = {"title": f"{name} {number}", "body": "Zo ging het.", "kind": "tip", "theme": "water", "phase": "plan"}
        with town.database.transaction() as session:
            append(session, LessonShared(lesson=f"{town.name[:4]}{name[:4]}{number:04}", shared_on=date(2015, 6, 1), **told))


def may_publish(address: str, town: str) -> bool:
    """Whether whoever has this address may publish as that town."""
    publisher = Publisher(address, town)
    try:
        publisher.publish(b"may I?")
    except TROUBLE:
        return False
    else:
        return True
    finally:
        publisher.close()


# ---- A town's own user ------------------------------------------------------------------------------------------------------


def test_a_town_publishes_under_its_own_key_by_tls_and_may_do_nothing_else(broker, worlds):
    world = worlds("almere", BROKER_API=broker.api)
    world.start()
    almere = world.towns["almere"]
    almere.visitor().share("Vraag vroeg om water")
    world.settle()
    address = address_of(almere)
    assert urlsplit(address).username == "almere"
    assert broker.users() == {"almere"}
    assert may_publish(address, "almere")

    for slug in ("dronten", "almer", "almere2", "alm-re", "koepel"):
        with pytest.raises(AccessRefused, match="refused"):
            Publisher(address, slug).publish(b"in the name of another")
    for exchange, key in (("", INGEST), ("amq.topic", key_of("almere")), ("amq.fanout", ""), ("amq.direct", INGEST)):
        with pytest.raises(AccessRefused), broker.channel(address) as channel:
            channel.basic_publish_confirm(channel.prepare_message(b"past the exchange"), exchange, key, confirm_timeout=10)
    for act in FORBIDDEN:
        with pytest.raises(AccessRefused), broker.channel(address) as channel:
            act(channel)
    password = urlsplit(address).password
    assert broker.ask("GET", "overview", f"almere:{password}").status == 401, "the management is not for towns"
    assert may_publish(address, "almere"), "nothing was changed by that"
    world.settle()


def test_what_a_town_copies_to_anothers_key_is_taken_in_as_its_own_and_once(broker, worlds):
    """RabbitMQ looks at a message's key, not at those in its CC header. That lets a copy onto another queue, and no further."""
    world = worlds("almere", "dronten", BROKER_API=broker.api, INGEST_PARTITIONS="2")
    world.start()
    almere, dronten = world.towns.values()
    for town in (almere, dronten):
        share(town, 20)
    world.settle()
    before = world.national_log("dronten")
    almere.stop("worker")
    share(almere, 5, "Kopie")
    copies = [packed(almere), packed(almere).replace(b'"town":"almere"', b'"town":"dronten"', 1)]
    with broker.channel(address_of(almere)) as channel:
        for raw in copies:
            message = channel.prepare_message(raw, headers={"CC": [key_of("dronten")]}, properties={"delivery_mode": 2})
            channel.basic_publish_confirm(message, EXCHANGE, key_of("almere"), confirm_timeout=10)
    wait_until(lambda: world.national_log("almere") == almere.log(), "Almere's five, by whichever queue")
    almere.start("worker")
    share(dronten, 5, "Gewoon")
    world.settle()
    assert world.national_log("almere") == almere.log()
    assert world.national_log("dronten") == dronten.log()
    assert world.national_log("dronten")[: len(before)] == before
    with world.hub.database.reading() as session:
        frozen = select(inbox_cursor.c.town).where(inbox_cursor.c.frozen_at.is_not(None))
        assert session.scalars(frozen).all() == []
        assert session.scalar(select(func.sum(quarantine_count.c.times))) == 2, "the false one came by both queues"


def packed(town) -> bytes:
    """Its whole log in one message, as its relay would send it."""
    with town.database.reading() as session:
        return pack(read_log(session, read_head(session).epoch, 0, 10_000))[0]


FORBIDDEN = [
    lambda channel: channel.exchange_declare("mine", "topic"),
    lambda channel: channel.exchange_delete(EXCHANGE),
    lambda channel: channel.exchange_bind("amq.topic", EXCHANGE, "#"),
    lambda channel: channel.queue_declare("mine"),
    lambda channel: channel.queue_declare(INGEST, durable=True, arguments={"x-queue-type": "quorum"}),
    lambda channel: channel.queue_declare(exclusive=True),
    lambda channel: channel.queue_bind(INGEST, EXCHANGE, "town.#"),
    lambda channel: channel.queue_unbind(INGEST, EXCHANGE, "town.*.log"),
    lambda channel: channel.queue_purge(INGEST),
    lambda channel: channel.queue_delete(INGEST),
    lambda channel: channel.queue_delete("hub.dead"),
    lambda channel: channel.basic_get(INGEST),
    lambda channel: channel.basic_get("hub.dead"),
    lambda channel: channel.basic_consume(INGEST),
]
"""What a town's user might try on a channel."""


def test_a_town_holds_few_connections_and_channels(broker, worlds):
    world = worlds("almere", BROKER_API=broker.api)
    world.start(kinds=())
    address = address_of(world.towns["almere"])
    wait_until(lambda: may_publish(address, "almere"), "the user")
    opened = [bus_module._connection(address) for _ in range(LIMITS["max-connections"])]
    try:
        wait_until(lambda: all(can_connect(one) for one in opened), "the end of the connections before")
        with pytest.raises((NotAllowed, OSError)):
            bus_module._connection(address).connect()
        with pytest.raises(NotAllowed):
            [opened[0].connection.channel() for _ in range(LIMITS["max-channels"] + 1)]
    finally:
        for one in opened:
            one.collect()


def can_connect(connection: Connection) -> bool:
    try:
        connection.connect()
    except TROUBLE:
        return False
    return True


def test_who_has_left_or_joined_anew_is_shut_out_with_the_old_password(broker, worlds):
    world = worlds("almere", "dronten", BROKER_API=broker.api)
    world.start(kinds=())
    almere, dronten = (address_of(town) for town in world.towns.values())
    open_line = Publisher(almere, "almere")
    wait_until(lambda: can_publish(open_line) and may_publish(dronten, "dronten"), "both users")
    with world.hub.database.transaction() as session:
        session.execute(update(Town).where(Town.slug == "dronten").values(left_at=utc_now()))
        code = readmit_town(session, "almere", utc_now())
    wait_until(lambda: not may_publish(dronten, "dronten"), "the end of Dronten's user")
    assert can_publish(open_line), "the old key counts until the town has joined anew"
    again = _call_hub(world.hub.url, code, KeyPair.of(b"n" * 32))["bus"]
    assert again != almere
    wait_until(lambda: may_publish(again, "almere"), "the new user")
    wait_until(lambda: not can_publish(open_line), "the end of the connection that the old node held")
    assert not may_publish(almere, "almere")
    assert broker.users() == {"almere"}
    open_line.close()


def can_publish(publisher: Publisher) -> bool:
    try:
        publisher.publish(b"still here")
    except TROUBLE:
        return False
    return True


def test_a_user_that_was_cut_off_lost_or_asked_for_twice_is_made_as_it_was_told(broker, worlds):
    world = worlds(BROKER_API=broker.api)
    hub = world.hub
    hub.start("web")
    hub.start("worker", failpoint="join.brokered")
    hub.wait_until_ready("web")
    key, code = KeyPair.of(b"k" * 32), hub.code_for("almere")
    told = _call_hub(hub.url, code, key)["bus"]
    hub.wait_for_death("worker")  # the user is made, and nobody knows
    assert _call_hub(hub.url, code, key)["bus"] == told, "an answer that was lost is given again"
    hub.start("worker")
    wait_until(lambda: may_publish(told, "almere"), "the same user")
    wait_until(lambda: "broker.made" in hub.said("worker"), "the note that it is there")
    broker.clean()  # the broker lost everything
    assert not may_publish(told, "almere")
    hub.stop("worker")
    hub.start("worker")
    assert hub.command("broker", "users").returncode == 0
    wait_until(lambda: may_publish(told, "almere"), "the user, with the password that it was told")


def test_a_broker_that_is_away_makes_no_town_wait_for_its_answer(broker, worlds):
    world = worlds("almere", BROKER_API=f"http://keeper:secret@127.0.0.1:{free_port()}")
    world.start()
    almere = world.towns["almere"]
    share(almere, 1)
    wait_until(lambda: "broker.away" in world.hub.said("worker"), "a line for the operator")
    assert "secret" not in world.hub.said("worker")
    assert not almere.is_sent(), "its relay is refused, and waits"
    world.hub.stop("worker")
    world.hub.environment["TUINKOEPEL_HUB_BROKER_API"] = broker.api
    world.hub.start("worker")
    world.settle()


class HalfAManagement(BaseHTTPRequestHandler):
    """A management that takes users away, and breaks whenever it is to make one."""

    def do_DELETE(self):
        given = {"Authorization": self.headers["Authorization"]}
        answer = urllib3.request("DELETE", self.server.whole + self.path, headers=given, timeout=10, retries=False)
        self.send_response(answer.status)
        self.end_headers()

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(500)
        self.end_headers()
        self.wfile.write(b"no quorum")

    def log_message(self, *_said):
        pass


@pytest.fixture
def half(broker):
    """Its address, with the name and the password in it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), HalfAManagement)
    server.whole = f"http://127.0.0.1:{urlsplit(broker.api).port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://keeper:secret@127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def comes_in_anew(world) -> str:
    """Almere shows a code to join anew, with another key; the bus address that it is told at once."""
    with world.hub.database.transaction() as session:
        code = readmit_town(session, "almere", utc_now())
    return _call_hub(world.hub.url, code, KeyPair.of(b"n" * 32))["bus"]


def test_a_password_that_is_changed_while_the_management_is_away_or_breaks_is_changed_when_it_is_back(broker, worlds, half):
    """Away: the old password works on. Half made: nobody publishes, rather than somebody too much. Back: the new one only."""
    world = worlds("almere", BROKER_API=broker.api)
    world.start(kinds=())
    hub, old = world.hub, address_of(world.towns["almere"])
    wait_until(lambda: may_publish(old, "almere"), "the first user")
    wait_until(lambda: "broker.made" in hub.said("worker"), "the note that it is there")

    def goes_on_with(api: str) -> None:
        hub.stop("worker")
        hub.environment["TUINKOEPEL_HUB_BROKER_API"] = api
        hub.start("worker")

    goes_on_with(f"http://keeper:secret@127.0.0.1:{free_port()}")
    told = comes_in_anew(world)
    assert told != old
    wait_until(lambda: "broker.away" in hub.said("worker"), "a line for the operator")
    assert (may_publish(old, "almere"), may_publish(told, "almere")) == (True, False)

    goes_on_with(half)
    wait_until(lambda: "no quorum" in hub.said("worker"), "what the management answered")
    assert (may_publish(old, "almere"), may_publish(told, "almere")) == (False, False)
    assert "secret" not in hub.said("worker")

    goes_on_with(broker.api)
    wait_until(lambda: may_publish(told, "almere"), "the password that the town was told while there was trouble")
    assert not may_publish(old, "almere")
    assert broker.users() == {"almere"}


def test_a_password_that_is_changed_by_definitions_counts_once_the_former_user_is_gone(broker, worlds):
    """As the runbook says of a town that lost its key: without the management, by hand."""
    world = worlds("almere")
    world.start(kinds=())
    old, file = address_of(world.towns["almere"]), broker.certificate.parent / "definitions.json"

    def take_over() -> None:
        file.write_text(world.hub.command("broker", "definitions").stdout)
        broker.server.rabbitmqctl("import_definitions", str(file))

    take_over()
    line = Publisher(old, "almere")
    assert can_publish(line)
    told = comes_in_anew(world)
    assert (may_publish(old, "almere"), may_publish(told, "almere")) == (True, False)
    (remove,) = re.findall(r"first `rabbitmqctl (delete_user almere)`", RUNBOOK)
    broker.server.rabbitmqctl(*remove.split())
    wait_until(lambda: not can_publish(line), "the end of the connection that the old node held")
    line.close()
    take_over()
    assert (may_publish(old, "almere"), may_publish(told, "almere")) == (False, True)


def test_a_fresh_broker_is_filled_by_definitions_and_everything_works_with_it(broker, worlds):
    fresh = f"{broker.bus}garden"
    world = worlds(BUS=fresh, TOWN_BUS=f"{broker.town_bus}garden")
    hub, almere = world.hub, world.new_town("almere")
    hub.start("web")
    hub.wait_until_ready("web")
    almere.join(hub)
    address = address_of(almere)
    done = hub.command("broker", "definitions")
    assert done.stdout == hub.command("broker", "definitions").stdout, "it is the same until a town comes or goes"
    assert urlsplit(address).password not in done.stdout
    (broker.certificate.parent / "definitions.json").write_text(done.stdout)
    broker.server.rabbitmqctl("import_definitions", str(broker.certificate.parent / "definitions.json"))
    assert may_publish(address, "almere"), "before any worker has declared anything"
    with pytest.raises(AccessRefused):
        Publisher(address, "dronten").publish(b"in the name of another")
    assert broker.ask("GET", "user-limits/almere").json()[0]["value"] == LIMITS
    rights = re.search(r"set_permissions hub (.*)", RUNBOOK)[1]
    broker.server.rabbitmqctl("set_permissions", "-p", "garden", "hub", *shlex.split(rights))
    hub.start("worker")
    for kind in ("web", "worker"):
        almere.start(kind)
    hub.wait_until_ready("worker")
    almere.wait_until_ready("web")
    almere.visitor().share("Vraag vroeg om water")
    world.settle()
    assert broker.ask("DELETE", "vhosts/garden").status == 204


# ---- Partitions -------------------------------------------------------------------------------------------------------------


def test_a_town_is_always_taken_in_by_the_same_partition():
    slugs = [f"stad-{number}" for number in range(400)]
    assert [partition_of(slug, 2) for slug in ("almere", "dronten", "zwolle")] == [0, 1, 0], "for ever"
    for partitions in (2, 3, 9):
        queues = ingest_queues(partitions, slugs)
        assert sorted(key for keys in queues.values() for key in keys) == sorted(key_of(slug) for slug in slugs)
        assert all(key_of(slug) in queues[queue_of(partition_of(slug, partitions), partitions)] for slug in slugs)
        assert min(Counter({queue: len(keys) for queue, keys in queues.items()}).values()) > 400 / partitions / 2
    assert ingest_queues(1, slugs) == {INGEST: ["town.*.log"]}


@pytest.fixture(scope="module")
def settled(broker):
    """Two towns in two partitions; no worker of the hub runs."""
    broker.clean()
    with World(("almere", "dronten"), hub_settings={"BUS": broker.bus, "INGEST_PARTITIONS": "2"}) as world:
        world.start()
        world.settle()
        world.hub.stop("worker")
        yield world


@pytest.fixture
def two(settled):
    yield settled
    for kind in ("worker", *PARTS):
        settled.hub.stop(kind)


PARTS = ["worker --partition 0", "worker --partition 1"]


def held(world, slug: str) -> int:
    return len(world.national_log(slug))


def test_two_workers_take_in_two_towns_in_order_and_each_event_once(broker, two):
    hub, (almere, dronten) = two.hub, two.towns.values()
    for part in PARTS:
        hub.start(part)
    for town in (almere, dronten):
        share(town, 100, "Eerst")
    wait_until(lambda: held(two, "dronten") > 20, "some of Dronten's")
    hub.kill(PARTS[1])
    for town in (almere, dronten):
        share(town, 100, "Daarna")
    wait_until(lambda: two.national_log("almere") == almere.log(), "all of Almere's, with Dronten's worker dead")
    wait_until(dronten.is_sent, "Dronten's on the bus")
    assert held(two, "dronten") < len(dronten.log())
    hub.start(PARTS[1])
    two.settle()
    for town in (almere, dronten):
        assert two.national_log(town.name) == town.log()
        assert len(town.log()) > 200
    said = "".join(hub.said_ever(part) for part in PARTS)
    assert '"ahead"' not in said, "nothing came before its turn, so nothing had to be sent again"
    assert broker.queues() == {queue_of(0, 2), queue_of(1, 2), "hub.dead"}


def test_another_worker_takes_over_the_folding_of_one_that_died(two):
    hub, almere = two.hub, two.towns["almere"]
    hub.start(PARTS[1])
    hub.wait_until_ready(PARTS[1])
    hub.start(PARTS[0])
    share(almere, 5, "Hier")
    two.settle()
    hub.kill(PARTS[1])  # it began, so it folds
    share(almere, 5, "Daar")
    two.settle()


def test_nothing_is_lost_and_nothing_disordered_when_the_number_of_partitions_changes(broker, two):
    hub = two.hub
    for number in (3, 1, 2):
        for town in two.towns.values():
            share(town, 30, f"Voor{number}")
            wait_until(town.is_sent, "the messages on the former queues")
        hub.environment["TUINKOEPEL_HUB_INGEST_PARTITIONS"] = str(number)
        hub.start("worker")
        for town in two.towns.values():
            share(town, 30, f"Na{number}")
        two.settle()
        for town in two.towns.values():
            assert two.national_log(town.name) == town.log()
        assert '"ahead"' not in hub.said("worker")
        assert hub.said("worker").count("bus.emptied") > 0
        wait_until(
            lambda number=number: broker.queues() == {*ingest_queues(number, ()), "hub.dead"}, "the end of the former queues"
        )
        hub.stop("worker")


def test_a_worker_is_not_started_for_a_partition_that_is_none(two):
    done = two.hub.command("run", "worker", "--partition", "2")
    assert done.returncode != 0
    assert "the partitions are 0 to 1" in done.stderr
