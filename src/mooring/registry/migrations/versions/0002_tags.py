"""Tags."""

import sqlalchemy as sa
from alembic import op

from mooring.registry.columns import SERIAL

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "tags",
        sa.Column("serial", SERIAL, nullable=False, autoincrement=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("cache_id", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("serial", name="pk_tags"),
        sa.UniqueConstraint("tenant", "name", name="uq_tags_tenant_name"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("tags")
