"""What servers that share a database tell each other."""

import sqlalchemy as sa
from alembic import op

from mooring.registry.columns import SERIAL

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "claims",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_claims"),
    )
    op.create_table(
        "endings",
        sa.Column("serial", SERIAL, nullable=False, autoincrement=True),
        sa.Column("cache_id", sa.Text, nullable=False),
        sa.Column("prefix_id", sa.Text, nullable=False),
        sa.Column("ended_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("serial", name="pk_endings"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_endings_ended_at", "endings", ["ended_at"])
    op.create_table(
        "spans",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("length_s", sa.Integer, nullable=False),
        sa.Column("span", sa.BigInteger, nullable=False),
        sa.Column("used", sa.BigInteger, nullable=False),
        sa.Column("before", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "what", "length_s", name="pk_spans"),
    )
    op.create_table(
        "places",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("places", sa.Integer, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "holder", name="pk_places"),
    )


def downgrade() -> None:
    for table in ("claims", "endings", "spans", "places"):
        op.drop_table(table)
