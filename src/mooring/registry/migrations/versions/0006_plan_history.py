"""Which price plan was in force since when, and an account for each currency."""

import sqlalchemy as sa
from alembic import op

from mooring.registry.columns import SERIAL

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "plan_history",
        sa.Column("serial", SERIAL, nullable=False, autoincrement=True),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("plan", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("serial", name="pk_plan_history"),
        sqlite_autoincrement=True,
    )
    op.drop_table("accounts")
    op.create_table(
        "accounts",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("balance", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "currency", name="pk_accounts"),
    )
    # A balance is nothing but what the ledger adds up to.
    op.execute(
        "INSERT INTO accounts (tenant, currency, balance)"
        " SELECT tenant, currency, -SUM(amount) FROM charges GROUP BY tenant, currency"
    )


def downgrade() -> None:
    op.drop_table("plan_history")
    op.drop_table("accounts")
    op.create_table(
        "accounts",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("balance", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", name="pk_accounts"),
    )
    op.execute(
        "INSERT INTO accounts (tenant, balance) SELECT tenant, -SUM(amount) FROM charges GROUP BY tenant"
    )
