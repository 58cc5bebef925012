"""The mutants: what is taken away, where, and which tests are asked first.

`first` holds runs of pytest, their words with | between; what they do not catch, the fast part of the suite has to.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A promise that is broken."""

    name: str
    file: str
    changes: tuple[tuple[str, str], ...]
    first: tuple[str, ...] = ()


RESTORED = ("tests/federation/test_comebacks.py|tests/federation/test_hostile.py",)
CONVERGENCE = ("tests/shared/test_convergence.py|-k|not TestFederation",)
FUZZ = ("tests/federation/test_fuzz.py|-k|sqlite",)
SPINE = ("tests/federation/test_spine.py|-k|embedded",)
ENVELOPE = ("tests/shared/test_envelope.py",)


def kill(words: str) -> tuple[str, ...]:
    """The kill tests of one combination of parts."""
    return (f"tests/kill/test_failpoints.py|-k|{words}",)


MUTANTS = [
    Mutant(
        "no head exchange: the hub never asks for a repeat",
        "shared/heads.py",
        (("    return cursor + 1 if (busy or 0) < REPEATS_MAX else None\n", "    return None\n"),),
        SPINE,
    ),
    Mutant(
        "no salt: a body's hash without it",
        "shared/envelope.py",
        (("hashlib.sha256(salt + body).digest()", "hashlib.sha256(body).digest()"),),
        ENVELOPE,
    ),
    Mutant(
        "no salt: the same one every time",
        "shared/eventlog.py",
        (("        salt=author.randomness(SALT_LENGTH),\n", "        salt=bytes(SALT_LENGTH),\n"),),
        ENVELOPE,
    ),
    Mutant(
        "no fork check",
        "shared/inbox.py",
        (
            (
                "    return any(stored.get(place) != entry.hash for place, entry in zip(places, old, strict=True))\n",
                "    return False\n",
            ),
        ),
        ENVELOPE,
    ),
    Mutant(
        "no signature check",
        "shared/envelope.py",
        (("    return verified(public, entry.signature, SIGNS_EVENT, entry.hash)\n", "    return True\n"),),
        ENVELOPE,
    ),
    Mutant(
        "ack before commit",
        "services/hub/worker.py",
        (
            (
                "        ingest(database, [body_of(message) for message in messages])\n        deliveries.ack(messages)\n",
                "        deliveries.ack(messages)\n        ingest(database, [body_of(message) for message in messages])\n",
            ),
        ),
        kill("sqlite-sqlite_bus-hub-worker-hub.accepted"),
    ),
    Mutant(
        "position before confirm",
        "shared/relay.py",
        (
            ('    publish(message)\n    failpoint("relay.published")\n', ""),
            (
                '    failpoint("relay.moved")\n',
                '    publish(message)\n    failpoint("relay.published")\n    failpoint("relay.moved")\n',
            ),
        ),
        CONVERGENCE,
    ),
    Mutant(
        "no chain check within a message",
        "shared/envelope.py",
        (("        if here.prevhash != before.hash:\n", "        if False:\n"),),
        ENVELOPE,
    ),
    Mutant(
        "no chain check between messages",
        "shared/inbox.py",
        (('    if fresh[0].says.prevhash != bytes(cursor["hash"]):\n', "    if False:\n"),),
        ENVELOPE,
    ),
    Mutant(
        "no body check: any body under a signed header",
        "shared/envelope.py",
        (("        if _payload_hash(salt, body) != says.payloadhash:\n", "        if False:\n"),),
        ENVELOPE,
    ),
    Mutant(
        "a gap is passed over",
        "shared/inbox.py",
        (("    if first > known + 1:\n", "    if False:\n"),),
        CONVERGENCE,
    ),
    Mutant(
        "dedupe off",
        "shared/inbox.py",
        (("    fresh = message.entries[len(old) :]\n", "    fresh = list(message.entries)\n"),),
        CONVERGENCE,
    ),
    Mutant(
        "erased bodies accepted",
        "shared/inbox.py",
        (
            (
                "kept = not ({(says.town, says.subject), (EVERYWHERE, says.subject)} & self.erased) or says.type in _EXEMPT\n",
                "kept = True\n",
            ),
        ),
        RESTORED,
    ),
    Mutant(
        "ended key accepted",
        "shared/pins.py",
        (("        if found.ends is None or (found.ends[0] == epoch and seq <= found.ends[1]):\n", "        if True:\n"),),
        RESTORED,
    ),
    Mutant(
        "a rotation needs no proof",
        "shared/pins.py",
        (
            (
                "    return public if happened.key_id == key_id_of(public) and verified(public, proof, ROTATES, place) else None\n",
                "    return public if place and proof else None\n",
            ),
        ),
        RESTORED,
    ),
    Mutant(
        "an epoch is shown before it is settled",
        "shared/projections.py",
        (
            ("        .where(epoch_order.c.settled.is_not(None))\n", ""),
            ("row.settled <= row.counts_to]", "(row.settled or 0) <= row.counts_to]"),
            ("run.counts_to < run.settled", "run.counts_to < (run.settled or 0)"),
            ("whole=run.settled if", "whole=(run.settled or 0) if"),
        ),
        RESTORED,
    ),
    Mutant(
        "the sidecar's contradiction ignored",
        "shared/restore.py",
        (('    return known is None or known.hex() != said["hash"]\n', "    return False\n"),),
        RESTORED,
    ),
    Mutant(
        "a lying hub is believed: no signature on what it shows",
        "shared/restore.py",
        (("    return key is not None and signed_by(entry, key)\n", "    return True\n"),),
        FUZZ,
    ),
    Mutant(
        "a tail without a signature is put back",
        "shared/restore.py",
        (("    if entries and not _is_own(session, author, entries[-1]):\n", "    if False:\n"),),
        FUZZ,
    ),
    Mutant(
        "the answer's signature is not looked at",
        "shared/heads.py",
        (
            (
                "    if len(body) > ANSWER_MAX or not _signed(hub_key, signature, ANSWERS, nonce.encode() + body):\n",
                "    if len(body) > ANSWER_MAX:\n",
            ),
        ),
        FUZZ,
    ),
    Mutant(
        "an old call counts as a fresh one",
        "shared/heads.py",
        (("bool(before.challenge) and before.challenge == call.challenge\n", "bool(before.challenge)\n"),),
        SPINE,
    ),
    Mutant(
        "two copies are not noticed",
        "shared/heads.py",
        (("        if call.instance in earlier:\n", "        if False:\n"),),
        RESTORED,
    ),
    Mutant(
        "every town sends again while the hub's worker is off",
        "shared/heads.py",
        (("(call.epoch, call.sent) and _was_empty_since(session, before)\n", "(call.epoch, call.sent)\n"),),
        SPINE,
    ),
    Mutant(
        "a second new epoch within a day",
        "shared/inbox.py",
        (("store.now - begun.opened_at < EPOCH_LEAST", "store.now < begun.opened_at"),),
        RESTORED,
    ),
    Mutant(
        "feed chain unchecked",
        "shared/feed.py",
        (("    return held is not None and bytes(held).hex() == chain\n", "    return held is not None\n"),),
        SPINE,
    ),
    Mutant(
        "quarantine without a cap",
        "shared/quarantine.py",
        (("or held[2] >= HOURLY_MAX:\n", "or False:\n"),),
        RESTORED,
    ),
    Mutant(
        "forwarded without a look at the signature",
        "services/hub/forwarding.py",
        (("    if key is not None and signed_by(entry, key):\n", "    if True:\n"),),
        SPINE,
    ),
    Mutant(
        "half of a new epoch is shown",
        "shared/projections.py",
        (("whole=run.settled if run is not epochs[-1] else 0", "whole=0"),),
        ("tests/federation/test_stalls.py",),
    ),
    Mutant(
        "while a new epoch stalls, the old one stands still too",
        "shared/projections.py",
        (('                if stall["stalled_at"] <= whole:\n                    failing.append(projection)\n', ""),),
        ("tests/federation/test_stalls.py",),
    ),
    Mutant(
        "what was erased stays in a view",
        "shared/projections.py",
        (("            projection.forget_erased(session)\n", ""),),
        ("tests/federation/test_stalls.py",),
    ),
    Mutant(
        "a stall skips what failed",
        "shared/projections.py",
        (
            (
                'return effects, reached, {"stalled_at": place, "reason": f"{type(error).__name__}: {error}"[:500]}\n',
                "pass\n",
            ),
        ),
        CONVERGENCE,
    ),
    Mutant(
        "writers without a lock (SQLite)",
        "shared/db.py",
        (('else "BEGIN IMMEDIATE")', 'else "BEGIN")'),),
        ("tests/shared/test_eventlog.py|-k|sqlite",),
    ),
    Mutant(
        "writers without a lock (PostgreSQL)",
        "shared/eventlog.py",
        (
            (
                "    row = session.execute(_head_query().with_for_update()).first()\n",
                "    row = session.execute(_head_query()).first()\n",
            ),
        ),
        ("tests/shared/test_eventlog.py|-k|postgresql",),
    ),
    Mutant(
        "an erasure that was lost before it had left is never asked again",
        "shared/erasure.py",
        (("    for subject in never:\n", "    for subject in never[:0]:\n"),),
        ("tests/federation/test_erased.py",),
    ),
    Mutant(
        "a tail brings back what was erased",
        "shared/restore.py",
        (("    tail = _without_erased(session, author.town, tail)\n", ""),),
        ("tests/federation/test_erased.py",),
    ),
    Mutant(
        "a node believes its ended key beyond its end",
        "shared/restore.py",
        (("    if end is not None and (end[0] == NEVER", "    if False and (end[0] == NEVER"),),
        ("tests/federation/test_keys.py",),
    ),
    Mutant(
        "what a thief told stays to be seen when the key is revoked",
        "shared/projections.py",
        (("    return last if run.counts_to is None else", "    return last if True else"),),
        ("tests/hub/test_parting.py|-k|sqlite and thief",),
    ),
    Mutant(
        "what a thief told comes back to the town as its own",
        "shared/feed.py",
        (("upto = () if counts_to is None else (inbox.c.seq <= counts_to,)", "upto = ()"),),
        ("tests/hub/test_parting.py|-k|sqlite and thief",),
    ),
    Mutant(
        "a hub that is put back forgets which keys ended",
        "services/hub/towns/keyring.py",
        (("        if not forgotten:\n", "        if True:\n"),),
        ("tests/hub/test_keyring.py|-k|revoked",),
    ),
    Mutant(
        "a revoked key fills the gap that a backup leaves",
        "services/hub/towns/keyring.py",
        (("    _wait_for_nothing(session, slug, held, now)\n", ""),),
        ("tests/hub/test_keyring.py|-k|gap",),
    ),
    Mutant(
        "the embedded courier fills the disk",
        "shared/sqlite_bus.py",
        (("        self._must_have_room(len(body))\n", ""),),
        ("tests/shared/test_sqlite_bus.py",),
    ),
    Mutant(
        "a message to no queue counts as delivered",
        "shared/sqlite_bus.py",
        (("            raise Unroutable(msg)\n", "            return []\n"),),
        ("tests/shared/test_sqlite_bus.py",),
    ),
    Mutant(
        "a node that was put back publishes at once",
        "services/town_node/worker.py",
        (
            ("between.may_send.is_set() and set_back(session) is None\n", "between.may_send.is_set()\n"),
            ('if answer.status != "ok" or self.is_set_back() or', 'if answer.status != "ok" or'),
        ),
        kill("postgresql-sqlite_bus and put-back-and-written-to"),
    ),
]
