"""Responses: how much each takes, so that a project's and a conversation's can be counted without reading them."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

WHOLE_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXTS = ("response", "input_items")


def upgrade() -> None:
    op.add_column("responses", sa.Column("size", WHOLE_NUMBER, nullable=False, server_default="0"))
    lengths = " + ".join(f"coalesce(length(CAST({name} AS TEXT)), 0)" for name in TEXTS)
    op.execute(f"UPDATE responses SET size = {lengths}")
    op.create_index("responses_by_size", "responses", ["project_id", "size"])  # summed without touching the rows


def downgrade() -> None:
    op.drop_index("responses_by_size", "responses")
    op.drop_column("responses", "size")
