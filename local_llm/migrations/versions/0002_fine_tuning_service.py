"""Fine-tuning as a service: checkpoints, result files, retries that start no second job."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

WHOLE_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "job_checkpoints",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("step_number", WHOLE_NUMBER, nullable=False),
        sa.Column("model_name", sa.String(), nullable=False),
        sa.Column("metrics", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", WHOLE_NUMBER, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("job_id", "step_number"),
    )
    op.create_index("ix_job_checkpoints_job_id", "job_checkpoints", ["job_id"])
    op.add_column("adapters", sa.Column("step_number", WHOLE_NUMBER, nullable=True))
    # SQLite adds columns in place; a constraint would rebuild the table under its foreign keys, an index does not.
    op.add_column(
        "jobs", sa.Column("result_files", sa.JSON(none_as_null=True), nullable=False, server_default="[]")
    )
    op.add_column("jobs", sa.Column("output_name", sa.String(), nullable=True))
    op.add_column("jobs", sa.Column("micro_batch_tokens", WHOLE_NUMBER, nullable=True))
    op.add_column("jobs", sa.Column("idempotency_key", sa.String(), nullable=True))
    op.add_column("jobs", sa.Column("request_sha256", sa.String(), nullable=True))
    op.create_index("jobs_by_idempotency_key", "jobs", ["project_id", "idempotency_key"], unique=True)


def downgrade() -> None:
    op.drop_index("jobs_by_idempotency_key", "jobs")
    for column in ("request_sha256", "idempotency_key", "micro_batch_tokens", "output_name", "result_files"):
        op.drop_column("jobs", column)
    op.drop_column("adapters", "step_number")
    op.drop_index("ix_job_checkpoints_job_id", "job_checkpoints")
    op.drop_table("job_checkpoints")
