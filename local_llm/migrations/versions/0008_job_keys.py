"""Jobs: which key made them, for the files that they end with."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("key_id", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "key_id")
