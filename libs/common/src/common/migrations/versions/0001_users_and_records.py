"""Creates users and records, and grants each service what it needs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

GROUP_ROLES = ("waxwing_users", "waxwing_records")


def upgrade() -> None:
    """Creates the tables, the two group roles if they are absent, and the grants."""
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("token_digest", sa.LargeBinary(), unique=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "records",
        sa.Column("id", sa.Uuid(), primary_key=True),
        sa.Column("user_id", sa.Uuid(), sa.ForeignKey("users.id"), nullable=False),
        sa.Column("state", sa.String(), server_default="uploading", nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True)),
        sa.Column("gone_since", sa.DateTime(timezone=True)),
        sa.Column("object_key", sa.String(), nullable=False, unique=True),
        sa.Column("title", sa.String()),
        sa.Column("size_bytes", sa.BigInteger()),
        sa.Column("sha256", sa.LargeBinary()),
        sa.Column("duration_seconds", sa.Double()),
        sa.Column("sample_rate", sa.Integer()),
        sa.Column("channels", sa.Integer()),
        sa.Column("bitrate_kbps", sa.Integer()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("state IN ('uploading', 'ready', 'deleting')", name="records_state_is_known"),
        sa.CheckConstraint(
            "state <> 'uploading' OR lease_until IS NOT NULL", name="records_uploading_has_a_lease"
        ),
        sa.CheckConstraint(
            "state <> 'ready' OR num_nulls(size_bytes, sha256, duration_seconds, sample_rate, channels,"
            " bitrate_kbps, published_at) = 0",
            name="records_ready_is_complete",
        ),
    )
    op.create_index(
        "records_of_a_user", "records", ["user_id", sa.text("created_at DESC"), sa.text("id DESC")]
    )
    op.create_index(
        "records_unfinished",
        "records",
        ["state", "lease_until"],
        postgresql_where=sa.text("state <> 'ready'"),
    )
    for role in GROUP_ROLES:
        # Roles belong to the whole cluster, so another database may have created them already.
        op.execute(
            f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )
    op.execute("GRANT SELECT, INSERT, UPDATE ON users TO waxwing_users")
    op.execute("GRANT SELECT (id, token_digest, deleted_at) ON users TO waxwing_records")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON records TO waxwing_records")


def downgrade() -> None:
    """Drops the tables. The roles stay, because other databases of the cluster may use them."""
    op.drop_table("records")
    op.drop_table("users")
