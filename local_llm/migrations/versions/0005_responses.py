"""Stored responses, and whether a project has them kept."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

WHOLE_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DOCUMENT = sa.JSON(none_as_null=True)


def upgrade() -> None:
    op.add_column("projects", sa.Column("store_responses", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.create_table(
        "responses",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("created_at", WHOLE_NUMBER, nullable=False),
        sa.Column("used_at", WHOLE_NUMBER, nullable=False),
        sa.Column("previous_id", sa.String(), nullable=True),
        sa.Column("response", DOCUMENT, nullable=False),
        sa.Column("input_items", DOCUMENT, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("responses_by_use", "responses", ["used_at"])


def downgrade() -> None:
    op.drop_index("responses_by_use", "responses")
    op.drop_table("responses")
    op.drop_column("projects", "store_responses")
