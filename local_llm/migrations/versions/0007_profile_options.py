"""Profiles: how they answer, and whether the settings declare them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

NEW = ("answer_only_from_context", "rewrite", "from_settings")


def upgrade() -> None:
    op.add_column("profiles", sa.Column(NEW[0], sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("profiles", sa.Column(NEW[1], sa.Boolean(), nullable=True))
    op.add_column("profiles", sa.Column(NEW[2], sa.Boolean(), nullable=False, server_default=sa.false()))
    # A prompt of one's own used to be all that was said before the context: it stays so.
    op.execute("UPDATE profiles SET answer_only_from_context = false WHERE prompt IS NOT NULL")


def downgrade() -> None:
    for column in reversed(NEW):
        op.drop_column("profiles", column)
