"""What the hub remembers outside its database, and what it therefore knows although a backup does not (design §4).

Every process that serves or takes in opens the database here: a copy that was put back first erases again what was erased (I18),
and knows again which keys ended (I12). `reach.json`, the third of these files, is looked at by the worker (`towns/setback.py`).
"""

import logging
from collections.abc import Sequence

from sqlalchemy.exc import DBAPIError

from services.hub.config import Settings, doorbell, erasures, open_hub, utc_now
from services.hub.initiatives.projection import initiatives
from services.hub.lessons.projection import lessons
from services.hub.meetings.projection import meetings
from services.hub.towns.keyring import Keyring, recall
from services.hub.towns.projection import towns
from shared.db import Database
from shared.erasure import replay
from shared.eventlog import Author
from shared.inbox import EVERYWHERE
from shared.keys import DamagedKey
from shared.observability import facts
from shared.projections import Projection

log = logging.getLogger(__name__)

PROJECTIONS: Sequence[Projection] = (towns, initiatives, meetings, lessons)


def keyring(settings: Settings) -> Keyring:
    """What was decided about keys, in a file that does not belong into the database's backup."""
    return Keyring(settings.state / "keys.json")


def open_remembering(settings: Settings) -> tuple[Database, Author]:
    """The hub's database, which knows what it ever knew. What is decided from now on about keys is noted after its commit."""
    (database, author), kept, bell = open_hub(settings), keyring(settings), doorbell(settings)
    replay(database, erasures(settings), PROJECTIONS, own={EVERYWHERE})
    recall(database, kept, PROJECTIONS, utc_now())

    def remember() -> None:
        try:
            kept.note(database)
        except (OSError, DamagedKey, DBAPIError) as error:  # it is committed; the worker tries again, and stops if it cannot
            log.warning("keys.not_noted", extra=facts(error=str(error)))
        finally:
            bell.ring()

    database.after_append = remember
    return database, author
