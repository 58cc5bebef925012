"""Every slice that the association holds something of.

What comes back after a backup, and what is told again (`shared/restore.py`).
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from services.town_node.circle.restore import circle
from services.town_node.initiatives.restore import initiatives
from services.town_node.lessons.restore import lessons
from services.town_node.meetings.restore import meetings
from shared.events import Redacted
from shared.language import HERE
from shared.restore import Slice, settle_conflict

SLICES: Sequence[Slice] = (circle, initiatives, meetings, lessons)


def forget(session: Session, subject: str, now: datetime) -> None:
    """Take a subject out of the circle's own tables, with all that hangs on it, and with the version that was not taken."""
    settle_conflict(session, subject)
    for each in SLICES:
        if Redacted in each.handlers:
            each.handlers[Redacted](session, Redacted(redacts=subject), now.astimezone(HERE).date())
