"""Whatever bytes come over HTTPS: the hub answers strangers and towns in words, and a hub that lies harms no node (I12, I14).

Two ways. **Up**: anything at the doors of the protocol, unsigned, or signed by a town that is in: never a 5xx, and what is not
authentic leaves no trace. **Down**: anything that a hub may answer, rightly signed, for it is the hub itself that lies: the node
refuses it by a name it knows, or takes no harm. It is not rolled back, and no word is stored under a known town that this town did
not say. (Messages on the bus: `tests/shared/test_envelope.py`.)
"""

import copy
import random
from contextlib import contextmanager, suppress
from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from shared import feed, heads
from shared.db import Base, Database
from shared.envelope import Malformed, seal, to_json
from shared.eventlog import Author, append, open_epoch, read_head, read_log
from shared.events import TownAdmitted
from shared.inbox import KOEPEL, inbox
from shared.keys import KeyPair, to_text
from shared.limits import Limits
from shared.pins import pin_key, read_pins
from shared.relay import position
from shared.restore import TAIL, NoTail, check_tail, come_back, fetch_tail, set_back
from tests.federation.conftest import SIGNATURE, Bus, Clock, Hub, Town
from tests.shared.worlds import lesson

fuzz = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), database=None)
DOORS = ("join", "heads", "feed", "tail")

texts = st.text(max_size=30) | st.sampled_from(["", "\0", "a" * 41, "a" * 2400, "almere", "koepel", "../..", "%s", "é", "0", "-1"])
numbers = st.integers(-(2**70), 2**70) | st.sampled_from([0, -1, 2**31, 2**53 - 1, 2**53, 2**63, 2**64])
json = st.recursive(
    st.none() | st.booleans() | numbers.filter(lambda number: -(2**63) <= number < 2**64) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
rubbish = (
    st.binary(max_size=200) | json.map(orjson.dumps) | st.sampled_from([b"", b"[" * 5000, b"{" * 100, b"9" * 4000, b" " * 9000])
)


def spoil(draw, says, depth: int = 3):
    """Put something else in the place of one member of this JSON, or of a member's member, or take it away."""
    here = says
    for _ in range(draw(st.integers(0, depth))):
        inner = [value for value in (here.values() if isinstance(here, dict) else here) if isinstance(value, dict | list) and value]
        if not inner:
            break
        here = draw(st.sampled_from(inner))
    place = draw(st.sampled_from(sorted(here))) if isinstance(here, dict) else draw(st.integers(0, len(here) - 1))
    what = draw(st.sampled_from(["other", "gone", "twice"] if isinstance(here, list) else ["other", "other", "gone"]))
    if what == "other":
        here[place] = draw(json | texts | numbers.filter(lambda number: -(2**63) <= number < 2**64))
    elif what == "gone":
        del here[place]
    else:
        here.append(copy.deepcopy(here[place]))
    return says


@st.composite
def bent(draw, truth: bytes) -> bytes:
    """These true bytes with something done to them: a few bytes changed, or members of the JSON that they are."""
    if draw(st.integers(0, 3)) == 0:
        raw = bytearray(truth)
        for _ in range(draw(st.integers(1, 3))):
            start = draw(st.integers(0, max(0, len(raw) - 1)))
            raw[start : start + draw(st.integers(0, 30))] = draw(st.binary(max_size=30))
        return bytes(raw)
    says = orjson.loads(truth)
    for depth in draw(st.sampled_from([[0], [0, 0], [3], [3, 3]])):
        says = spoil(draw, says, depth) if says else says
    return orjson.dumps(says)


def nasty(truth: bytes):
    """These true bytes with each member of the JSON in turn as long, as big and as odd as can be."""
    says = orjson.loads(truth)
    for name in says:
        for value in (
            "a" * 41,
            "a" * 2400,
            "é",
            "",
            "\0",
            -1,
            2**53 - 1,
            2**63 - 1,
            True,
            None,
            [None],
            [{}] * 50,
            ["x", {"times": "\0"}],
        ):
            yield orjson.dumps(says | {name: value})


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request):
    """Addresses of fresh databases; "" stands for SQLite."""
    return request.getfixturevalue("postgres").fresh_database if request.param == "postgresql" else lambda: ""


