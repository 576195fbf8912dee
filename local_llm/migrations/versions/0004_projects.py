"""Keys with scopes, limits and rotation; what projects allow; usage by the minute."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

WHOLE_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DOCUMENT = sa.JSON(none_as_null=True)

PROJECT_FLAGS = ("log_content", "store_chats")
PROJECT_QUOTAS = ("file_quota_bytes", "collection_quota_bytes")
KEY_SCOPES = ("models", "collections")
KEY_NUMBERS = (
    "requests_per_minute",
    "tokens_per_minute",
    "tokens_per_day",
    "last_used_at",
    "previous_expires_at",
)
COUNTS = ("requests", "input_tokens", "cached_tokens", "output_tokens", "passages")


def upgrade() -> None:
    for name in PROJECT_FLAGS:
        op.add_column("projects", sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false()))
    for name in PROJECT_QUOTAS:
        op.add_column("projects", sa.Column(name, WHOLE_NUMBER, nullable=True))
    op.add_column("keys", sa.Column("account_id", sa.String(), nullable=False, server_default=""))
    for name in KEY_SCOPES:
        op.add_column("keys", sa.Column(name, DOCUMENT, nullable=True))
    for name in KEY_NUMBERS:
        op.add_column("keys", sa.Column(name, WHOLE_NUMBER, nullable=True))
    op.add_column("keys", sa.Column("previous_sha256", sa.String(), nullable=True))
    # Keys of before: each is an account of its own.
    op.execute("UPDATE keys SET account_id = 'svc_acct_' || substr(id, 5)")
    _make_an_owner()
    op.create_index("ix_keys_previous_sha256", "keys", ["previous_sha256"])
    op.add_column("files", sa.Column("key_id", sa.String(), nullable=True))
    op.create_table(
        "usage",
        sa.Column("minute", WHOLE_NUMBER, autoincrement=False, nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("project_id", "key_id", "model", "kind")),
        *(sa.Column(name, WHOLE_NUMBER, nullable=False) for name in COUNTS),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("minute", "project_id", "key_id", "model", "kind"),
    )
    op.create_index("usage_by_key", "usage", ["key_id", "minute"])
    op.create_index("audit_by_time", "audit", ["created_at"])


def _make_an_owner() -> None:
    """Managing keys and projects is the owners' from here on. The oldest admin's key that is good becomes one, so
    that somebody can; not where there are several projects, since it would reach beyond its own."""
    statement = sa.text(
        """
        UPDATE keys SET role = 'owner' WHERE id = (
            SELECT id FROM keys
            WHERE role = 'admin' AND revoked_at IS NULL
            AND (expires_at IS NULL OR expires_at > :now)
            ORDER BY created_at, id LIMIT 1
        ) AND (SELECT COUNT(*) FROM projects) = 1
        """
    )
    op.execute(statement.bindparams(now=int(time.time())))


def downgrade() -> None:
    op.drop_index("audit_by_time", "audit")
    op.drop_index("usage_by_key", "usage")
    op.drop_table("usage")
    op.drop_column("files", "key_id")
    op.drop_index("ix_keys_previous_sha256", "keys")
    # What was an owner's is an admin's again.
    op.execute("UPDATE keys SET role = 'admin' WHERE role = 'owner'")
    for name in ("previous_sha256", *KEY_NUMBERS, *KEY_SCOPES, "account_id"):
        op.drop_column("keys", name)
    for name in (*PROJECT_QUOTAS, *PROJECT_FLAGS):
        op.drop_column("projects", name)
