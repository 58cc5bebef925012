"""A file between the preview and the import. It may hold names and addresses: it stays in this database, for a day at most."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import JSON, LargeBinary, String, delete
from sqlalchemy.orm import Mapped, Session, mapped_column

from shared.db import Base

KEPT_FOR = timedelta(days=1)


class Upload(Base):
    """One file that somebody chose to import, until it is imported or a day has passed."""

    __tablename__ = "upload"

    code: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(160))
    """What the file is called, for the page."""
    content: Mapped[bytes] = mapped_column(LargeBinary)
    by_hand: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    """Place of a column → the field it was given by hand, or nothing."""
    owner: Mapped[str] = mapped_column(String(40))
    """The member who chose it; nobody else sees it."""
    made_at: Mapped[datetime] = mapped_column(index=True)


def forget_old_uploads(session: Session, now: datetime) -> None:
    """Erase the files whose day has passed. The worker calls this, and every new upload."""
    session.execute(delete(Upload).where(Upload.made_at < now - KEPT_FOR))
