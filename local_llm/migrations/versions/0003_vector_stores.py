"""Vector stores: titles, metadata, expiry and ranking of collections; who may see a file."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

WHOLE_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DOCUMENT = sa.JSON(none_as_null=True)


def upgrade() -> None:
    op.add_column("collections", sa.Column("title", sa.String(), nullable=True))
    op.add_column("collections", sa.Column("labels", DOCUMENT, nullable=False, server_default="{}"))
    op.add_column("collections", sa.Column("expires_after_days", WHOLE_NUMBER, nullable=True))
    op.add_column("collections", sa.Column("last_active_at", WHOLE_NUMBER, nullable=False, server_default="0"))
    op.add_column("collections", sa.Column("ranking", DOCUMENT, nullable=False, server_default="{}"))
    op.add_column("files", sa.Column("allow", DOCUMENT, nullable=True))


def downgrade() -> None:
    for column in ("ranking", "last_active_at", "expires_after_days", "labels", "title"):
        op.drop_column("collections", column)
    op.drop_column("files", "allow")