@pytest.fixture(scope="module")
def hub(url, tmp_path_factory):
    folder, clock = tmp_path_factory.mktemp("fuzz"), Clock()
    made = Hub(folder / "hub", url(), clock, Bus())
    made.app.extensions["site"].limits = Limits(0)
    made.folder = folder
    yield made
    made.close()


@pytest.fixture(scope="module")
def towns(hub):
    """Almere, Breda and Dronten; the first two have told something, and the hub holds it."""
    made = {slug: Town(slug, hub, hub.folder, hub.clock) for slug in ("almere", "breda", "dronten")}
    for slug in ("almere", "breda"):
        for number in range(4):
            made[slug].share(f"Les {number} van {slug}")
        made[slug].relay()
    hub.work()
    for town in made.values():
        town.call()
    yield made
    for town in made.values():
        town.database.close()


@pytest.fixture
def truth(towns, hub):
    """What each town really said: its entries' headers, with their bodies."""
    said = {}
    for slug, town in towns.items():
        with town.database.reading() as session:
            said[slug] = {entry.header: entry.body for entry in read_log(session, read_head(session).epoch, 0, 100)}
    return said


class _Undo(Exception):  # noqa: N818
    pass


@contextmanager
def undone(database: Database):
    """A transaction of which nothing stays."""
    try:
        with database.transaction() as session:
            yield session
            raise _Undo
    except _Undo:
        pass


def everything(database: Database) -> dict:
    """Every row there is."""
    with database.reading() as session:
        return {
            name: sorted(map(repr, session.execute(select(table)).all())) for name, table in Base.metadata.tables.items()
            if session.connection().dialect.has_table(session.connection(), name)
        }  # fmt: skip


# ---- Up: the hub's doors ---------------------------------------------------------------------------------------------------


def knock(hub: Hub, door: str, raw: bytes, signature: str, query: dict | None = None):
    client, headers = hub.app.test_client(), {SIGNATURE: signature}
    if door in {"join", "heads"}:
        return client.post(f"/federation/v1/{door}", data=raw, headers=headers | {"Content-Type": "application/json"})
    asked = urlencode(query if query is not None else {"town": raw}, errors="surrogatepass")
    return client.get(f"/federation/v1/{door}?{asked}", headers=headers)


def is_refused_in_words(answer) -> bool:
    return 400 <= answer.status_code < 500 and answer.mimetype == "application/problem+json" and bool(answer.json["title"])


signatures = st.sampled_from(["", "no base64", to_text(bytes(64)), to_text(bytes(3))]) | st.text(
    st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=90
)


def test_whatever_a_stranger_sends_is_refused_in_words_and_leaves_no_trace(hub, towns):
    call = call_of(towns["almere"])
    before = everything(hub.database)

    @fuzz
    @given(door=st.sampled_from(DOORS), raw=rubbish | bent(call), signature=signatures)
    def stranger(door, raw, signature):
        assert is_refused_in_words(knock(hub, door, raw, signature))

    stranger()
    assert everything(hub.database) == before


def test_whatever_is_said_at_joining_without_a_code_is_refused_in_words_and_leaves_no_trace(hub, towns):
    before = everything(hub.database)
    parts = st.dictionaries(st.sampled_from(["code", "public_key", "proof", "more"]), json | texts, max_size=4)
    whole = st.fixed_dictionaries({name: texts | st.just(to_text(bytes(32))) for name in ("code", "public_key", "proof")})
    with_a_code = whole.map(lambda says: says | {"code": towns["almere"].code})

    @fuzz
    @given(parts | whole | with_a_code)
    def stranger(says):
        assert is_refused_in_words(knock(hub, "join", orjson.dumps(says), ""))

    stranger()
    assert everything(hub.database) == before


