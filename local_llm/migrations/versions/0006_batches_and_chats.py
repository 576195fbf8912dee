"""Batches of requests; chats that are kept, with what people say of them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

WHOLE_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DOCUMENT = sa.JSON(none_as_null=True)

COUNTS = ("total", "completed", "failed", "input_tokens", "cached_tokens", "output_tokens")
MOMENTS = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("project_id", sa.String(), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("input_file_id", sa.String(), nullable=False),
        sa.Column("server_url", sa.String(), nullable=False),
        sa.Column("labels", DOCUMENT, nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=True),
        sa.Column("problems", DOCUMENT, nullable=True),
        sa.Column("output_file_id", sa.String(), nullable=True),
        sa.Column("error_file_id", sa.String(), nullable=True),
        *(sa.Column(name, WHOLE_NUMBER, nullable=False, server_default="0") for name in COUNTS),
        sa.Column("created_at", WHOLE_NUMBER, nullable=False),
        sa.Column("expires_at", WHOLE_NUMBER, nullable=False),
        *(sa.Column(f"{name}_at", WHOLE_NUMBER, nullable=True) for name in MOMENTS),
        sa.Column("lease", sa.String(), nullable=True),
        sa.Column("lease_until", sa.Float(), nullable=True),
    )
    op.create_index("batches_by_status", "batches", ["status", "created_at"])
    op.create_index("batches_by_project", "batches", ["project_id", "created_at"])
    op.create_table(
        "chats",
        sa.Column("sequence", WHOLE_NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("project_id", sa.String(), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("created_at", WHOLE_NUMBER, nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("labels", DOCUMENT, nullable=False),
        sa.Column("request", DOCUMENT, nullable=False),
        sa.Column("answer", DOCUMENT, nullable=False),
        sa.Column("prompt", DOCUMENT, nullable=True),
        *(
            sa.Column(name, sa.String(), nullable=True)
            for name in ("rating", "correction", "reviewer_note", "rated_by")
        ),
        sa.Column("rated_at", WHOLE_NUMBER, nullable=True),
    )
    op.create_index("chats_by_project", "chats", ["project_id", "sequence"])


def downgrade() -> None:
    op.drop_table("chats")
    op.drop_table("batches")
