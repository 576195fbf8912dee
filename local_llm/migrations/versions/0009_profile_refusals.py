"""Profiles: what they say where the documents hold no answer."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("profiles", sa.Column("refusal", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("profiles", "refusal")
