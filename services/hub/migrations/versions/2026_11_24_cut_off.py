"""How far a town's log counts, where the association cut it off.

Revision 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("epoch") as batch:
        batch.add_column(sa.Column("counts_to", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("epoch") as batch:
        batch.drop_column("counts_to")
