"""Chats: how much each takes, so that a project's can be counted without reading them."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

WHOLE_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXTS = ("request", "answer", "prompt")


def upgrade() -> None:
    op.add_column("chats", sa.Column("size", WHOLE_NUMBER, nullable=False, server_default="0"))
    lengths = " + ".join(f"coalesce(length(CAST({name} AS TEXT)), 0)" for name in TEXTS)
    op.execute(f"UPDATE chats SET size = {lengths}")
    op.create_index("chats_by_size", "chats", ["project_id", "size"])  # summed without touching the rows


def downgrade() -> None:
    op.drop_index("chats_by_size", "chats")
    op.drop_column("chats", "size")
