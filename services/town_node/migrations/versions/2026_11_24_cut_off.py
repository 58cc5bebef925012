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
    op.create_table(
        "cut_off",
        sa.Column("town", sa.String(length=40), nullable=False),
        sa.Column("epoch", sa.String(length=40), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("town", "epoch", name=op.f("pk_cut_off")),
    )


def downgrade() -> None:
    op.drop_table("cut_off")
