"""Cache objects."""

import sqlalchemy as sa
from alembic import op

from mooring.registry.columns import SERIAL

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "caches",
        sa.Column("serial", SERIAL, nullable=False, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("messages", sa.JSON, nullable=False),
        sa.Column("tools", sa.JSON, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("metadata", sa.JSON),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expired_at", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("tokens", sa.Integer, nullable=False),
        sa.Column("prefix_id", sa.Text, nullable=False),
        sa.Column("failure", sa.JSON),
        sa.PrimaryKeyConstraint("serial", name="pk_caches"),
        sa.UniqueConstraint("id", name="uq_caches_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_caches_tenant_serial", "caches", ["tenant", "serial"])
    op.create_index("ix_caches_prefix_id", "caches", ["prefix_id"])
    op.create_index("ix_caches_status_expired_at", "caches", ["status", "expired_at"])


def downgrade() -> None:
    op.drop_table("caches")