def test_whatever_a_town_signs_is_answered_and_never_with_a_5xx(hub, towns):
    almere = towns["almere"]
    call = call_of(almere)
    others = {"id": texts, "after": texts | numbers.map(str), "chain": texts, "epoch": texts, "more": texts}
    queries = st.fixed_dictionaries({"town": st.just("almere")}, optional=others)

    @fuzz
    @given(raw=rubbish | bent(call), query=queries, door=st.sampled_from(DOORS[1:]))
    def town(raw, query, door):
        if door == "heads":
            raw = with_challenge(hub, raw)
            answer = knock(hub, door, raw, to_text(almere.key.sign(heads.ASKS, raw)))
        else:
            path = f"/federation/v1/{door}?" + urlencode(query, errors="surrogatepass")
            signature = almere.key.sign(feed.PULLS if door == "feed" else TAIL, path.encode())
            answer = knock(hub, door, b"", to_text(signature), query)
        assert answer.status_code in {200, 409} or is_refused_in_words(answer)

    town()
    for odd in nasty(call_of(almere)):
        raw = with_challenge(hub, odd)
        answer = knock(hub, "heads", raw, to_text(almere.key.sign(heads.ASKS, raw)))
        assert answer.status_code in {200, 409} or is_refused_in_words(answer), raw
    with hub.database.transaction() as session:
        heads.thaw(session, "almere", hub.clock())  # instances came and went
    assert almere.call().status == "ok", "the town itself is heard as before"


def with_challenge(hub: Hub, raw: bytes) -> bytes:
    """The same call with the challenge that the hub waits for, if it is one: otherwise it would look no further."""
    try:
        says = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw
    with hub.database.reading() as session:
        challenge = session.scalar(select(heads.known_head.c.challenge).where(heads.known_head.c.town == "almere"))
    there = isinstance(says, dict) and isinstance(says.get("challenge"), str)
    return orjson.dumps(says | {"challenge": challenge}) if there else raw


def call_of(town: Town) -> bytes:
    """A call that this town would make now."""
    with town.database.reading() as session:
        return heads.ask(session, town.author, town.instance, feed.pull_cursor(session))[0]


# ---- Down: a node and a hub that lies --------------------------------------------------------------------------------------


@pytest.fixture
def node(url, towns, hub, tmp_path):
    """Dronten, which knows Almere's and Breda's keys and half of what they said, on this kind of database."""
    clock, dronten = hub.clock, towns["dronten"]
    database = Database(url() or f"sqlite:///{tmp_path / 'node.db'}")
    Base.metadata.create_all(database.engine)
    author = Author("dronten", dronten.key, clock, random.Random(3).randbytes)
    database.info["author"] = author
    with database.transaction() as session:
        open_epoch(session, author)
        pin_key(session, KOEPEL, dronten.hub_key, clock())
        pin_key(session, "dronten", dronten.key.public, clock())
        for number in range(4):
            append(session, lesson(f"Les {number}", code=f"lesson-{number}"))
    with hub.database.reading() as session:
        page = orjson.loads(feed.read_page(session, "", 0, ""))
    with database.transaction() as session:
        feed.accept_page(session, orjson.dumps(page | {"items": page["items"][:6]}), "dronten", clock())
    yield database
    database.close()


def own(session):
    last = read_head(session)
    return last, [entry.hash for entry in read_log(session, last.epoch, 0, 100)]


def is_true(session, truth) -> bool:
    """Under the known towns stands nothing but what they said. A body may be missing: the association erases for towns gone."""
    rows = session.execute(select(inbox.c.town, inbox.c.header, inbox.c.body).where(inbox.c.town.in_(truth))).all()
    return all(bytes(row.header) in truth[row.town] and row.body in {None, truth[row.town][bytes(row.header)]} for row in rows)


