"""When the hub itself was put back from a backup (I16): how it notices, and how it begins anew.

It notices by its sidecar, a file that says how far the feed went, or because a town has read what the feed does not hold. Then the
feed gets a new id, so that every town reads it from the beginning, and the association's own log a new epoch, in which it says
again which towns there are: what it said after the backup is lost here, but the towns may hold it, and one place must never have
two meanings.

What the towns' logs lack here they send again by themselves, after their next head exchanges.
"""

import logging
import secrets

from sqlalchemy.orm import Session

from services.hub.towns.joining import retell_towns
from shared.eventlog import lock_head, read_log
from shared.feed import feed_head, is_doubted, renew_feed
from shared.observability import facts
from shared.restore import Sidecar, Slice, begin_epoch, contradicts

log = logging.getLogger(__name__)

TOWNS = Slice("towns", retell_towns)


def begin_anew_if_put_back(session: Session, sidecar: Sidecar) -> bool:
    """Begin a new feed and a new epoch of the association, if this hub is an older copy of itself; whether it was."""
    feed_id, last = feed_head(session)
    said = sidecar.read()
    lost = said.get("feed") == feed_id and said.get("last", 0) > last
    if not (lost or is_doubted(session) or contradicts(session, sidecar)):
        return False
    log.warning("hub.put_back", extra=facts(lost=lost, doubted=is_doubted(session), reach=said, last=last))
    renew_feed(session, secrets.token_hex(8))
    head = lock_head(session)
    if head is not None and head.seq:
        (entry,) = read_log(session, head.epoch, head.seq - 1, 1)
        begin_epoch(session, session.info["author"], entry, [TOWNS])
    return True


def note_reach(session: Session, sidecar: Sidecar) -> None:
    """Write down how far the feed and the association's own log went, where no backup of the database can take it back."""
    feed_id, last = feed_head(session)
    head = lock_head(session)
    reach = {"feed": feed_id, "last": last}
    if head is not None:
        reach |= {"epoch": head.epoch, "seq": head.seq, "hash": head.hash.hex()}
    if sidecar.read() != reach:
        sidecar.note(**reach)
