"""When the hub itself was put back from a backup (I16): how it notices, and how it begins anew.

It notices by its sidecar, a file that says how far the feed and the association's own log went. Then the feed gets a new id, so
that every town reads it from the beginning, and the association's own log a new epoch, in which it says again which towns there
are: what it said after the backup is lost here, but the towns may hold it, and one place must never have two meanings. If that file
is lost too, `hub put-back` says the same by hand. No town can bring it about.

What the towns' logs lack here they send again by themselves, after their next head exchanges.
"""

import logging
import secrets
from typing import Any

from sqlalchemy.orm import Session

from services.hub.towns.joining import end_codes, retell_towns
from services.hub.towns.keyring import Keyring
from shared.db import Database
from shared.eventlog import lock_head, read_head, read_log
from shared.feed import feed_head, renew_feed
from shared.heads import forget_reach
from shared.observability import facts
from shared.restore import Sidecar, Slice, begin_epoch, contradicts

log = logging.getLogger(__name__)

TOWNS = Slice("towns", retell_towns)


def keep_in_step(database: Database, sidecar: Sidecar, keyring: Keyring, *, put_back: bool = False) -> bool:
    """Begin anew if this hub is an older copy of itself, or somebody says so.

    Write down how far it reaches, and whose key is whose; whether it began anew.
    """
    with database.transaction() as session:
        begun = (put_back or keyring.owes(session) or _is_older(session, sidecar)) and _begin_anew(session)
    with database.reading() as session:  # after the commit: the file must never know of more than there is
        reach = _reach(session)
    if sidecar.read() != reach:
        sidecar.note(**reach)
    keyring.note(database)
    return begun


def _is_older(session: Session, sidecar: Sidecar) -> bool:
    feed_id, last = feed_head(session)
    said = sidecar.read()
    lost = said.get("feed") == feed_id and said.get("last", 0) > last
    if not lost and not contradicts(session, sidecar):
        return False
    log.warning("hub.put_back", extra=facts(reach=said, last=last))
    return True


def _begin_anew(session: Session) -> bool:
    renew_feed(session, secrets.token_hex(8))
    end_codes(session, session.info["author"].now())  # each was perhaps used since, or replaced because somebody else had it
    forget_reach(session)
    head = lock_head(session)
    if head is not None:
        said = read_log(session, head.epoch, head.seq - 1, 1) if head.seq else [None]
        begin_epoch(session, session.info["author"], said[0], [TOWNS])
    return True


def _reach(session: Session) -> dict[str, Any]:
    feed_id, last = feed_head(session)
    head = read_head(session)
    reach = {"feed": feed_id, "last": last}
    return reach | ({"epoch": head.epoch, "seq": head.seq, "hash": head.hash.hex()} if head is not None else {})