def test_whatever_a_hub_answers_to_a_head_call_rolls_no_node_back(hub, towns, node, truth):
    hub_key, author = hub.author.key, node.info["author"]
    others = [header.decode() for slug in ("almere", "breda") for header in truth[slug]]
    with node.reading() as session:
        last, before = own(session)
        mine = [entry.header.decode() for entry in read_log(session, last.epoch, 0, 100)]
    place = {"town": "dronten", "epoch": last.epoch, "prevhash": last.hash, "now": hub.clock(), "salt": bytes(32)}
    lies = [
        seal(lesson("Gelogen"), **place, seq=last.seq + seq, key=key)
        for seq in (0, 1, 5)
        for key in (hub_key, KeyPair(hub_key.seed, hub_key.public, author.key.key_id))
    ]
    answer = orjson.dumps(
        {
            "status": "ok",
            "cursor": 2,
            "want_from": None,
            "feed_id": "abcd",
            "feed_head": 7,
            "challenge": "c" * 32,
            "header": mine[1],
            "signature": to_text(bytes(64)),
            "quiet": True,
            "trouble": "",
            "everywhere": 1,
            "complaints": [{"verdict": "forked", "times": 1, "last_at": 1}],
        }
    )
    headers = st.sampled_from([*mine, *others, *(lie.header.decode() for lie in lies), ""]) | texts
    signed = st.sampled_from([to_text(lie.signature) for lie in lies]) | texts

    @st.composite
    def lying(draw) -> bytes:
        says = orjson.loads(answer) | {"header": draw(headers), "signature": draw(signed)}
        for _ in range(draw(st.integers(0, 2))):
            spoil(draw, says, 1)
        return orjson.dumps(says)

    def lie_to_it(raw):
        nonce = "n" * 32
        signature = to_text(hub_key.sign(heads.ANSWERS, nonce.encode() + raw))
        with suppress(heads.NotAuthentic):
            heads.hear(node, author, raw, signature, nonce, hub_key.public, hub.clock())
        with node.reading() as session:
            assert set_back(session) is None
            assert own(session) == (last, before)
            assert 0 <= position(session, last.epoch) <= last.seq

    fuzz(given(raw=rubbish | bent(answer) | lying())(lie_to_it))()
    for raw in nasty(answer):
        lie_to_it(raw)


def test_an_answer_of_another_or_to_another_call_is_not_believed(hub, node):
    hub_key, author, nonce = hub.author.key, node.info["author"], "n" * 32
    said = dict.fromkeys(("status", "feed_id", "challenge", "header", "signature", "trouble"), "")
    answer = orjson.dumps(
        said | {"status": "ok", "cursor": 3, "want_from": None, "feed_head": 0, "quiet": True, "everywhere": 3, "complaints": []}
    )
    stranger = KeyPair.of(bytes(32)).sign(heads.ANSWERS, nonce.encode() + answer)
    another = hub_key.sign(heads.ANSWERS, b"m" * 32 + answer)
    for signature in (stranger, another, bytes(64)):
        with pytest.raises(heads.NotAuthentic):
            heads.hear(node, author, answer, to_text(signature), nonce, hub_key.public, hub.clock())
    with node.reading() as session:
        assert session.execute(select(heads.received_head)).first() is None
    true = hub_key.sign(heads.ANSWERS, nonce.encode() + answer)
    assert heads.hear(node, author, answer, to_text(true), nonce, hub_key.public, hub.clock()).cursor == 3


