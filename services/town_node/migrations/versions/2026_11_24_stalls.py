"""Which places fail in which epoch, how many erasures a projection has heeded, and how many entries came late.

Revision 0003, after 0002. What stood still is tried again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "projection_stall",
        sa.Column("projection", sa.String(length=40), nullable=False),
        sa.Column("town", sa.String(length=40), nullable=False),
        sa.Column("epoch", sa.String(length=40), nullable=False),
        sa.Column("stalled_at", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("projection", "town", "epoch", name=op.f("pk_projection_stall")),
    )
    with op.batch_alter_table("projection_cursor", schema=None) as batch_op:
        batch_op.drop_index("ix_projection_cursor_stalled")
        batch_op.drop_column("reason")
        batch_op.drop_column("stalled_at")
        batch_op.add_column(sa.Column("filled", sa.BigInteger(), server_default="0", nullable=False))
    with op.batch_alter_table("inbox_cursor", schema=None) as batch_op:
        batch_op.add_column(sa.Column("filled", sa.BigInteger(), server_default="0", nullable=False))
    with op.batch_alter_table("projection", schema=None) as batch_op:
        batch_op.add_column(sa.Column("erased", sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("projection", schema=None) as batch_op:
        batch_op.drop_column("erased")
    with op.batch_alter_table("inbox_cursor", schema=None) as batch_op:
        batch_op.drop_column("filled")
    with op.batch_alter_table("projection_cursor", schema=None) as batch_op:
        batch_op.drop_column("filled")
        batch_op.add_column(sa.Column("stalled_at", sa.BigInteger(), nullable=True))
        batch_op.add_column(sa.Column("reason", sa.Text(), server_default="", nullable=False))
        batch_op.create_index("ix_projection_cursor_stalled", ["stalled_at"], unique=False)
    op.drop_table("projection_stall")