def test_whatever_a_feed_page_says_no_word_is_put_into_a_known_towns_mouth(hub, towns, node, truth):
    with hub.database.reading() as session:
        page = feed.read_page(session, "", 0, "")
    says, hub_key = orjson.loads(page), hub.author.key
    with hub.database.reading() as session:
        said = read_log(session, read_head(session).epoch, 0, 100)
    true_words = truth | {KOEPEL: {entry.header: entry.body for entry in said}}
    almere = KeyPair(hub_key.seed, hub_key.public, towns["almere"].key.key_id)
    place = {
        "town": "almere",
        "epoch": orjson.loads(next(iter(truth["almere"])))["epoch"],
        "prevhash": bytes(32),
        "salt": bytes(32),
    }
    lies = [
        to_json(seal(lesson("Gelogen"), **place | more, now=hub.clock()))
        for more in (
            {"seq": 3, "key": almere},
            {"seq": 9, "key": almere},
            {"seq": 9, "key": hub_key},
            {"seq": 1, "key": almere, "epoch": "ffff"},
        )
    ]
    later = says["last"] + 1

    @st.composite
    def lying(draw) -> bytes:
        page = copy.deepcopy(says)
        page["items"] += [copy.deepcopy(lie) | {"number": later + draw(st.integers(-12, 3))} for lie in draw(st.permutations(lies))]
        for _ in range(draw(st.integers(0, 2))):
            spoil(draw, page)
        return orjson.dumps(page)

    @fuzz
    @given(raw=rubbish | bent(page) | lying())
    def liar(raw):
        with undone(node) as session:
            before, keys = own(session), read_pins(session, truth).keys_of("almere")
            try:
                feed.accept_page(session, raw, "dronten", hub.clock())
            except Malformed:
                return
            assert is_true(session, true_words)
            assert own(session) == before
            assert read_pins(session, truth).keys_of("almere") == keys
            assert set_back(session) is None

    liar()


def test_the_association_gives_a_known_town_no_second_key_by_admitting_it_again(hub, towns, node, truth):
    hub_key = hub.author.key
    with hub.database.reading() as session:
        last = read_head(session)
        feed_id, number = feed.feed_head(session)
    again = TownAdmitted(town="almere", name="Almere", key_id=hub_key.key_id, public_key=to_text(hub_key.public))
    place = {"town": KOEPEL, "epoch": last.epoch, "seq": last.seq + 1, "prevhash": last.hash, "now": hub.clock(), "salt": bytes(32)}
    item = to_json(seal(again, **place, key=hub_key)) | {"number": number + 1, "chain": "00"}
    with undone(node) as session:
        feed.accept_page(
            session, orjson.dumps({"v": 1, "id": feed_id, "last": number + 1, "items": [item]}), "dronten", hub.clock()
        )
        assert read_pins(session, ["almere"]).keys_of("almere") == [towns["almere"].key.public]


def test_whatever_a_tail_says_a_node_takes_back_its_own_words_or_nothing(hub, node, truth):
    author = node.info["author"]
    with node.reading() as session:
        last, _ = own(session)
        entries = list(read_log(session, last.epoch, 0, 100))
    place = {"town": "dronten", "epoch": last.epoch, "prevhash": last.hash, "now": hub.clock(), "salt": bytes(32)}
    more = [seal(lesson("Na de kopie", code="lesson-9"), **place, seq=last.seq + 1, key=author.key)]
    more.append(seal(lesson("En nog een", code="lesson-8"), **place | {"prevhash": more[0].hash}, seq=last.seq + 2, key=author.key))
    lie = seal(
        lesson("Gelogen"), **place, seq=last.seq + 1, key=KeyPair(hub.author.key.seed, hub.author.key.public, author.key.key_id)
    )
    tail = orjson.dumps({"v": 1, "items": [to_json(entry) for entry in more]})
    true_hashes = {entry.hash for entry in (*entries, *more)}

    @st.composite
    def lying(draw) -> bytes:
        parts = [to_json(entry) for entry in draw(st.lists(st.sampled_from([*entries, *more, lie]), max_size=4))]
        return orjson.dumps({"v": 1, "items": parts})

    @fuzz
    @given(raw=rubbish | bent(tail) | lying())
    def liar(raw):
        pages = iter([raw])

        def fetch(_epoch: str, _after: int) -> bytes:
            return next(pages, b'{"items": []}')

        with undone(node) as session:
            try:
                taken, common = fetch_tail(session, author, fetch)
                check_tail(session, author, taken)
            except NoTail:
                return
            come_back(session, author, taken, common, [], hub.clock())
            here, hashes = own(session)
            assert here.epoch != last.epoch or set(hashes) <= true_hashes

    liar()
